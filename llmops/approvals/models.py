"""What somebody asked for that takes a second person, and who decided what about it."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from llmops.access.models import Project
from llmops.base.models import TimestampedModel, UUIDModel


class Request(TimestampedModel):
    """One act that waits for approval, bound to exactly what it would do.

    ``content`` is what will be done, ``digest`` the SHA-256 of its canonical JSON: whoever decides names the digest of what
    they saw, and nothing else can be carried out. States only leave ``open``, by compare-and-set.
    """

    OPEN, EXECUTED, REJECTED, CANCELLED, EXPIRED = "open", "executed", "rejected", "cancelled", "expired"
    VOID = "void"
    STATES = [
        (OPEN, "Waiting"),
        (EXECUTED, "Approved and done"),
        (REJECTED, "Rejected"),
        (CANCELLED, "Taken back"),
        (EXPIRED, "Ran out"),
        (VOID, "Void: something else changed meanwhile"),
    ]

    kind = models.CharField(max_length=40)
    title = models.CharField(max_length=200)
    content = models.JSONField()
    digest = models.CharField(max_length=64)
    object_type = models.CharField(max_length=60)
    object_id = models.CharField(max_length=64)
    object_name = models.CharField(max_length=200)
    project = models.ForeignKey(
        Project, on_delete=models.PROTECT, null=True, blank=True, related_name="approval_requests"
    )
    reason = models.CharField(max_length=500)
    requested_by_kind = models.CharField(max_length=12)
    requested_by_id = models.CharField(max_length=64)
    requested_by_name = models.CharField(max_length=200)
    required = models.PositiveSmallIntegerField(default=1)
    state = models.CharField(max_length=10, default=OPEN, choices=STATES)
    expires_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True, blank=True)
    #: When those who may decide were told of it, by whatever goes out (``telling.py``).
    told_at = models.DateTimeField(null=True, blank=True)
    result = models.JSONField(null=True, blank=True)

    class Meta:
        db_table = "approvals_request"
        verbose_name, verbose_name_plural = "request", "approvals"
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(condition=Q(required__gte=1), name="approvals_request_needs_somebody")
        ]
        indexes = [
            models.Index(fields=["expires_at"], name="approvals_request_open", condition=Q(state="open")),
            models.Index(fields=["object_type", "object_id"], name="approvals_request_about"),
        ]

    def __str__(self) -> str:
        return self.title


class Decision(UUIDModel):
    """What one person said about one request, and the digest of what they saw. Never changed."""

    request = models.ForeignKey(Request, on_delete=models.PROTECT, related_name="decisions")
    approves = models.BooleanField()
    reason = models.CharField(max_length=500, blank=True)
    digest = models.CharField(max_length=64)
    decided_by_id = models.CharField(max_length=64)
    decided_by_name = models.CharField(max_length=200)
    decided_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "approvals_decision"
        ordering = ["decided_at"]
        constraints = [
            models.UniqueConstraint(fields=["request", "decided_by_id"], name="approvals_decision_once")
        ]

    def __str__(self) -> str:
        return f"{self.decided_by_name} {'approved' if self.approves else 'rejected'}"
