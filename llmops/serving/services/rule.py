"""When publishing takes a second person: a stricter rule is set by one person, a looser one by two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db import transaction

from llmops.access.models import Project
from llmops.approvals.kinds import Kind
from llmops.approvals.models import Request
from llmops.approvals.services import ask
from llmops.audit.services import record
from llmops.base.clock import database_now
from llmops.base.locks import lock
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, InvalidRequest
from llmops.providers.services import DRAFT_LOCK
from llmops.serving.models import PublishingRule
from llmops.serving.rules import Rule
from llmops.serving.selectors import publishing_rule

#: The kind of approval, as ``settings.APPROVAL_KINDS`` names it.
LOOSENING = "publishing.loosen"
_TYPE, _ID, _NAME = "serving.publishingrule", 1, "publishing"


def change_rule(
    actor: Actor, *, always: bool, projects: Sequence[str], restore_alone: bool, reason: str
) -> Rule | Request:
    """Set the rule, or ask for it where it is looser than the one in force. Raises ``InvalidRequest`` naming the field."""
    reason = reason.strip()
    if not reason:
        raise InvalidRequest("reason: say why; it goes into the audit trail.", param="reason")
    wanted = Rule(always, frozenset(projects), restore_alone)
    known = set(Project.objects.filter(slug__in=wanted.projects).values_list("slug", flat=True))
    if unknown := sorted(wanted.projects - known):
        raise InvalidRequest(f"projects: there is no project {unknown[0]!r}.", param="projects")
    with transaction.atomic():
        # Nobody publishes by the old rule while the new one is set.
        lock(DRAFT_LOCK)
        present = publishing_rule()
        if wanted == present:
            raise Conflict("This is the rule already.")
        if loosened := wanted.looser_than(present):
            return ask(
                actor,
                kind=LOOSENING,
                title=f"Loosen the rule for publishing: {'; '.join(loosened)}",
                content={"rule": _plain(wanted), "from": _plain(present)},
                object_type=_TYPE,
                object_id=_ID,
                object_name=_NAME,
                project_id=None,
                reason=reason,
            )
        _set(wanted)
        record(
            actor,
            action="publishing.rule_changed",
            object_type=_TYPE,
            object_id=_ID,
            object_name=_NAME,
            before=_plain(present),
            after=_plain(wanted),
            reason=reason,
        )
    return wanted


def rules_asked_for() -> list[Rule]:
    """Looser rules that somebody asked for, that may still be approved."""
    open_ones = Request.objects.filter(kind=LOOSENING, state=Request.OPEN, expires_at__gt=database_now())
    present = _plain(publishing_rule())
    return [_rule(one.content["rule"]) for one in open_ones if one.content["from"] == present]


def _set(rule: Rule) -> None:
    PublishingRule.objects.update_or_create(
        id=1,
        defaults={
            "always": rule.always,
            "projects": sorted(rule.projects),
            "restore_alone": rule.restore_alone,
        },
    )


def _plain(rule: Rule) -> dict[str, Any]:
    return {"always": rule.always, "projects": sorted(rule.projects), "restore_alone": rule.restore_alone}


def _rule(plain: Mapping[str, Any]) -> Rule:
    return Rule(bool(plain["always"]), frozenset(plain["projects"]), bool(plain["restore_alone"]))


def _describe(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("Rule now", _rule(content["from"]).words()),
        ("Rule from then on", _rule(content["rule"]).words()),
    ]


def _execute(actor: Actor, request_id: UUID, content: Mapping[str, Any]) -> dict[str, Any]:
    lock(DRAFT_LOCK)
    if publishing_rule() != _rule(content["from"]):
        raise Conflict("The rule is another one by now. Reject this and have it asked for again.")
    _set(_rule(content["rule"]))
    return {"rule": content["rule"]}


KIND = Kind(
    name=LOOSENING,
    permission="revision.approve",
    asks="revision.publish",
    describe=_describe,
    execute=_execute,
)
