"""Abstract ground for every app's models, and the two tables that belong to no app."""

from __future__ import annotations

from django.db import models

from llmops.core.ids import uuid7


class UUIDModel(models.Model):
    """Time-ordered identifier, made before the row is written (sealed values are bound to it)."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)

    class Meta:
        abstract = True


class TimestampedModel(UUIDModel):
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        abstract = True


class LiveVersion(models.Model):
    """Counters that data planes poll: a change of ``number`` says that what ``name`` stands for must be read again."""

    name = models.CharField(max_length=40, primary_key=True)
    number = models.BigIntegerField(default=0)
    changed_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "base_live_version"

    def __str__(self) -> str:
        return f"{self.name}={self.number}"


class MasterKeyVerifier(models.Model):
    """A known phrase sealed under each master key ever used: detects a missing or wrong key at start."""

    key_id = models.CharField(max_length=60, primary_key=True)
    sealed = models.TextField()
    enrolled_at = models.DateTimeField(auto_now_add=True)
    retired_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "base_master_key_verifier"
        ordering = ["-enrolled_at"]
        verbose_name = "master key"

    def __str__(self) -> str:
        return self.key_id


class Resealing(UUIDModel):
    """A run that seals everything anew under ``to_key``. ``done`` counts what this run sealed; what is left, the values say."""

    RUNNING, DONE, FAILED = "running", "done", "failed"

    to_key = models.CharField(max_length=60)
    state = models.CharField(
        max_length=10,
        default=RUNNING,
        choices=[(RUNNING, "Running"), (DONE, "Done"), (FAILED, "Failed")],
    )
    total = models.PositiveIntegerField(default=0)
    done = models.PositiveIntegerField(default=0)
    message = models.CharField(max_length=500, blank=True)
    started_by = models.CharField(max_length=200)
    started_at = models.DateTimeField()
    heartbeat_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "base_resealing"
        ordering = ["-started_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["state"], condition=models.Q(state="running"), name="base_resealing_one_at_a_time"
            )
        ]

    def __str__(self) -> str:
        return f"sealing anew under {self.to_key}"
