"""The audit trail: one append-only row per change, chained by SHA-256."""

from __future__ import annotations

from django.db import models


class Event(models.Model):
    """One change and who made it.

    ``hash`` is SHA-256 over the canonical JSON of every other column including ``prev_hash`` (see ``chain.py``), so a
    row cannot be altered, removed or inserted without breaking every later hash. Names are kept as text: an event
    outlives the accounts and objects it speaks of.
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
    prev_hash = models.CharField(max_length=64)
    hash = models.CharField(max_length=64, unique=True)

    class Meta:
        db_table = "audit_event"
        ordering = ["-sequence"]
        indexes = [models.Index(fields=["object_type", "object_id"], name="audit_event_object")]
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
