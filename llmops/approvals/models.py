"""What somebody asked for that takes a second person, and who decided what about it."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import F, Q

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
            # Not partial: SQLite takes no partial index where a value is bound.
            models.Index(fields=["state", "expires_at", "id"], name="approvals_request_standing"),
            models.Index(fields=["object_type", "object_id"], name="approvals_request_about"),
            models.Index(fields=["closed_at", "id"], name="approvals_request_ended"),
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
    #: The account whose power it took, where somebody stood in for it; empty where it was the decider's own.
    for_id = models.CharField(max_length=64, blank=True, default="", db_default="")
    for_name = models.CharField(max_length=200, blank=True, default="", db_default="")

    class Meta:
        db_table = "approvals_decision"
        ordering = ["decided_at"]
        constraints = [
            models.UniqueConstraint(fields=["request", "decided_by_id"], name="approvals_decision_once"),
            models.UniqueConstraint(
                fields=["request", "for_id"], condition=~Q(for_id=""), name="approvals_decision_lent_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.decided_by_name} {'approved' if self.approves else 'rejected'}"

    @property
    def who(self) -> str:
        return (
            f"{self.decided_by_name}, standing in for {self.for_name}"
            if self.for_name
            else self.decided_by_name
        )


class StandIn(TimestampedModel):
    """Somebody decides for a person who is away, from a moment to another (``standing_in.py``). What ended stays on record."""

    person = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    stand_in = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)
    reason = models.CharField(max_length=300, blank=True, default="")
    named_by = models.CharField(max_length=200)

    class Meta:
        db_table = "approvals_stand_in"
        verbose_name, verbose_name_plural = "stand-in", "stand-ins"
        ordering = ["-starts_at"]
        constraints = [
            models.CheckConstraint(
                condition=Q(ends_at__gt=F("starts_at")), name="approvals_stand_in_ends_later"
            ),
            models.CheckConstraint(condition=~Q(person=F("stand_in")), name="approvals_stand_in_is_another"),
        ]
        indexes = [
            models.Index(fields=["ends_at"], name="approvals_stand_in_ends", condition=Q(ended_at=None)),
        ]

    def __str__(self) -> str:
        return f"{self.stand_in.get_username()} for {self.person.get_username()}"
