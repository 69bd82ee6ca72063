"""What operators decide about budgets: each function one transaction, one audit event, one sign to the data planes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone as django_timezone
from django.utils.module_loading import import_string

from llmops.access.models import Project, ServiceKey
from llmops.audit.services import record
from llmops.base.live import LIVE_STATE, touch
from llmops.budgets import rules
from llmops.budgets.models import Budget, Window
from llmops.budgets.scopes import KEY, PROJECT
from llmops.budgets.services.thresholds import note_crossings
from llmops.budgets.services.windows import ceiling, follow_limit, is_current
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, InvalidRequest, NotFound
from llmops.core.money import format_usd, parse_usd

_BY_TWO = (
    '{what} takes a second person, as is set for the budget {slug}. Ask for it under "Ask to loosen" on its page; it is done '
    "when somebody else approves."
)


_BY_TWO_ANEW = (
    "{what} may make it looser, which takes a second person, as is set for the budget {slug}. Have the rule ended or the budget "
    'archived under "Ask to loosen" on its page first.'
)


class _Unchanged:
    pass


UNCHANGED: Final = _Unchanged()
_FIELDS = (
    "slug",
    "scope_kind",
    "scope_value",
    "period",
    "timezone",
    "hard",
    "thresholds",
    "notify",
    "at_limit_route",
    "second_person",
)
_FIXED = ("scope_kind", "scope_value", "project_id", "period", "timezone")


def create_budget(
    actor: Actor,
    *,
    slug: str,
    scope_kind: str,
    scope_value: str = "",
    project_id: UUID | None = None,
    period: str = "month",
    timezone: str = "UTC",
    limit_nano: int,
    hard: bool = True,
    thresholds: Iterable[int] = (),
    notify: Iterable[str] = (),
    at_limit_route: str = "",
    carry_over_nano: int = 0,
    second_person: bool = False,
    reason: str = "",
) -> Budget:
    """A new budget, in force for calls that begin within a second. Raises ``InvalidRequest`` naming the field.

    ``at_limit_route`` serves calls that no longer fit; ``carry_over_nano`` is the most that a period hands on of what it
    leaves over. Both are for hard budgets. ``notify`` are e-mail addresses that are told of thresholds.
    """
    budget = Budget(
        slug=rules.checked_slug(slug),
        period=rules.checked_period(period),
        timezone=rules.checked_timezone(timezone),
        limit_nano=rules.checked_limit(limit_nano),
        hard=hard,
        thresholds=rules.checked_thresholds(thresholds),
        notify=rules.checked_addresses(notify),
        at_limit_route=_known_route(at_limit_route),
        carry_over_nano=rules.checked_carry_over(carry_over_nano),
        second_person=second_person,
    )
    rules.refuse_without_effect(budget.hard, budget.period, budget.at_limit_route, budget.carry_over_nano)
    with transaction.atomic():
        budget.scope_kind, budget.scope_value, budget.project = resolved_scope(
            scope_kind, scope_value, project_id
        )
        _save(budget, new=True)
        touch(LIVE_STATE)
        _audit(actor, "budget.created", budget, before=None, after=_as_audited(budget), reason=reason)
    return budget


def update_budget(
    actor: Actor,
    *,
    budget_id: UUID,
    slug: str | None = None,
    scope_kind: str | None = None,
    scope_value: str | None = None,
    project_id: UUID | _Unchanged | None = UNCHANGED,
    period: str | None = None,
    timezone: str | None = None,
    limit_nano: int | None = None,
    hard: bool | None = None,
    thresholds: Iterable[int] | None = None,
    notify: Iterable[str] | None = None,
    at_limit_route: str | None = None,
    carry_over_nano: int | None = None,
    second_person: bool | None = None,
    reason: str = "",
) -> Budget:
    """Change what is given; what is left out (or equal) stays. A call that changes nothing leaves no audit event.

    A new limit counts at once, for the present window too: a lower one stops new leases now, and the window's own
    limit comes down as money that processes hold already is spent or given back. Scope, period and time zone are
    fixed once the budget has a window, because what was spent was spent under them: raises ``Conflict``. So does what makes a
    budget looser that only two may loosen (``loosening.ask_loosening``).
    """
    with transaction.atomic():
        budget = _locked(budget_id)
        before = _as_audited(budget)
        if slug is not None:
            budget.slug = rules.checked_slug(slug)
        if period is not None:
            budget.period = rules.checked_period(period)
        if timezone is not None:
            budget.timezone = rules.checked_timezone(timezone)
        if limit_nano is not None:
            budget.limit_nano = rules.checked_limit(limit_nano)
        if hard is not None:
            budget.hard = hard
        if thresholds is not None:
            budget.thresholds = rules.checked_thresholds(thresholds)
        if notify is not None:
            budget.notify = rules.checked_addresses(notify)
        if at_limit_route is not None:
            budget.at_limit_route = _known_route(at_limit_route, budget.at_limit_route)
        if carry_over_nano is not None:
            budget.carry_over_nano = rules.checked_carry_over(carry_over_nano)
        if second_person is not None:
            budget.second_person = second_person
        rules.refuse_without_effect(budget.hard, budget.period, budget.at_limit_route, budget.carry_over_nano)
        if (scope_kind, scope_value) != (None, None) or not isinstance(project_id, _Unchanged):
            budget.scope_kind, budget.scope_value, budget.project = scope_after(
                budget, scope_kind=scope_kind, scope_value=scope_value, project_id=project_id
            )
        after = _as_audited(budget)
        changed = [name for name in after if after[name] != before[name]]
        if not changed:
            return budget
        _refuse_fixed(budget, before, changed)
        _refuse_looser(budget, before)
        _save(budget, new=False)
        if {"limit_usd", "hard", "thresholds"} & set(changed):
            apply_to_windows(budget)
        touch(LIVE_STATE)
        _audit(
            actor,
            "budget.changed",
            budget,
            before={name: before[name] for name in changed},
            after={name: after[name] for name in changed},
            reason=reason,
        )
    return budget


def budget_problems(values: Mapping[str, Any], budget: Budget | None = None) -> dict[str, str]:
    """Field -> what is wrong with it, of all fields at once, before a change is tried. ``values`` are arguments of
    ``create_budget`` or, with ``budget``, of ``update_budget``, as far as they could be read; needs a transaction."""
    found: dict[str, str] = {}

    def note(check: Callable[..., Any], *arguments: Any) -> None:
        try:
            check(*arguments)
        except InvalidRequest as refused:
            found.setdefault(refused.param or "", refused.message)

    checks: dict[str, Callable[[Any], Any]] = {
        "slug": rules.checked_slug,
        "period": rules.checked_period,
        "timezone": rules.checked_timezone,
        "limit_nano": rules.checked_limit,
        "thresholds": rules.checked_thresholds,
        "notify": rules.checked_addresses,
        "carry_over_nano": rules.checked_carry_over,
    }
    for name, check in checks.items():
        if name in values:
            note(check, values[name])
    if "at_limit_route" in values:
        note(_known_route, values["at_limit_route"], budget.at_limit_route if budget else "")
    if {"scope_kind", "scope_value"} <= values.keys():
        note(resolved_scope, values["scope_kind"], values["scope_value"], values.get("project_id"))
    taken = Budget.objects.filter(slug=values.get("slug", ""))
    if budget is not None:
        taken = taken.exclude(pk=budget.pk)
    if "slug" not in found and taken.exists():
        found["slug"] = _taken(values["slug"])
    kept = budget or Budget()
    names = ("hard", "period", "at_limit_route", "carry_over_nano")
    hard, period, route, carried = (values.get(name, getattr(kept, name)) for name in names)
    note(rules.refuse_without_effect, hard, period, route, 0)
    note(rules.refuse_without_effect, hard, period, "", carried)
    return found


def archive_budget(actor: Actor, *, budget_id: UUID, reason: str = "") -> Budget:
    """Take a budget out of force; its windows stay as history. Raises ``Conflict`` when it is archived already."""
    with transaction.atomic():
        budget = _locked(budget_id)
        if budget.second_person:
            raise Conflict(_BY_TWO.format(what="Archiving", slug=budget.slug))
        budget.archived_at = django_timezone.now()
        budget.save(update_fields=["archived_at", "updated_at"])
        touch(LIVE_STATE)
        _audit(actor, "budget.archived", budget, before=_as_audited(budget), after=None, reason=reason)
    return budget


def _known_route(slug: str, present: str = "") -> str:
    """Asks the room of the routes, which this one may not import: ``settings.ROUTE_EXISTS``."""
    slug = rules.checked_route(slug)
    if slug and slug != present and not import_string(settings.ROUTE_EXISTS)(slug):
        raise InvalidRequest(
            f"at_limit_route: there is no route {slug!r}. Make it first, or leave this empty to refuse calls.",
            param="at_limit_route",
        )
    return slug


def _locked(budget_id: UUID) -> Budget:
    budget = Budget.objects.select_for_update(of=("self",)).filter(pk=budget_id).first()
    if budget is None:
        raise NotFound("There is no such budget.")
    if budget.archived_at is not None:
        raise Conflict(f"The budget {budget.slug} is archived and can not be changed. Create a new one.")
    return budget


def scope_after(
    budget: Budget,
    *,
    scope_kind: str | None = None,
    scope_value: str | None = None,
    project_id: UUID | _Unchanged | None = UNCHANGED,
) -> tuple[str, str, Project | None]:
    """The scope and the project that a change of these would leave ``budget`` with; raises what the change would."""
    kind = budget.scope_kind if scope_kind is None else scope_kind
    value = budget.scope_value if scope_value is None else scope_value
    if isinstance(project_id, _Unchanged):
        # The project of a project's or key's budget follows from the scope; another's is its own choice.
        project_id = budget.project_id if kind == budget.scope_kind and kind not in (PROJECT, KEY) else None
    return resolved_scope(kind, value, project_id)


def resolved_scope(kind: str, value: str, project_id: UUID | None) -> tuple[str, str, Project | None]:
    """The scope as it is stored, checked against what exists, and the project such a budget belongs to.

    The project of a project's or key's budget follows from its scope. Surfaces ask this too, before they decide
    whether somebody may make such a budget.
    """
    kind, value = rules.checked_scope(kind, value)
    owner: Project | None = None
    if kind == PROJECT:
        owner = Project.objects.filter(slug=value, archived_at=None).first()
        if owner is None:
            # Told as another project's is: to whom that one is invisible, it does not exist.
            rules.refuse_misplaced_project(kind, None, project_id)
            raise no_such_scope(kind, value)
    elif kind == KEY:
        key = ServiceKey.objects.select_related("project").filter(pk=rules.checked_uuid(value)).first()
        if key is None:
            rules.refuse_misplaced_project(kind, None, project_id)
            raise no_such_scope(kind, value)
        value, owner = str(key.pk), key.project
    elif project_id is not None:
        owner = Project.objects.filter(pk=project_id).first()
        if owner is None:
            raise InvalidRequest("project: there is no such project.", param="project")
    rules.refuse_misplaced_project(kind, owner.pk if owner else None, project_id)
    return kind, value, owner


def no_such_scope(kind: str, value: str) -> InvalidRequest:
    if kind == PROJECT:
        text = f"scope_value: there is no project {value!r}. Write the project's slug."
    else:
        text = f"scope_value: there is no service key with the id {value}."
    return InvalidRequest(text, param="scope_value")


def _refuse_looser(budget: Budget, before: dict[str, Any]) -> None:
    """A budget that only two may loosen is made tighter by one, and looser by nobody alone. What it is for, and how long it
    lasts, is neither: somebody may mean it for nothing at all, or a month's money for a day."""
    if not before["second_person"]:
        return
    after = _as_audited(budget)
    moved = [name for name in _FIXED if after[name] != before[name]]
    if budget.carry_over_nano > parse_usd(before["carry_over_usd"], field="carry_over_usd"):
        moved.append("carry_over_usd")
    if moved:
        what = "Carrying over more" if moved == ["carry_over_usd"] else "Another scope, period or time zone"
        told = _BY_TWO_ANEW.format(what=what, slug=budget.slug)
        raise Conflict(f"{moved[0]}: {told}", param=moved[0])
    for what, param, looser in (
        (
            "A higher limit",
            "limit_usd",
            budget.limit_nano > parse_usd(before["limit_usd"], field="limit_usd"),
        ),
        ("Making it soft", "hard", before["hard"] and not budget.hard),
        ("Ending this rule", "second_person", not budget.second_person),
    ):
        if looser:
            raise Conflict(f"{param}: {_BY_TWO.format(what=what, slug=budget.slug)}", param=param)


def _refuse_fixed(budget: Budget, before: dict[str, Any], changed: list[str]) -> None:
    fixed = [name for name in _FIXED if name in changed]
    if fixed and Window.objects.filter(budget=budget).exists():
        raise Conflict(
            f"{fixed[0]}: scope, period and time zone of the budget {before['slug']} are fixed, because calls were "
            "charged to it already. Archive it and create another.",
            param=fixed[0],
        )


def _save(budget: Budget, *, new: bool) -> None:
    try:
        with transaction.atomic():
            budget.save(force_insert=new, force_update=not new)
    except IntegrityError:
        if not Budget.objects.filter(slug=budget.slug).exclude(pk=budget.pk).exists():
            raise
        raise InvalidRequest(
            _taken(budget.slug),
            param="slug",
        ) from None


def _taken(slug: str) -> str:
    return f"slug: there is a budget named {slug!r} already (it may be archived). Choose another name."


def apply_to_windows(budget: Budget) -> None:
    for window in Window.objects.select_for_update(of=("self",)).filter(budget=budget).order_by("pk"):
        if not is_current(window):
            continue
        window.hard = budget.hard
        follow_limit(window, budget)
        note_crossings(window, budget, ceiling(window, budget))
        window.save(update_fields=["hard", "limit_nano", "crossed_percent"])


def _as_audited(budget: Budget) -> dict[str, Any]:
    return {
        **{name: getattr(budget, name) for name in _FIELDS},
        "project_id": str(budget.project_id) if budget.project_id else None,
        "limit_usd": format_usd(budget.limit_nano),
        "carry_over_usd": format_usd(budget.carry_over_nano),
    }


def _audit(
    actor: Actor,
    action: str,
    budget: Budget,
    *,
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
    reason: str,
) -> None:
    record(
        actor,
        action=action,
        object_type="budgets.budget",
        object_id=budget.pk,
        object_name=budget.slug,
        project_id=budget.project_id,
        before=before,
        after=after,
        reason=reason,
    )
