"""Rollups added up once more, for pages that look at all calls of a bucket of time and not at single keys or features."""

from __future__ import annotations

from uuid import UUID

from django.db import models

#: Stands for all projects together.
ORGANISATION = UUID(int=0)


class Summary(models.Model):
    """All that the Overview tells of one bucket of time, in one row: ``Rollup`` and ``LatencyRollup`` added up.

    For a project, or for the organisation (``ORGANISATION``); whole, or those of its calls that have this route (or model, or
    feature), empty for calls without one. Of features no durations are kept. Made from rollups by ``usage.summaries`` and never
    added to, so that it can be made again at any time.
    A bucket of which the organisation has no whole row has no summary yet, and one without the organisation's row of no feature has
    none by feature; one that ``StaleSummary`` names is behind. Whoever reads takes the rollups of these.
    """

    WHOLE, ROUTE, MODEL, FEATURE = "", "route", "model", "feature"

    id = models.BigAutoField(primary_key=True)
    granularity = models.PositiveIntegerField(help_text="Length of the bucket in seconds.")
    bucket = models.DateTimeField()
    project_id = models.UUIDField()
    dimension = models.CharField(max_length=7, blank=True)
    value = models.CharField(max_length=100, blank=True)
    counts = models.TextField(
        help_text="JSON: [status, error code, whether a model worked, sums in the order of Rollup.SUMS] each."
    )
    total = models.BinaryField(help_text="Sketch of durations, as core.sketches stores it.")
    ttft = models.BinaryField()
    overhead = models.BinaryField()

    class Meta:
        db_table = "usage_summary"
        constraints = [
            # In the order in which pages read: one project, one dimension, a range of time.
            models.UniqueConstraint(
                fields=["granularity", "project_id", "dimension", "bucket", "value"],
                name="usage_summary_once",
            )
        ]
        indexes = [models.Index(fields=["granularity", "bucket"], name="usage_summary_bucket")]

    def __str__(self) -> str:
        of = f"{self.dimension} {self.value or '(none)'}" if self.dimension else "all calls"
        return f"{of} in {self.granularity} s from {self.bucket}"


class StaleSummary(models.Model):
    """A bucket whose rollups were changed after its summary was made. Whoever changes them adds a row, in one transaction;
    whoever makes the summary anew removes the rows it saw before it looked at rollups.

    Rows are added and never changed: two ingesters do not wait for each other here.
    """

    id = models.BigAutoField(primary_key=True)
    granularity = models.PositiveIntegerField()
    bucket = models.DateTimeField()

    class Meta:
        db_table = "usage_stale_summary"
        indexes = [models.Index(fields=["granularity", "bucket"], name="usage_stale_summary_bucket")]

    def __str__(self) -> str:
        return f"{self.granularity} s from {self.bucket}"
