"""A provider key that takes the place of another, step by step."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from llmops.base.models import TimestampedModel

STAGED, DRAINING, DONE, RETURNED, CANCELLED = "staged", "draining", "done", "returned", "cancelled"
OPEN = (STAGED, DRAINING)


class Rotation(TimestampedModel):
    """``new`` takes the place of ``old``: staged (the new one was tried and waits), draining (the new one is in use, the old
    one is for what began on it), then done, or returned (the old one is in use again), or cancelled.

    The old key is kept for ``keep_minutes`` after the new one came into use, so that it can be put back, and revoked when
    nothing uses it any more (``by_itself``), at ``deadline_at`` in any case.
    """

    STATES = [
        (STAGED, "New key tried, not in use yet"),
        (DRAINING, "New key in use, old one draining"),
        (DONE, "Done, old key revoked"),
        (RETURNED, "Taken back, old key in use"),
        (CANCELLED, "Cancelled"),
    ]

    provider = models.ForeignKey("providers.Provider", on_delete=models.PROTECT, related_name="rotations")
    old = models.ForeignKey("providers.Credential", on_delete=models.PROTECT, related_name="rotations_away")
    new = models.ForeignKey("providers.Credential", on_delete=models.PROTECT, related_name="rotations_to")
    state = models.CharField(max_length=10, choices=STATES, default=STAGED, editable=False)
    probe_result = models.CharField(max_length=300, blank=True, editable=False)
    unprobed_reason = models.CharField(max_length=300, blank=True, editable=False)
    keep_minutes = models.PositiveIntegerField(default=15)
    deadline_hours = models.PositiveIntegerField(default=24)
    by_itself = models.BooleanField(default=True)
    begun_by = models.CharField(max_length=200, editable=False)
    activated_at = models.DateTimeField(null=True, blank=True, editable=False)
    deadline_at = models.DateTimeField(null=True, blank=True, editable=False)
    finished_at = models.DateTimeField(null=True, blank=True, editable=False)
    outcome = models.CharField(max_length=500, blank=True, editable=False)

    class Meta:
        db_table = "providers_rotation"
        ordering = ["-created_at"]
        constraints = [
            # One at a time for a key, be it the old or the new one.
            models.UniqueConstraint(
                fields=["old"], condition=Q(state__in=OPEN), name="providers_rotation_once_away"
            ),
            models.UniqueConstraint(fields=["new"], name="providers_rotation_once_to"),
            models.CheckConstraint(condition=~Q(old=models.F("new")), name="providers_rotation_of_two"),
            models.CheckConstraint(
                condition=Q(state__in=[STAGED, DRAINING, DONE, RETURNED, CANCELLED]),
                name="providers_rotation_state_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.old} to {self.new.name}"
