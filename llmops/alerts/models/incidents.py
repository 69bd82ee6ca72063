"""What is wrong: incidents, all that happened in each, and what is not to be told of."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from llmops.access.models import Project
from llmops.alerts.models.rules import SEVERITIES, Rule
from llmops.base.models import UUIDModel


class Incident(UUIDModel):
    """A rule's condition, for one subject, from when it began to hold until it was well for long enough.

    At most one that is not resolved for each rule and subject: the database says so. ``clear_since`` is since when it is
    well, ``flaps`` how often it came back after it was resolved: each doubles the time that it must be well.
    ``told`` says that those who are to know were put into the outbox since it began, or since a silence of it ended.
    """

    OPEN, ACKNOWLEDGED, RESOLVED = "open", "acknowledged", "resolved"
    STATES = [(OPEN, "Open"), (ACKNOWLEDGED, "Acknowledged"), (RESOLVED, "Resolved")]

    rule = models.ForeignKey(Rule, on_delete=models.PROTECT, related_name="incidents")
    subject = models.CharField(max_length=200)
    project = models.ForeignKey(Project, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    severity = models.CharField(max_length=8, choices=SEVERITIES)
    title = models.CharField(max_length=200)
    says = models.CharField(max_length=500, blank=True)
    state = models.CharField(max_length=12, choices=STATES, default=OPEN)
    opened_at = models.DateTimeField()
    last_true_at = models.DateTimeField()
    clear_since = models.DateTimeField(null=True, blank=True)
    acknowledged_at = models.DateTimeField(null=True, blank=True)
    acknowledged_by = models.CharField(max_length=200, blank=True)
    resolved_at = models.DateTimeField(null=True, blank=True)
    resolved_by = models.CharField(max_length=200, blank=True)
    flaps = models.PositiveIntegerField(default=0)
    told = models.BooleanField(default=False)
    tellings = models.PositiveIntegerField(default=0)
    value = models.FloatField(default=0)
    worst = models.FloatField(default=0)
    calls = models.BigIntegerField(default=0)
    #: What narrows the list of calls to those behind it (route, model, feature, error, status), and units of the figures.
    facts = models.JSONField(default=dict)

    class Meta:
        db_table = "alerts_incident"
        ordering = ["-opened_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["rule", "subject"], condition=~Q(state="resolved"), name="alerts_incident_open_once"
            )
        ]
        indexes = [
            models.Index(fields=["rule", "subject", "-opened_at"], name="alerts_incident_of_rule"),
            models.Index(fields=["-opened_at"], name="alerts_incident_unresolved", condition=~Q(state="resolved")),
        ]  # fmt: skip

    def __str__(self) -> str:
        return self.title


class Entry(UUIDModel):
    """One line of an incident's timeline. Only added to."""

    KINDS = [
        (name, name.replace("_", " ").capitalize())
        for name in (
            "opened", "worsened", "came_back", "acknowledged", "silenced", "unsilenced", "told", "not_told", "escalated",
            "well", "ill_again", "resolved", "note",
        )
    ]  # fmt: skip

    incident = models.ForeignKey(Incident, on_delete=models.PROTECT, related_name="entries")
    at = models.DateTimeField()
    kind = models.CharField(max_length=14, choices=KINDS)
    who = models.CharField(max_length=200, blank=True)
    text = models.CharField(max_length=1000)

    class Meta:
        db_table = "alerts_entry"
        ordering = ["at", "id"]
        verbose_name_plural = "entries"

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} {self.text}"


class Silence(UUIDModel):
    """Nobody is told of a rule's incidents (of one subject, where it names one) until ``until``. They open and end all the same."""

    rule = models.ForeignKey(Rule, on_delete=models.PROTECT, related_name="silences")
    subject = models.CharField(max_length=200, blank=True)
    project = models.ForeignKey(Project, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    reason = models.CharField(max_length=500)
    since = models.DateTimeField()
    until = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)
    by = models.CharField(max_length=200)

    class Meta:
        db_table = "alerts_silence"
        ordering = ["-since"]
        indexes = [
            models.Index(fields=["rule", "until"], name="alerts_silence_now", condition=Q(ended_at=None))
        ]

    def __str__(self) -> str:
        return f"{self.rule_id} {self.subject}".strip()
