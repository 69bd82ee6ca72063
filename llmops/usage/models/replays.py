"""Calls that were made to ask again what an earlier call had asked."""

from __future__ import annotations

from django.db import models

from llmops.base.models import UUIDModel


class Replay(UUIDModel):
    """Who had which call made again, with what in the place of its own. The new call is the one whose request id is ``request``,
    made with the key that is named here. ``problem`` says why there is none. Neither side has a foreign key: calls lie by day."""

    of_call = models.UUIDField()
    project_id = models.UUIDField()
    key_id = models.UUIDField()
    model = models.CharField(max_length=63, help_text="The route or model that was asked for.")
    prompt_version = models.PositiveIntegerField(null=True)
    made_by = models.CharField(max_length=200)
    made_by_id = models.CharField(max_length=64)
    made_at = models.DateTimeField()
    problem = models.CharField(max_length=500, blank=True, default="", db_default="")

    class Meta:
        db_table = "usage_replay"
        ordering = ["-made_at"]
        indexes = [
            models.Index(fields=["of_call", "-made_at"], name="usage_replay_of"),
            models.Index(fields=["made_by_id", "-made_at"], name="usage_replay_by"),
            models.Index(fields=["made_at"], name="usage_replay_time"),
        ]

    @property
    def request(self) -> str:
        return f"replay-{self.pk}"

    def __str__(self) -> str:
        return f"replay of {self.of_call} with {self.model}"
