"""Exports that go out by e-mail, again and again."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from llmops.access.models import Project
from llmops.base.models import UUIDModel


class ExportSchedule(UUIDModel):
    """What is sent to whom after each period has ended. ``project`` empty: the whole organisation's.

    It sends what its ``owner`` may see on that day, and nothing once he may not. ``next_run_at`` moves forward by
    compare-and-set in the transaction that makes the run, so that each period has one.
    """

    DAY, WEEK, MONTH = "day", "week", "month"
    PERIODS = [(DAY, "Every day"), (WEEK, "Every week"), (MONTH, "Every month")]

    name = models.CharField(max_length=80)
    what = models.CharField(max_length=10)
    group_by = models.CharField(max_length=20, default="project")
    project = models.ForeignKey(
        Project, on_delete=models.PROTECT, null=True, blank=True, related_name="export_schedules"
    )
    period = models.CharField(max_length=10, choices=PERIODS, default=MONTH)
    timezone = models.CharField(max_length=60, default="UTC")
    recipients = models.JSONField(default=list)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True)
    next_run_at = models.DateTimeField()
    made_at = models.DateTimeField(auto_now_add=True)
    stopped_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "usage_export_schedule"
        ordering = ["name"]
        indexes = [
            models.Index(
                fields=["next_run_at"],
                name="usage_export_due",
                condition=models.Q(stopped_at__isnull=True),
            )
        ]

    def __str__(self) -> str:
        return self.name


class ExportRun(UUIDModel):
    """One period of a schedule: sent at most once.

    ``sending`` that nobody ends is ``unknown``: the mail server may have it, so only a person sends it again. ``failed`` was
    certainly not sent, and is tried again until ``tries`` is used up.
    """

    WAITING, SENDING, SENT, FAILED, UNKNOWN = "waiting", "sending", "sent", "failed", "unknown"
    STATES = [
        (WAITING, "Waiting"),
        (SENDING, "Being sent"),
        (SENT, "Sent"),
        (FAILED, "Not sent"),
        (UNKNOWN, "May have been sent"),
    ]

    schedule = models.ForeignKey(ExportSchedule, on_delete=models.PROTECT, related_name="runs")
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    state = models.CharField(max_length=10, choices=STATES, default=WAITING)
    tries = models.PositiveSmallIntegerField(default=0)
    due_at = models.DateTimeField()
    claimed_at = models.DateTimeField(null=True)
    sent_at = models.DateTimeField(null=True)
    attached_bytes = models.BigIntegerField(null=True, help_text="Empty: a link was sent instead.")
    problem = models.CharField(max_length=300, blank=True)

    class Meta:
        db_table = "usage_export_run"
        ordering = ["-starts_at"]
        constraints = [
            models.UniqueConstraint(fields=["schedule", "starts_at"], name="usage_export_run_once")
        ]
        indexes = [
            models.Index(
                fields=["due_at"],
                name="usage_export_run_due",
                condition=models.Q(state__in=["waiting", "sending"]),
            )
        ]

    def __str__(self) -> str:
        return f"{self.schedule} from {self.starts_at:%Y-%m-%d}"
