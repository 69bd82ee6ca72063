"""What people corrected afterwards."""

from __future__ import annotations

from django.db import models

from llmops.base.models import UUIDModel


class Correction(UUIDModel):
    """What a call was found to have cost, by whom and why. Never changed: what was recorded stays readable in ``before``.

    ``charges_before`` and ``charges_after`` are the call's charges as it carries them (``Call.charges``).
    """

    call_id = models.UUIDField()
    call_started_at = models.DateTimeField()
    project_id = models.UUIDField()
    before_nano = models.BigIntegerField()
    after_nano = models.BigIntegerField()
    charges_before = models.JSONField()
    charges_after = models.JSONField()
    reason = models.CharField(max_length=500)
    by_kind = models.CharField(max_length=12)
    by_id = models.CharField(max_length=64)
    by_name = models.CharField(max_length=200)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "usage_correction"
        ordering = ["-at"]
        indexes = [models.Index(fields=["call_id"], name="usage_correction_call")]

    def __str__(self) -> str:
        return f"correction of {self.call_id}"
