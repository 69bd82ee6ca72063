"""How ready this installation was, day by day."""

from __future__ import annotations

from django.db import models


class DayScore(models.Model):
    """The last score of a day (UTC). ``categories`` has the tenths of a point by category, ``lacking`` the ids of checks."""

    day = models.DateField(primary_key=True)
    tenths = models.PositiveSmallIntegerField()
    categories = models.JSONField(default=dict)
    lacking = models.JSONField(default=list)

    class Meta:
        db_table = "readiness_day_score"
        ordering = ("-day",)

    def __str__(self) -> str:
        return f"{self.day}: {self.tenths / 10:g}"
