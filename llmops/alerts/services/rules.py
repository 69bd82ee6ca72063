"""Changes to rules: each is one transaction with one audit event. They take effect when rules are looked at next."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.utils import timezone

from llmops.access.models import Project
from llmops.alerts.kinds import Kind, kind_named
from llmops.alerts.models import Incident, Rule
from llmops.alerts.runbooks import exists
from llmops.alerts.services.timeline import add
from llmops.alerts.shipped import SHIPPED
from llmops.audit.services import record_about
from llmops.base import drafts
from llmops.base.locks import lock
from llmops.base.transitions import compare_and_set
from llmops.core.actors import Actor, job_actor
from llmops.core.errors import Conflict, InvalidRequest

#: What can be changed; of which kind a rule is cannot.
CHANGEABLE = (
    "project", "route", "model", "feature", "settings", "severity", "runbook", "resolve_after_s", "enabled",
)  # fmt: skip
_TOLD = ("slug", "kind", *CHANGEABLE)
_LONGEST_RESOLVE_S = 86_400


def create_rule(actor: Actor, *, slug: str, kind: str, project: Project | None = None, **given: Any) -> Rule:
    """Raises ``InvalidRequest`` naming what does not fit, ``Conflict`` for a taken name."""
    known = kind_named(kind)
    with transaction.atomic():
        rule = Rule(slug=slug, kind=kind, project=project, runbook=known.runbook)
        drafts.assign(rule, given, allowed=CHANGEABLE)
        _checked(rule, known)
        drafts.inserted(rule)
        record_about(actor, rule, action="alert_rule.created", after=drafts.values(rule, _TOLD))
    return rule


def update_rule(actor: Actor, *, rule: Rule, **changes: Any) -> Rule:
    with transaction.atomic():
        stored = _in_use(rule)
        before = drafts.values(stored, _TOLD)
        drafts.assign(stored, changes, allowed=CHANGEABLE)
        _checked(stored, kind_named(stored.kind))
        stored.save()
        record_about(
            actor, stored, action="alert_rule.changed", before=before, after=drafts.values(stored, _TOLD)
        )
    return stored


def archive_rule(actor: Actor, *, rule: Rule) -> Rule:
    """Put a rule away. What is open of it ends with it; nobody is told of that."""
    with transaction.atomic():
        stored = _in_use(rule)
        now = timezone.now()
        compare_and_set(stored, expect={"archived_at": None}, change={"archived_at": now})
        for incident in stored.incidents.exclude(state=Incident.RESOLVED):
            change = {"state": Incident.RESOLVED, "resolved_at": now, "resolved_by": "the rule was removed"}
            if compare_and_set(
                incident, expect={"state": (Incident.OPEN, Incident.ACKNOWLEDGED)}, change=change
            ):
                add(incident, "resolved", f"The rule {stored.slug} was removed.", at=now, who=actor.name)
        record_about(
            actor, stored, action="alert_rule.archived", before={"archived": False}, after={"archived": True}
        )
    return stored


def restore_rule(actor: Actor, *, rule: Rule) -> Rule:
    with transaction.atomic():
        stored = drafts.locked(rule)
        if not compare_and_set(stored, expect={"archived_at__isnull": False}, change={"archived_at": None}):
            raise Conflict(f"{stored.slug} is not archived.")
        record_about(
            actor, stored, action="alert_rule.restored", before={"archived": True}, after={"archived": False}
        )
    return stored


def ensure_shipped() -> int:
    """Give the installation those of the shipped rules that it never had; how many."""
    known = set(Rule.objects.filter(slug__in=[one.slug for one in SHIPPED]).values_list("slug", flat=True))
    if len(known) == len(SHIPPED):
        return 0
    with transaction.atomic():
        lock("alerts.shipped")
        known = set(Rule.objects.values_list("slug", flat=True))
        missing = [one for one in SHIPPED if one.slug not in known]
        if not missing:
            return 0
        rows = [
            Rule(
                slug=one.slug,
                kind=one.kind,
                severity=one.severity,
                settings=dict(one.settings),
                runbook=kind_named(one.kind).runbook,
                resolve_after_s=one.resolve_after_s,
                shipped=True,
            )
            for one in missing
        ]
        Rule.objects.bulk_create(rows)
        # One event: they came together.
        record_about(
            job_actor("alerts.evaluate"),
            rows[0],
            action="alert_rule.shipped",
            after={"rules": [row.slug for row in rows]},
        )
    return len(missing)


def _in_use(rule: Rule) -> Rule:
    stored = drafts.locked(rule)
    if stored.archived_at is not None:
        raise Conflict(f"{stored.slug} is archived. Restore it first.")
    return stored


def _checked(rule: Rule, kind: Kind) -> None:
    rule.settings = checked_settings(kind, rule.settings)
    for name in ("project", "route", "model", "feature"):
        if getattr(rule, name) and name not in kind.narrows:
            allowed = ", ".join(kind.narrows) or "nothing"
            raise InvalidRequest(
                f"{name}: rules of the kind {kind.name} are narrowed by {allowed}.", param=name
            )
    if rule.runbook and not exists(rule.runbook):
        raise InvalidRequest(
            f"runbook: there is no runbook {rule.runbook!r} in docs/runbooks.", param="runbook"
        )
    if rule.resolve_after_s is not None and rule.resolve_after_s > _LONGEST_RESOLVE_S:
        raise InvalidRequest("resolve_after_s: a day (86400) at most.", param="resolve_after_s")
    if rule.project is not None and rule.project.archived_at is not None:
        raise InvalidRequest(f"project: {rule.project.slug} is archived.", param="project")
    drafts.checked(rule)


def checked_settings(kind: Kind, given: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a kind within their bounds; those that are not given are the kind's own. Raises ``InvalidRequest``."""
    if not isinstance(given, Mapping):
        raise InvalidRequest("settings: names with their numbers are needed.", param="settings")
    known = {setting.name: setting for setting in kind.settings}
    for name in given:
        if name not in known:
            names = ", ".join(known) or "none"
            raise InvalidRequest(
                f"settings.{name}: {kind.name} has no such number; it has {names}.", param="settings"
            )
    found = {}
    for setting in kind.settings:
        value = given.get(setting.name, setting.default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InvalidRequest(f"settings.{setting.name}: a number is needed.", param="settings")
        if not setting.least <= value <= setting.most:
            raise InvalidRequest(
                f"settings.{setting.name}: between {setting.least:g} and {setting.most:g}.", param="settings"
            )
        found[setting.name] = value
    return found
