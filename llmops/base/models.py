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

    def __str__(self) -> str:
        return self.key_id
