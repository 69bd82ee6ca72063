"""Who holds what, and what they may therefore see. ``settings.AUTHORITY`` points here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.db.models import Model, Q, QuerySet

from llmops.access.models import Membership, Project, ServiceKey
from llmops.access.rules import ADMIN, ORGANISATION_WIDE, PERMISSIONS, roles_allow, scopes_allow
from llmops.base.clock import database_now
from llmops.base.master_keys import master_keys
from llmops.base.models import MasterKeyVerifier, Resealing
from llmops.base.sealed import values_by_key
from llmops.core.actors import Actor

_M = TypeVar("_M", bound=Model)
_EVERYTHING = frozenset(PERMISSIONS)


@dataclass(frozen=True)
class Powers:
    """Permissions held in the whole organisation, and those held in single projects."""

    everywhere: frozenset[str] = frozenset()
    by_project: Mapping[UUID, frozenset[str]] = field(default_factory=dict)

    def allow(self, permission: str, project_id: UUID | None) -> bool:
        """Whether ``permission`` is held in the project, or (None) in the whole organisation."""
        if permission not in PERMISSIONS:
            raise KeyError(f"{permission!r} is not a permission; llmops/access/rules.py lists them")
        if permission in self.everywhere:
            return True
        if project_id is None or permission in ORGANISATION_WIDE:
            return False
        return permission in self.by_project.get(project_id, ())

    def allow_anywhere(self, permission: str) -> bool:
        """Whether ``permission`` is held in at least one place where it means something."""
        return self.allow(permission, None) or (
            permission not in ORGANISATION_WIDE
            and any(permission in held for held in self.by_project.values())
        )

    def cover(self, other: Powers) -> bool:
        """Whether whoever holds these powers may do everything that ``other`` allows."""
        return other.everywhere <= self.everywhere and all(
            held <= self.everywhere | self.by_project.get(project_id, frozenset())
            for project_id, held in other.by_project.items()
        )


ALL_POWERFUL = Powers(everywhere=_EVERYTHING)
POWERLESS = Powers()


def powers_of(who: Any) -> Powers:
    """Powers of a request (read once per request), a user, a service key, or ``Powers`` themselves."""
    if isinstance(who, Powers):
        return who
    if isinstance(who, ServiceKey):
        return _powers_of_key(who)
    if isinstance(who, AbstractBaseUser):
        return _powers_of_user(who)
    if hasattr(who, "META"):
        return _powers_of_request(getattr(who, "_request", who))
    if isinstance(key := getattr(who, "key", None), ServiceKey):
        return _powers_of_key(key)
    if who is None or not getattr(who, "is_authenticated", False):
        return POWERLESS
    # request.user is a lazy object around a user.
    return _powers_of_user(who)


def powers_of_actor(actor: Actor) -> Powers:
    """What the actor of a service function holds now. Commands, jobs and the system itself hold everything."""
    if actor.kind == "user":
        user = get_user_model().objects.filter(pk=actor.identifier).first()
        return powers_of(user)
    if actor.kind == "service_key":
        key = ServiceKey.objects.filter(pk=actor.identifier).first()
        return powers_of(key)
    return POWERLESS if actor.identifier == "anonymous" else ALL_POWERFUL


@dataclass(frozen=True, slots=True)
class NotInForce:
    """Why nothing is done in the name of a service key, in a sentence; ``for_now``: until somebody resumes it."""

    why: str
    for_now: bool = False


def why_not_in_force(actor: Actor) -> str:
    """Why nothing is done in the name of ``actor``, a service key that is revoked, expired or paused; empty where it is in force, and for
    who is no key."""
    found = not_in_force(actor)
    return found.why if found is not None else ""


def not_in_force(actor: Actor) -> NotInForce | None:
    return (
        keys_not_in_force([actor.identifier]).get(actor.identifier) if actor.kind == "service_key" else None
    )


def keys_not_in_force(ids: Iterable[str]) -> dict[str, NotInForce]:
    """Of service keys, by their ids, those that are not in force."""
    wanted = set(ids)
    rows = ServiceKey.objects.filter(pk__in=[one for one in wanted if _is_uuid(one)]).select_related(
        "project"
    )
    keys = {str(key.pk): key for key in rows}
    now = database_now()
    found = {one: _standing(keys.get(one), now) for one in wanted}
    return {one: standing for one, standing in found.items() if standing is not None}


def _standing(key: ServiceKey | None, now: datetime) -> NotInForce | None:
    if key is None:
        return NotInForce("The service key with which this was asked for is gone.")
    if key.revoked_at is not None:
        return NotInForce(f"The service key {key.name} was revoked.")
    if key.expires_at is not None and key.expires_at <= now:
        return NotInForce(f"The service key {key.name} has expired.")
    if key.project.archived_at is not None:
        return NotInForce(f"The project {key.project.slug} of the service key {key.name} is archived.")
    if key.paused_at is not None:
        why = f": {key.pause_reason}" if key.pause_reason else ""
        return NotInForce(f"The service key {key.name} is paused{why.rstrip('.')}.", for_now=True)
    return None


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def may(who: Any, permission: str, project: Project | UUID | None = None) -> bool:
    """Whether ``who`` holds ``permission`` in ``project``; None asks for the whole organisation.

    So ``may(request, "budget.manage", budget.project)`` is right for budgets of a project and for those of none.
    """
    return powers_of(who).allow(permission, project.pk if isinstance(project, Project) else project)


def may_anywhere(who: Any, permission: str) -> bool:
    """Whether a page about ``permission`` has anything to show to ``who``; says nothing about any one object."""
    return powers_of(who).allow_anywhere(permission)


def projects_for(who: Any, permissions: str | Sequence[str]) -> QuerySet[Project]:
    """Projects in which ``who`` holds at least one of ``permissions``."""
    return Project.objects.filter(among(powers_of(who), permissions, "pk"))


def visible(
    queryset: QuerySet[_M], who: Any, permissions: str | Sequence[str], *, project: str | None = "project"
) -> QuerySet[_M]:
    """Rows of ``queryset`` on which ``who`` holds at least one of ``permissions``.

    ``project`` is the path to the row's project (``"pk"`` for projects themselves); a row whose project is empty
    belongs to the organisation. None: all rows do, and whoever holds the permission anywhere may look at them.
    """
    powers = powers_of(who)
    if project is None:
        return queryset if any(map(powers.allow_anywhere, _listed(permissions))) else queryset.none()
    return queryset.filter(among(powers, permissions, project))


#: An old secret that ends so soon, or whose grace has only so much of itself left, is told of.
ENDS_SOON, LAST_SHARE = timedelta(hours=1), 4


def in_grace(now: datetime) -> QuerySet[ServiceKey]:
    """Keys whose predecessor works too, the one that ends first first."""
    return (
        ServiceKey.objects.filter(previous_hash__isnull=False, previous_valid_until__gt=now, revoked_at=None)
        .select_related("project")
        .order_by("previous_valid_until")
    )


def graces_that_end_soon(now: datetime, among: QuerySet[ServiceKey] | None = None) -> list[ServiceKey]:
    """Keys whose old secret ends soon and was used since it was replaced."""
    found = in_grace(now).filter(previous_last_used_at__isnull=False)
    if among is not None:
        found = found & among
    return [key for key in found if _ends_soon(key, now)]


def _ends_soon(key: ServiceKey, now: datetime) -> bool:
    assert key.previous_valid_until is not None
    left = key.previous_valid_until - now
    whole = key.previous_valid_until - (key.rotated_at or now)
    return left <= max(ENDS_SOON, whole / LAST_SHARE)


def grace_in_words(key: ServiceKey, now: datetime) -> str:
    """Until when the old secret works, and whether somebody still calls with it; empty where there is none."""
    if key.previous_hash is None or key.previous_valid_until is None or key.previous_valid_until <= now:
        return ""
    which = f"The old secret {key.previous_prefix}…" if key.previous_prefix else "The old secret"
    used = (
        f"was last used at {key.previous_last_used_at:%Y-%m-%d %H:%M:%S} UTC"
        if key.previous_last_used_at
        else "was not used since"
    )
    return f"{which} of {key.name} works for {time_left(key.previous_valid_until - now)} more; it {used}."


def time_left(left: timedelta) -> str:
    """A duration in its two largest units: ``1 d 3 h``, ``59 min``, ``40 s``."""
    seconds = max(0, int(left.total_seconds()))
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    for index, (name, size) in enumerate(units):
        if seconds >= size:
            number, rest = divmod(seconds, size)
            following = units[index + 1 : index + 2] if name in ("d", "h") else ()
            more = "".join(f" {rest // each} {unit}" for unit, each in following if rest // each)
            return f"{number} {name}{more}"
    return "0 s"


def addresses_of_administrators() -> list[str]:
    """E-mail addresses of those who administer the whole organisation."""
    people = get_user_model().objects.filter(
        Q(memberships__project=None, memberships__role=ADMIN) | Q(is_superuser=True), is_active=True
    )
    return sorted({person.email for person in people if person.email})


def among(powers: Powers, permissions: str | Sequence[str], path: str) -> Q:
    """Rows whose project, at ``path``, is one in which ``powers`` allow at least one of ``permissions``."""
    wanted = _listed(permissions)
    if any(powers.allow(permission, None) for permission in wanted):
        return Q()
    held = [
        project_id
        for project_id in powers.by_project
        if any(powers.allow(permission, project_id) for permission in wanted)
    ]
    return Q(**{f"{path}__in": held})


def _listed(permissions: str | Sequence[str]) -> Sequence[str]:
    return (permissions,) if isinstance(permissions, str) else permissions


def _powers_of_request(request: Any) -> Powers:
    found: Powers | None = getattr(request, "_powers", None)
    if found is None:
        key = getattr(request, "service_key", None)
        found = request._powers = powers_of(key if key is not None else getattr(request, "user", None))
    return found


def _powers_of_key(key: ServiceKey) -> Powers:
    if key.revoked_at is not None:
        return POWERLESS
    held = frozenset(permission for permission in PERMISSIONS if scopes_allow(key.scopes, permission))
    if "organisation" in key.scopes:
        return Powers(everywhere=held)
    return Powers(by_project={key.project_id: held})


def _powers_of_user(user: Any) -> Powers:
    if not user.is_active:
        return POWERLESS
    if user.is_superuser:
        return ALL_POWERFUL
    roles: dict[UUID | None, set[str]] = {}
    # In no order: that of memberships would join the tables of people and projects to every request.
    held = Membership.objects.order_by().filter(user_id=user.pk).values_list("project_id", "role")
    for project_id, role in held:
        roles.setdefault(project_id, set()).add(role)
    return powers_of_roles(roles)


def powers_of_roles(roles: Mapping[UUID | None, Iterable[str]]) -> Powers:
    """Powers that follow from roles by project, where the key None stands for the organisation."""
    held = {
        project_id: frozenset(permission for permission in PERMISSIONS if roles_allow(names, permission))
        for project_id, names in roles.items()
    }
    everywhere = held.pop(None, frozenset())
    return Powers(everywhere=everywhere, by_project={key: value for key, value in held.items() if key})


@dataclass(frozen=True)
class MasterKeyRow:
    """A master key that was ever used, and how it stands in this process."""

    key_id: str
    standing: str
    values: int


def master_key_rows() -> list[MasterKeyRow]:
    """Every master key that is known, that stored values name, or that this process has; the active one first."""
    keys, counted = master_keys(), values_by_key()
    known = {one.key_id: one for one in MasterKeyVerifier.objects.all()}
    ids = sorted({*known, *counted, *keys.ids}, key=lambda one: (one != keys.active_id, one))
    return [MasterKeyRow(one, standing_of(one, known.get(one)), counted.get(one, 0)) for one in ids]


def standing_of(key_id: str, known: MasterKeyVerifier | None) -> str:
    """``seals now``, ``opens``, ``missing here``, ``retired``, or ``retired, still in the settings``."""
    keys = master_keys()
    if known is not None and known.retired_at is not None:
        return "retired, still in the settings" if key_id in keys.ids else "retired"
    if key_id == keys.active_id:
        return "seals now"
    return "opens" if key_id in keys.ids else "missing here"


def resealing() -> Resealing | None:
    """The run that is under way, or else the last one."""
    return Resealing.objects.filter(state=Resealing.RUNNING).first() or Resealing.objects.first()
