"""The audit trail: one append-only row per change, chained by SHA-256."""

from __future__ import annotations

from django.db import models

from llmops.base.models import UUIDModel


class Event(models.Model):
    """One change and who made it.

    ``hash`` is SHA-256 over the canonical JSON of every other column including ``prev_hash`` (see ``chain.py``), so a
    row cannot be altered, removed or inserted without breaking every later hash. Names are kept as text: an event
    outlives the accounts and objects it speaks of. ``origin`` has ``agent`` and ``session`` where they are known.
    """

    sequence = models.BigIntegerField(primary_key=True)
    at = models.DateTimeField(db_index=True)
    actor_kind = models.CharField(max_length=20)
    actor_id = models.CharField(max_length=64)
    actor_name = models.CharField(max_length=200)
    ip = models.CharField(max_length=64, blank=True)
    request_id = models.CharField(max_length=80, blank=True)
    action = models.CharField(max_length=100, db_index=True)
    object_type = models.CharField(max_length=60)
    object_id = models.CharField(max_length=64)
    object_name = models.CharField(max_length=200)
    project_id = models.UUIDField(null=True, db_index=True)
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)
    reason = models.TextField(blank=True)
    origin = models.JSONField(null=True)
    prev_hash = models.CharField(max_length=64)
    hash = models.CharField(max_length=64, unique=True)

    class Meta:
        db_table = "audit_event"
        ordering = ["-sequence"]
        # Each way to look through the trail in its order, so that a page costs the same however long the trail is.
        indexes = [
            models.Index(fields=["object_type", "object_id", "sequence"], name="audit_event_of_object"),
            models.Index(fields=["object_type", "sequence"], name="audit_event_by_kind"),
            models.Index(fields=["actor_id", "sequence"], name="audit_event_by_actor"),
            models.Index(fields=["action", "sequence"], name="audit_event_by_action"),
            models.Index(fields=["project_id", "sequence"], name="audit_event_by_project"),
            models.Index(fields=["ip", "sequence"], name="audit_event_from_ip"),
            models.Index(fields=["request_id", "sequence"], name="audit_event_of_request"),
        ]
        verbose_name = "audit event"

    def __str__(self) -> str:
        return f"#{self.sequence} {self.action} {self.object_name}"


class ChainHead(models.Model):
    """The one row that is locked to append: the last sequence number and hash."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    sequence = models.BigIntegerField(default=0)
    hash = models.CharField(max_length=64)

    class Meta:
        db_table = "audit_chain_head"
        constraints = [models.CheckConstraint(condition=models.Q(id=1), name="audit_chain_head_single")]

    def __str__(self) -> str:
        return f"#{self.sequence}"


class Verification(UUIDModel):
    """A run that walks the whole trail. It may be taken over at ``sequence``, whose digest was ``hash``.

    ``total`` and ``head_hash`` are the end of the trail as it was when somebody asked.
    """

    RUNNING, INTACT, BROKEN, FAILED = "running", "intact", "broken", "failed"

    state = models.CharField(
        max_length=10,
        default=RUNNING,
        choices=[(RUNNING, "Running"), (INTACT, "Intact"), (BROKEN, "Broken"), (FAILED, "Failed")],
    )
    total = models.BigIntegerField(default=0)
    head_hash = models.CharField(max_length=64)
    sequence = models.BigIntegerField(default=0)
    hash = models.CharField(max_length=64)
    problems = models.JSONField(default=list)
    started_by = models.CharField(max_length=200)
    started_at = models.DateTimeField()
    heartbeat_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "audit_verification"
        ordering = ["-started_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["state"],
                condition=models.Q(state="running"),
                name="audit_verification_one_at_a_time",
            )
        ]

    def __str__(self) -> str:
        return f"verification of {self.total} events"
