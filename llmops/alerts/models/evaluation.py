"""When rules were looked at last."""

from __future__ import annotations

from django.db import models


class Evaluation(models.Model):
    """The one row that workers claim before they look at the rules, and what came of it."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    begun_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    took_ms = models.PositiveIntegerField(default=0)
    problems = models.JSONField(default=list)

    class Meta:
        db_table = "alerts_evaluation"
        constraints = [models.CheckConstraint(condition=models.Q(id=1), name="alerts_evaluation_single")]

    def __str__(self) -> str:
        return f"looked at {self.ended_at}"
