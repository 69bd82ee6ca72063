"""Tools with their immutable versions, and actions: calls of tools that somebody proposed."""

from __future__ import annotations

import json
from typing import Any

from django.db import models
from django.db.models import Q

from llmops.access.models import Project, slug_validator
from llmops.approvals.models import Request
from llmops.base.models import TimestampedModel, UUIDModel
from llmops.tools.rules import RISKS


class Tool(TimestampedModel):
    """The name under which services propose; ``current`` points to the newest immutable version."""

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="tools")
    slug = models.CharField(max_length=63, validators=[slug_validator])
    current = models.ForeignKey(
        "ToolVersion", on_delete=models.PROTECT, null=True, editable=False, related_name="current_of"
    )
    #: The secret that signs what is sent to the tool's webhook, sealed under a master key. Empty: there is none yet.
    sealed = models.TextField(blank=True, default="", editable=False)
    secret_set_at = models.DateTimeField(null=True, blank=True, editable=False)
    paused_at = models.DateTimeField(null=True, blank=True, editable=False)
    pause_reason = models.CharField(max_length=300, blank=True, default="", editable=False)
    archived_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        db_table = "tools_tool"
        ordering = ["slug"]
        constraints = [models.UniqueConstraint(fields=["project", "slug"], name="tools_tool_name")]

    def __str__(self) -> str:
        return self.slug


class ToolVersion(UUIDModel):
    """One immutable version. ``definition`` has the shape of ``rules.Definition``, ``digest`` is that of the definition."""

    tool = models.ForeignKey(Tool, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField(editable=False)
    definition = models.JSONField()
    note = models.CharField(max_length=300, blank=True)
    digest = models.CharField(max_length=64, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.CharField(max_length=200, editable=False)

    class Meta:
        db_table = "tools_tool_version"
        ordering = ["tool", "-number"]
        constraints = [models.UniqueConstraint(fields=["tool", "number"], name="tools_tool_version_number")]

    def __str__(self) -> str:
        return f"{self.tool.slug} v{self.number}"


class Action(TimestampedModel):
    """One call of a tool that somebody proposed, bound by ``digest`` to version, arguments, run and requester.

    What it is never changes (the database refuses), and it is claimed once: ``claimed_at``, once set, stays. From ``claimed``
    it ends as ``succeeded``, ``failed`` or ``unknown``; from ``unknown`` by what a person finds out (``resolution``).
    """

    WAITING, APPROVED, CLAIMED = "waiting", "approved", "claimed"
    SUCCEEDED, FAILED, UNKNOWN = "succeeded", "failed", "unknown"
    REJECTED, EXPIRED, CANCELLED, SUPERSEDED = "rejected", "expired", "cancelled", "superseded"
    STATES = [
        (WAITING, "Waiting for approval"),
        (APPROVED, "Approved, not begun"),
        (CLAIMED, "Being carried out"),
        (SUCCEEDED, "Done"),
        (FAILED, "Failed"),
        (UNKNOWN, "Outcome unknown"),
        (REJECTED, "Rejected"),
        (EXPIRED, "Ran out"),
        (CANCELLED, "Taken back"),
        (SUPERSEDED, "Replaced by another"),
    ]
    #: It happened, or it did not, as a person found out.
    HAPPENED, DID_NOT = "happened", "did_not"

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="actions")
    tool = models.ForeignKey(Tool, on_delete=models.PROTECT, related_name="actions")
    version = models.ForeignKey(ToolVersion, on_delete=models.PROTECT, related_name="actions")
    #: Canonical JSON, as text: what was approved is carried out to the byte, whatever a database makes of numbers.
    arguments = models.TextField()
    run = models.CharField(max_length=64, blank=True, default="")
    digest = models.CharField(max_length=64)
    says = models.CharField(max_length=300)
    reason = models.CharField(max_length=2000, blank=True, default="")
    requested_by_kind = models.CharField(max_length=12)
    requested_by_id = models.CharField(max_length=64)
    requested_by_name = models.CharField(max_length=200)
    #: For whom it was proposed, who may not approve it either: ``rules.person_said`` (once the account's id); empty where there is none.
    behalf_of_id = models.CharField(max_length=64, blank=True, default="")
    behalf_of_name = models.CharField(max_length=200, blank=True, default="")
    risk = models.CharField(max_length=12)
    risk_rule = models.CharField(max_length=600, blank=True, default="")
    idempotency_key = models.CharField(max_length=255, blank=True, default="")
    request = models.OneToOneField(
        Request, on_delete=models.PROTECT, null=True, blank=True, related_name="action"
    )
    supersedes = models.OneToOneField(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="superseded_by"
    )
    state = models.CharField(max_length=12, choices=STATES)
    approved_at = models.DateTimeField(null=True, blank=True)
    #: From when on any worker begins with it; empty where the console does not carry it out.
    due_at = models.DateTimeField(null=True, blank=True, db_column="handed_out_at")
    claimed_at = models.DateTimeField(null=True, blank=True)
    claim_id = models.UUIDField(null=True, blank=True)
    claimed_by = models.CharField(max_length=200, blank=True, default="")
    deadline_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    result = models.JSONField(null=True, blank=True)
    message = models.CharField(max_length=1000, blank=True, default="")
    resolution = models.CharField(max_length=10, blank=True, default="")
    resolved_by = models.CharField(max_length=200, blank=True, default="")
    resolved_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "tools_action"
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(condition=Q(risk__in=RISKS), name="tools_action_risk_known"),
            models.CheckConstraint(
                condition=~Q(state__in=["claimed", "succeeded", "unknown"])
                | Q(claimed_at__isnull=False, claim_id__isnull=False),
                name="tools_action_claimed_before_done",
            ),
            models.UniqueConstraint(
                fields=["project", "requested_by_kind", "requested_by_id", "idempotency_key"],
                condition=~Q(idempotency_key=""),
                name="tools_action_proposed_once",
            ),
        ]
        indexes = [
            # None is partial: SQLite takes no partial index where a value is bound.
            models.Index(fields=["state", "approved_at"], name="tools_action_standing"),
            models.Index(fields=["digest"], name="tools_action_same"),
            models.Index(fields=["project", "-created_at"], name="tools_action_newest"),
            models.Index(fields=["run"], name="tools_action_of_run"),
        ]

    def __str__(self) -> str:
        return self.says

    @property
    def given(self) -> dict[str, Any]:
        """The arguments, read."""
        found: dict[str, Any] = json.loads(self.arguments)
        return found
