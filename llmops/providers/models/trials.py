"""Test calls of models, and what they cost."""

from __future__ import annotations

from django.db import models

from llmops.base.models import UUIDModel


class ModelTrial(UUIDModel):
    """One real, small call of a model before it is published, made by the probe.

    ``held_nano`` is the most that it can cost, written down before it is sent; ``charged_nano`` is what counts towards the day's
    limit: the hold until the outcome is known, and for good where the provider may bill what nobody knows.
    """

    HELD, ANSWERED, FAILED, UNKNOWN = "held", "answered", "failed", "unknown"
    STATES = [
        (HELD, "Under way"),
        (ANSWERED, "Answered"),
        (FAILED, "Failed"),
        (UNKNOWN, "Unknown: the provider may bill it"),
    ]

    model = models.ForeignKey("providers.Model", on_delete=models.PROTECT, related_name="trials")
    version = models.PositiveIntegerField()
    at = models.DateTimeField()
    by = models.CharField(max_length=200)
    state = models.CharField(max_length=10, choices=STATES, default=HELD)
    held_nano = models.BigIntegerField()
    charged_nano = models.BigIntegerField()
    input_tokens = models.PositiveIntegerField(default=0)
    output_tokens = models.PositiveIntegerField(default=0)
    took_ms = models.PositiveIntegerField(default=0)
    told = models.CharField(max_length=300, blank=True)

    class Meta:
        db_table = "providers_model_trial"
        ordering = ["-at"]
        indexes = [models.Index(fields=["at"], name="providers_model_trial_at")]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(state__in=["held", "answered", "failed", "unknown"]),
                name="providers_model_trial_state_known",
            ),
            models.CheckConstraint(
                condition=models.Q(charged_nano__gte=0, held_nano__gte=0),
                name="providers_model_trial_not_negative",
            ),
        ]

    def __str__(self) -> str:
        return f"test call of {self.model_id} at {self.at:%Y-%m-%d %H:%M:%S}"
