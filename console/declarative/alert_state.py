"""SLOs, alert rules and alert channels as they are, in the words of the file."""

from __future__ import annotations

from typing import Any

from console.declarative.alerting import CHANNEL, RULE, SEVERITIES, SLO
from console.declarative.present import Present
from llmops.alerts.kinds import kind_named
from llmops.alerts.models import Channel, Rule, Slo
from llmops.alerts.sealed import fingerprint_of
from llmops.alerts.services.rules import checked_settings
from llmops.core.errors import InvalidRequest

_SLO_FIELDS = ("objective", "target_ppm", "threshold", "window_days", "route", "feature")
_RULE_FIELDS = ("kind", "route", "model", "feature", "severity", "runbook", "resolve_after_s", "enabled")
_CHANNEL_FIELDS = (
    "kind", "addresses", "url", "allow_private_network", "after_minutes", "quiet_from", "quiet_to", "timezone", "enabled",
)  # fmt: skip


def alerts() -> dict[str, dict[str, Present]]:
    """All there is, by kind and name; archived ones are marked."""
    return {
        SLO: {row.slug: _row(row, _SLO_FIELDS) for row in Slo.objects.select_related("project")},
        RULE: {
            row.slug: _row(row, _RULE_FIELDS, settings=numbers_of(row.kind, row.settings))
            for row in Rule.objects.select_related("project")
        },
        CHANNEL: {
            row.slug: _row(
                row,
                _CHANNEL_FIELDS,
                severities=[name for name in SEVERITIES if name in row.severities],
                fingerprint=fingerprint_of(row),
            )
            for row in Channel.objects.select_related("project")
        },
    }


def _row(row: Any, names: tuple[str, ...], **more: Any) -> Present:
    values = {name: getattr(row, name) for name in names}
    values["project"] = row.project.slug if row.project else None
    return Present(row.pk, {**values, **more}, "archived" if row.archived_at else "")


def numbers_of(kind: str, kept: dict[str, float]) -> dict[str, float]:
    try:
        return checked_settings(kind_named(kind), kept)
    except InvalidRequest:
        # Of another version; the file says what they are from now on.
        return dict(kept)
