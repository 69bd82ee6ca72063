"""Who is told, and the outbox of what they are told."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from llmops.access.models import Project, slug_validator
from llmops.alerts.models.incidents import Incident
from llmops.base.models import TimestampedModel, UUIDModel


class Channel(TimestampedModel):
    """A way to tell people. ``kind`` is a line of ``channels.CHANNELS``.

    ``after_minutes`` above 0 makes it an escalation: it is told of what nobody acknowledged for so long. Between
    ``quiet_from`` and ``quiet_to`` (minutes after midnight in ``timezone``) only what is critical is told at once; the rest waits.
    ``sealed`` is what signs a webhook, or the address of a chat, which is a secret itself.
    """

    slug = models.CharField(max_length=63, unique=True, validators=[slug_validator])
    kind = models.CharField(max_length=12)
    project = models.ForeignKey(Project, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    severities = models.JSONField(default=list)
    addresses = models.JSONField(default=list, blank=True, help_text="E-mail addresses.")
    url = models.CharField(max_length=1000, blank=True)
    allow_private_network = models.BooleanField(default=False)
    sealed = models.TextField(blank=True, editable=False)
    after_minutes = models.PositiveIntegerField(default=0)
    quiet_from = models.PositiveSmallIntegerField(null=True, blank=True)
    quiet_to = models.PositiveSmallIntegerField(null=True, blank=True)
    timezone = models.CharField(max_length=60, default="UTC")
    enabled = models.BooleanField(default=True)
    archived_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "alerts_channel"
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.slug


class Notification(UUIDModel):
    """One message that is to go out: written in the transaction of what it tells, sent afterwards, at least once.

    ``telling`` numbers the incident's tellings, so that each of them goes to a channel once. ``id`` is what a receiver
    knows a repetition by.
    """

    OPENED, CAME_BACK, ESCALATED, RESOLVED = "opened", "came_back", "escalated", "resolved"
    EVENTS = [(OPENED, "Opened"), (CAME_BACK, "Came back"), (ESCALATED, "Escalated"), (RESOLVED, "Resolved")]
    WAITING, SENDING, SENT, FAILED, DROPPED = "waiting", "sending", "sent", "failed", "dropped"
    STATES = [
        (WAITING, "Waiting"),
        (SENDING, "Being sent"),
        (SENT, "Sent"),
        (FAILED, "Given up"),
        (DROPPED, "Not needed any more"),
    ]

    incident = models.ForeignKey(Incident, on_delete=models.PROTECT, related_name="notifications")
    channel = models.ForeignKey(Channel, on_delete=models.PROTECT, related_name="notifications")
    event = models.CharField(max_length=10, choices=EVENTS)
    telling = models.PositiveIntegerField()
    state = models.CharField(max_length=8, choices=STATES, default=WAITING)
    held_back = models.BooleanField(default=False, help_text="It waits for the end of quiet hours.")
    created_at = models.DateTimeField()
    due_at = models.DateTimeField()
    claimed_at = models.DateTimeField(null=True)
    sent_at = models.DateTimeField(null=True)
    tries = models.PositiveSmallIntegerField(default=0)
    problem = models.CharField(max_length=300, blank=True)

    class Meta:
        db_table = "alerts_notification"
        ordering = ["created_at", "id"]
        constraints = [
            models.UniqueConstraint(
                fields=["incident", "channel", "event", "telling"], name="alerts_notification_once"
            )
        ]
        indexes = [
            models.Index(
                fields=["due_at"],
                name="alerts_notification_due",
                condition=Q(state__in=["waiting", "sending"]),
            )
        ]

    def __str__(self) -> str:
        return f"{self.event} to {self.channel_id}"
