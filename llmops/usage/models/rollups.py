"""Counts and sums of calls by bucket of time: what pages read."""

from __future__ import annotations

from django.db import models


class Rollup(models.Model):
    """Counts and sums of the calls that started in one bucket, by the dimensions that pages filter on."""

    MINUTE, HOUR, DAY = 60, 3600, 86400

    id = models.BigAutoField(primary_key=True)
    granularity = models.PositiveIntegerField(help_text="Length of the bucket in seconds.")
    bucket = models.DateTimeField()
    project_id = models.UUIDField()
    key_id = models.UUIDField()
    endpoint = models.CharField(max_length=40)
    route = models.CharField(max_length=63)
    model = models.CharField(max_length=63)
    feature = models.CharField(max_length=100)
    status = models.CharField(max_length=14)
    error_code = models.CharField(max_length=60)
    calls = models.BigIntegerField(default=0)
    streamed = models.BigIntegerField(default=0)
    attempts = models.BigIntegerField(default=0)
    retries = models.BigIntegerField(default=0)
    fallback_calls = models.BigIntegerField(default=0)
    input_tokens = models.BigIntegerField(default=0)
    cached_input_tokens = models.BigIntegerField(default=0)
    cache_write_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    reasoning_tokens = models.BigIntegerField(default=0)
    audio_input_tokens = models.BigIntegerField(default=0, db_default=0)
    image_input_tokens = models.BigIntegerField(default=0, db_default=0)
    audio_output_tokens = models.BigIntegerField(default=0, db_default=0)
    image_output_tokens = models.BigIntegerField(default=0, db_default=0)
    characters = models.BigIntegerField(default=0, db_default=0)
    seconds = models.BigIntegerField(default=0, db_default=0)
    images = models.BigIntegerField(default=0, db_default=0)
    cost_nano = models.BigIntegerField(default=0)
    overrun_nano = models.BigIntegerField(default=0)
    cache_hits = models.BigIntegerField(default=0, db_default=0)
    saved_nano = models.BigIntegerField(default=0, db_default=0)

    DIMENSIONS = (
        "granularity",
        "bucket",
        "project_id",
        "key_id",
        "endpoint",
        "route",
        "model",
        "feature",
        "status",
        "error_code",
    )
    SUMS = (
        "calls",
        "streamed",
        "attempts",
        "retries",
        "fallback_calls",
        "input_tokens",
        "cached_input_tokens",
        "cache_write_tokens",
        "output_tokens",
        "reasoning_tokens",
        "audio_input_tokens",
        "image_input_tokens",
        "audio_output_tokens",
        "image_output_tokens",
        "characters",
        "seconds",
        "images",
        "cost_nano",
        "overrun_nano",
        "cache_hits",
        "saved_nano",
    )

    class Meta:
        db_table = "usage_rollup"
        constraints = [
            models.UniqueConstraint(
                fields=[
                    "granularity",
                    "bucket",
                    "project_id",
                    "key_id",
                    "endpoint",
                    "route",
                    "model",
                    "feature",
                    "status",
                    "error_code",
                ],
                name="usage_rollup_once",
            )
        ]

    def __str__(self) -> str:
        return f"{self.calls} calls in {self.granularity} s from {self.bucket}"


class LatencyRollup(models.Model):
    """Latency sketch of one bucket of time: how many calls fell into each logarithmic bucket (``core.histogram``)."""

    TOTAL, TTFT, OVERHEAD = "total", "ttft", "overhead"

    id = models.BigAutoField(primary_key=True)
    granularity = models.PositiveIntegerField()
    bucket = models.DateTimeField()
    project_id = models.UUIDField()
    route = models.CharField(max_length=63)
    model = models.CharField(max_length=63)
    metric = models.CharField(max_length=8)
    log_bucket = models.SmallIntegerField()
    calls = models.BigIntegerField(default=0)

    class Meta:
        db_table = "usage_latency_rollup"
        constraints = [
            models.UniqueConstraint(
                fields=["granularity", "bucket", "project_id", "route", "model", "metric", "log_bucket"],
                name="usage_latency_rollup_once",
            )
        ]
        # In the order in which a series of percentiles is ranked; minutes are too short-lived to be worth it.
        indexes = [
            models.Index(
                fields=["granularity", "bucket", "metric", "log_bucket"],
                name="usage_latency_series",
                condition=models.Q(granularity__gt=60),
            )
        ]

    def __str__(self) -> str:
        return f"{self.calls} of {self.metric} in {self.granularity} s from {self.bucket}"


class AttributionRollup(models.Model):
    """What the calls of a day, or of a calendar month (UTC), add up to by end user and by tag.

    Apart from ``Rollup`` because their values are many: a page over months reads one row a value and month. A row whose
    ``value`` is empty counts each call that names any user (or tag) once; the others of a kind add up to it for users,
    and to more than it for tags, since a call may carry several.
    """

    USER, TAG = "user", "tag"
    DAY = 86400
    #: Stands for a calendar month, however long.
    MONTH = 31 * 86400
    GRANULARITIES = (DAY, MONTH)

    id = models.BigAutoField(primary_key=True)
    granularity = models.PositiveIntegerField(help_text="86400: a day; 2678400: a calendar month.")
    bucket = models.DateTimeField()
    kind = models.CharField(max_length=4)
    project_id = models.UUIDField()
    value = models.CharField(max_length=200)
    calls = models.BigIntegerField(default=0)
    refused = models.BigIntegerField(default=0)
    input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    cost_nano = models.BigIntegerField(default=0)
    saved_nano = models.BigIntegerField(default=0)

    DIMENSIONS = ("granularity", "bucket", "kind", "project_id", "value")
    SUMS = ("calls", "refused", "input_tokens", "output_tokens", "cost_nano", "saved_nano")

    class Meta:
        db_table = "usage_attribution_rollup"
        constraints = [
            models.UniqueConstraint(
                fields=["granularity", "bucket", "kind", "project_id", "value"],
                name="usage_attribution_rollup_once",
            )
        ]

    def __str__(self) -> str:
        return f"{self.calls} calls of {self.kind} {self.value or '(any)'} from {self.bucket}"
