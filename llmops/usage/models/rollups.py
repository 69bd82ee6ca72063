"""Counts and sums of calls by bucket of time: what pages read."""

from __future__ import annotations

from django.db import models

from llmops.usage.signals import SIGNALS


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
    busy_us = models.BigIntegerField(
        default=0,
        db_default=0,
        help_text="How long all calls took together: by the length of the bucket, calls at a time.",
    )
    timed_calls = models.BigIntegerField(
        default=0, db_default=0, help_text="Answered calls of which is known how long the provider took."
    )
    timed_us = models.BigIntegerField(default=0, db_default=0, help_text="How long those took together.")
    upstream_us = models.BigIntegerField(default=0, db_default=0, help_text="Of that, with providers.")
    queue_us = models.BigIntegerField(default=0, db_default=0, help_text="Of that, waiting for a place.")
    queued_calls = models.BigIntegerField(
        default=0,
        db_default=0,
        help_text="Calls of any outcome that waited for a place for a millisecond or longer.",
    )
    truncated = models.BigIntegerField(default=0, db_default=0)
    filtered = models.BigIntegerField(default=0, db_default=0)
    declined = models.BigIntegerField(default=0, db_default=0)
    schema_failed = models.BigIntegerField(default=0, db_default=0)
    lazy = models.BigIntegerField(default=0, db_default=0)
    repaired = models.BigIntegerField(default=0, db_default=0)
    flagged = models.BigIntegerField(default=0, db_default=0)
    redacted = models.BigIntegerField(default=0, db_default=0)
    blocked = models.BigIntegerField(default=0, db_default=0)
    capped = models.BigIntegerField(default=0, db_default=0)

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
        "busy_us",
        "timed_calls",
        "timed_us",
        "upstream_us",
        "queue_us",
        "queued_calls",
        *SIGNALS,
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


class PromptRollup(models.Model):
    """As ``Rollup``, of calls that name a prompt: what the versions of prompts are compared by.

    Apart, because most calls name none, and those that do are few a bucket.
    """

    id = models.BigAutoField(primary_key=True)
    granularity = models.PositiveIntegerField()
    bucket = models.DateTimeField()
    project_id = models.UUIDField()
    key_id = models.UUIDField()
    route = models.CharField(max_length=63)
    model = models.CharField(max_length=63)
    feature = models.CharField(max_length=100)
    prompt_name = models.CharField(max_length=63)
    prompt_version = models.PositiveIntegerField(help_text="0: of which one is not known.")
    calls = models.BigIntegerField(default=0)
    failed = models.BigIntegerField(default=0)
    refused = models.BigIntegerField(default=0)
    input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    cost_nano = models.BigIntegerField(default=0)
    truncated = models.BigIntegerField(default=0)
    filtered = models.BigIntegerField(default=0)
    declined = models.BigIntegerField(default=0)
    schema_failed = models.BigIntegerField(default=0)
    lazy = models.BigIntegerField(default=0)
    repaired = models.BigIntegerField(default=0)
    flagged = models.BigIntegerField(default=0)
    redacted = models.BigIntegerField(default=0)
    blocked = models.BigIntegerField(default=0)
    capped = models.BigIntegerField(default=0, db_default=0)

    DIMENSIONS = (
        "granularity",
        "bucket",
        "project_id",
        "key_id",
        "route",
        "model",
        "feature",
        "prompt_name",
        "prompt_version",
    )
    SUMS = ("calls", "failed", "refused", "input_tokens", "output_tokens", "cost_nano", *SIGNALS)

    class Meta:
        db_table = "usage_prompt_rollup"
        constraints = [
            models.UniqueConstraint(
                fields=[
                    "granularity",
                    "bucket",
                    "project_id",
                    "key_id",
                    "route",
                    "model",
                    "feature",
                    "prompt_name",
                    "prompt_version",
                ],
                name="usage_prompt_rollup_once",
            )
        ]

    def __str__(self) -> str:
        return f"{self.calls} calls of {self.prompt_name} v{self.prompt_version} from {self.bucket}"
