"""What is watched: rules, and objectives with their error budgets."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from llmops.access.models import Project, slug_validator
from llmops.alerts.burn import CRITICAL, INFO, WARNING
from llmops.base.models import TimestampedModel

SEVERITIES = [
    (CRITICAL, "Critical: wakes somebody"),
    (WARNING, "Warning: today"),
    (INFO, "Info: to know"),
]


class Rule(TimestampedModel):
    """A condition that is looked at every few seconds. ``kind`` is a line of ``kinds.KINDS``, ``settings`` its numbers.

    ``project``, ``route``, ``model`` and ``feature`` narrow what it looks at; how far, its kind says.
    """

    slug = models.CharField(max_length=63, unique=True, validators=[slug_validator])
    kind = models.CharField(max_length=40)
    project = models.ForeignKey(Project, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    route = models.CharField(max_length=63, blank=True)
    model = models.CharField(max_length=63, blank=True)
    feature = models.CharField(max_length=100, blank=True)
    settings = models.JSONField(default=dict, blank=True)
    severity = models.CharField(max_length=8, choices=SEVERITIES, default=WARNING)
    runbook = models.CharField(max_length=63, blank=True)
    resolve_after_s = models.PositiveIntegerField(
        default=300, help_text="How long it must be well before an incident ends, in seconds."
    )
    enabled = models.BooleanField(default=True)
    shipped = models.BooleanField(default=False, editable=False)
    archived_at = models.DateTimeField(null=True, blank=True)
    looked_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        db_table = "alerts_rule"
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.slug


class Slo(TimestampedModel):
    """An objective: so large a share of calls over a rolling window does well.

    ``threshold`` is microseconds for latency and time to first token, nanodollars for the cost of a call, and 0 otherwise.
    The share is parts in a million. One of ``route``, ``feature`` and ``project`` at least narrows it, or none: all calls.
    """

    AVAILABILITY, LATENCY, TTFT, COST, SCHEMA = "availability", "latency", "ttft", "cost", "schema"
    OBJECTIVES = [
        (AVAILABILITY, "Availability: calls that do not fail"),
        (LATENCY, "Latency: answers within a time"),
        (TTFT, "Time to first token within a time"),
        (COST, "Cost per call below an amount"),
        (SCHEMA, "Schema: answers that keep their contract"),
    ]
    WINDOWS = [(28, "28 days"), (30, "30 days")]

    slug = models.CharField(max_length=63, unique=True, validators=[slug_validator])
    objective = models.CharField(max_length=12, choices=OBJECTIVES, default=AVAILABILITY)
    target_ppm = models.PositiveIntegerField(help_text="990000 stands for 99 %.")
    threshold = models.BigIntegerField(default=0)
    window_days = models.PositiveSmallIntegerField(default=30, choices=WINDOWS)
    project = models.ForeignKey(Project, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    route = models.CharField(max_length=63, blank=True)
    feature = models.CharField(max_length=100, blank=True)
    archived_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "alerts_slo"
        ordering = ["slug"]
        verbose_name, verbose_name_plural = "SLO", "SLOs"
        constraints = [
            models.CheckConstraint(
                condition=Q(target_ppm__gt=0, target_ppm__lt=1_000_000), name="alerts_slo_leaves_a_budget"
            )
        ]

    @property
    def target(self) -> float:
        return self.target_ppm / 1_000_000

    def __str__(self) -> str:
        return self.slug
