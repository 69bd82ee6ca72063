"""Changes to policies: each is one transaction with one audit event, and a draft until it is published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from llmops.audit.services import record_of
from llmops.base import drafts
from llmops.base.transitions import compare_and_set
from llmops.core.actors import Actor
from llmops.core.digests import digest
from llmops.core.errors import Conflict, NotFound
from llmops.policies.models import Policy, PolicyVersion
from llmops.policies.rules import checked
from llmops.policies.selectors import routes_naming
from llmops.policies.wording import differences, summary

FIELDS = ("description", "everywhere")


def create_policy(
    actor: Actor,
    *,
    slug: str,
    checks: Sequence[Any],
    description: str = "",
    everywhere: bool = False,
    note: str = "",
) -> Policy:
    """A new policy with its first version; ``checks`` are ``{kind, stage, action, settings}``.

    Raises ``InvalidRequest`` with the path of what is wrong, such as ``checks[0].settings.kinds``.
    """
    with transaction.atomic():
        drafts.editing()
        policy = Policy(slug=slug, description=description, everywhere=everywhere)
        drafts.checked(policy)
        kept = checked(checks)
        drafts.inserted(policy)
        version = _add_version(actor, policy, number=1, checks=kept, note=note)
        record_of(
            actor,
            policy,
            action="policy.created",
            after={"slug": slug, **_fields(policy), **_told(version)},
            reason=note,
        )
    return policy


def update_policy(
    actor: Actor,
    *,
    policy: Policy,
    changes: dict[str, Any] | None = None,
    checks: Sequence[Any] | None = None,
    note: str = "",
) -> Policy:
    """Change fields of ``FIELDS``; other ``checks`` become a new version. Without a difference nothing is written."""
    with transaction.atomic():
        drafts.editing()
        stored = drafts.locked(policy)
        current = _current(stored)
        before = _fields(stored)
        drafts.assign(stored, changes or {}, allowed=FIELDS)
        drafts.checked(stored)
        old, new = drafts.difference(before, _fields(stored))
        kept = current.checks if checks is None else checked(checks)
        version = None
        if _digest(kept) != current.digest:
            version = _add_version(actor, stored, number=_next(stored), checks=kept, note=note)
            old, new = _with_version(old, new, current, version)
        if not new:
            return stored
        stored.save()
        record_of(actor, stored, action="policy.changed", before=old, after=new, reason=note)
    return stored


def roll_back_policy(actor: Actor, *, policy: Policy, number: int, reason: str = "") -> Policy:
    """Make the checks of an earlier version current again, as a new version: history only grows.

    Raises ``NotFound`` for a version that there is not, ``Conflict`` when its checks are those of the current one.
    """
    with transaction.atomic():
        drafts.editing()
        stored = drafts.locked(policy)
        current = _current(stored)
        earlier = stored.versions.filter(number=number).first()
        if earlier is None:
            raise NotFound(f"{stored.slug} has no version {number}.", param="version")
        if earlier.digest == current.digest:
            raise Conflict(f"Version {number} of {stored.slug} has the checks of the current one.")
        # What was right when it was made need not be so still.
        kept = checked(earlier.checks)
        note = f"as in version {number}" + (f": {reason.strip()}" if reason.strip() else "")
        version = _add_version(actor, stored, number=_next(stored), checks=kept, note=note[:300])
        old, new = _with_version({}, {}, current, version)
        record_of(
            actor,
            stored,
            action="policy.rolled_back",
            before=old,
            after={**new, "as_in_version": number},
            reason=reason,
        )
    return stored


def archive_policy(actor: Actor, *, policy: Policy) -> Policy:
    """Put a policy away. Refused while a route that is not archived names it."""
    with transaction.atomic():
        drafts.editing()
        stored = drafts.locked(policy)
        if users := routes_naming(stored.slug):
            raise Conflict(
                f"{stored.slug} is named by the routes {', '.join(users[:5])}{' and others' if len(users) > 5 else ''}. "
                "Take it out of them first."
            )
        return _set_archived(actor, stored, archived=True)


def unarchive_policy(actor: Actor, *, policy: Policy) -> Policy:
    with transaction.atomic():
        drafts.editing()
        return _set_archived(actor, drafts.locked(policy), archived=False)


def _set_archived(actor: Actor, policy: Policy, *, archived: bool) -> Policy:
    change = {"archived_at": timezone.now() if archived else None}
    if not compare_and_set(policy, expect={"archived_at__isnull": archived}, change=change):
        raise Conflict(f"This policy is {'already archived' if archived else 'not archived'}.")
    record_of(
        actor,
        policy,
        action="policy.archived" if archived else "policy.restored",
        before={"archived": not archived},
        after={"archived": archived},
    )
    return policy


def _current(policy: Policy) -> PolicyVersion:
    if policy.current is None:
        raise Conflict(f"{policy.slug} has no version to start from.")
    return policy.current


def _next(policy: Policy) -> int:
    return int(policy.versions.aggregate(Max("number"))["number__max"] or 0) + 1


def _add_version(
    actor: Actor, policy: Policy, *, number: int, checks: list[dict[str, Any]], note: str
) -> PolicyVersion:
    version = PolicyVersion(
        policy=policy,
        number=number,
        checks=checks,
        note=note,
        digest=_digest(checks),
        created_by=actor.name[:200],
    )
    drafts.checked(version, lines=("checks",))
    drafts.inserted(version)
    policy.current = version
    policy.save(update_fields=["current", "updated_at"])
    return version


def _digest(checks: list[dict[str, Any]]) -> str:
    return digest({"checks": checks})


def _fields(policy: Policy) -> dict[str, Any]:
    return drafts.values(policy, FIELDS)


def _told(version: PolicyVersion) -> dict[str, Any]:
    """A version for the trail: what it does in words, and the digest of the whole, which the version itself keeps."""
    return {
        "version": version.number,
        "checks": [summary(check) for check in version.checks],
        "digest": version.digest,
    }


def _with_version(
    old: dict[str, Any], new: dict[str, Any], before: PolicyVersion, after: PolicyVersion
) -> tuple[dict[str, Any], dict[str, Any]]:
    was, now = drafts.difference(_told(before), _told(after))
    changes = differences(before.checks, after.checks)
    return {**old, **was}, {**new, **now, "changes": changes}
