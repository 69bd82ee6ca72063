"""What was called: journals, calls, and how far back calls are still there."""

from __future__ import annotations

from django.db import models

from llmops.base.models import UUIDModel

#: What the note of an attempt says whose bill nobody knows (``gateway.settle.UNKNOWN_BILL``).
CHARGED_AT_HOLD = "the bill is not known: charged at its hold"


class Journal(models.Model):
    """A data-plane process's append-only files, and how far they have been moved into the database.

    A journal is a series of segments ``<id>.<number>.jsonl``. ``segment``, ``offset`` (bytes) and ``sequence``
    (records) advance by compare-and-set in the transaction that books the records, which makes re-reading harmless.
    ``floor_segment``, ``floor_offset`` and ``floor_sequence`` point at or before the first record of the oldest call
    that has not ended in what was booked: older segments may be deleted, and a reader that starts anew rebuilds the
    open calls from there. ``closed`` means that the process is gone and nothing of it is left to book; ``lost``, that
    nobody could read it before its leases ran out. ``problem`` says why it cannot be read on.
    """

    OPEN, CLOSED, LOST = "open", "closed", "lost"

    id = models.UUIDField(primary_key=True)
    host = models.CharField(max_length=200)
    path = models.CharField(max_length=500)
    opened_at = models.DateTimeField()
    seen_at = models.DateTimeField(help_text="Last sign of life of the process, or of its ingester.")
    segment = models.PositiveIntegerField(default=0)
    offset = models.BigIntegerField(default=0)
    sequence = models.BigIntegerField(default=0)
    floor_segment = models.PositiveIntegerField(default=0)
    floor_offset = models.BigIntegerField(default=0)
    floor_sequence = models.BigIntegerField(default=0)
    state = models.CharField(
        max_length=10, default=OPEN, choices=[(OPEN, "Open"), (CLOSED, "Closed"), (LOST, "Lost")]
    )
    problem = models.CharField(max_length=500, blank=True)

    class Meta:
        db_table = "usage_journal"
        ordering = ["-opened_at"]

    def __str__(self) -> str:
        return f"journal {self.id}"


class Call(UUIDModel):
    """One request of a service and all that came of it. Written once by the ingester."""

    OK, ERROR, REFUSED, CLIENT_CLOSED, INTERRUPTED, UNKNOWN = (
        "ok",
        "error",
        "refused",
        "client_closed",
        "interrupted",
        "unknown",
    )
    STATUSES = [
        (OK, "Answered"),
        (ERROR, "Failed"),
        (REFUSED, "Refused by the console"),
        (CLIENT_CLOSED, "Client hung up"),
        (INTERRUPTED, "Stream interrupted"),
        (UNKNOWN, "Unknown: the process died"),
    ]

    started_at = models.DateTimeField()
    journal_id = models.UUIDField()
    project_id = models.UUIDField()
    key_id = models.UUIDField()
    endpoint = models.CharField(max_length=40)
    route = models.CharField(max_length=63, blank=True)
    model = models.CharField(
        max_length=63, blank=True, help_text="Slug of the model that answered, or was tried last."
    )
    model_version = models.PositiveIntegerField(null=True)
    provider = models.CharField(max_length=63, blank=True)
    upstream_model = models.CharField(
        max_length=120, blank=True, help_text="As the provider named it in its answer."
    )
    revision = models.PositiveIntegerField()
    status = models.CharField(max_length=14, choices=STATUSES)
    http_status = models.PositiveSmallIntegerField()
    error_code = models.CharField(max_length=60, blank=True)
    error_message = models.CharField(max_length=500, blank=True)
    streamed = models.BooleanField(default=False)
    finish_reason = models.CharField(max_length=30, blank=True)
    tools = models.JSONField(
        default=list,
        db_default=models.Value([], models.JSONField()),
        help_text="Names of the tools that the model called, each once.",
    )
    attempts = models.JSONField(default=list)
    verdicts = models.JSONField(
        default=list,
        db_default=models.Value([], models.JSONField()),
        help_text="What policies said: which check of which version, what matched by name, what followed.",
    )
    signals = models.PositiveIntegerField(
        default=0,
        db_default=0,
        help_text="What the record says of the answer's quality: bits of usage.signals.",
    )
    attempt_count = models.PositiveSmallIntegerField(default=0)
    retry_count = models.PositiveSmallIntegerField(default=0)
    fallback_count = models.PositiveSmallIntegerField(default=0)
    input_tokens = models.PositiveIntegerField(default=0)
    cached_input_tokens = models.PositiveIntegerField(default=0)
    cache_write_tokens = models.PositiveIntegerField(default=0)
    output_tokens = models.PositiveIntegerField(default=0)
    reasoning_tokens = models.PositiveIntegerField(default=0)
    audio_input_tokens = models.PositiveIntegerField(default=0, db_default=0)
    image_input_tokens = models.PositiveIntegerField(default=0, db_default=0)
    audio_output_tokens = models.PositiveIntegerField(default=0, db_default=0)
    image_output_tokens = models.PositiveIntegerField(default=0, db_default=0)
    characters = models.PositiveIntegerField(
        default=0, db_default=0, help_text="Characters of text that was spoken."
    )
    seconds = models.PositiveIntegerField(
        default=0, db_default=0, help_text="Seconds of audio that was heard."
    )
    images = models.PositiveIntegerField(default=0, db_default=0, help_text="Images that were made.")
    service_tier = models.CharField(
        max_length=16, blank=True, default="", db_default="", help_text="Empty for the default one."
    )
    usage_estimated = models.BooleanField(
        default=False, help_text="The provider sent no usage; tokens were bounded."
    )
    output_cap = models.PositiveIntegerField(null=True)
    output_clamped = models.BooleanField(default=False)
    cost_nano = models.BigIntegerField(default=0)
    held_nano = models.BigIntegerField(default=0)
    overrun_nano = models.BigIntegerField(default=0)
    cache = models.CharField(
        max_length=8,
        blank=True,
        db_default="",
        help_text="hit, joined or stale when the response cache answered; miss when it was asked in vain.",
    )
    saved_nano = models.BigIntegerField(default=0, db_default=0)
    charges = models.JSONField(
        default=list, help_text="Budget windows this call was charged to, with amounts."
    )
    total_us = models.BigIntegerField(default=0)
    ttft_us = models.BigIntegerField(null=True)
    upstream_us = models.BigIntegerField(null=True)
    queue_us = models.BigIntegerField(default=0)
    provider_us = models.BigIntegerField(null=True)
    provider_request_id = models.CharField(max_length=120, blank=True)
    request_id = models.CharField(max_length=80, blank=True)
    feature = models.CharField(max_length=100, blank=True)
    user_digest = models.CharField(max_length=16, blank=True)
    session = models.CharField(max_length=100, blank=True)
    tags = models.JSONField(default=list)
    prompt_digest = models.CharField(max_length=16, blank=True)
    prompt_name = models.CharField(
        max_length=63, blank=True, default="", db_default="", help_text="The prompt that the request named."
    )
    prompt_version = models.PositiveIntegerField(null=True)
    request_bytes = models.PositiveIntegerField(default=0)
    response_bytes = models.PositiveIntegerField(default=0)

    class Meta:
        db_table = "usage_call"
        ordering = ["-started_at", "-id"]
        indexes = [
            models.Index(fields=["-started_at", "-id"], name="usage_call_time"),
            models.Index(fields=["project_id", "-started_at", "-id"], name="usage_call_project_time"),
            models.Index(fields=["key_id", "-started_at", "-id"], name="usage_call_key_time"),
            models.Index(
                fields=["error_code", "-started_at", "-id"],
                name="usage_call_error_time",
                condition=~models.Q(error_code=""),
            ),
            models.Index(fields=["request_id"], name="usage_call_request"),
            models.Index(
                fields=["provider_request_id"],
                name="usage_call_provider_request",
                condition=~models.Q(provider_request_id=""),
            ),
            models.Index(
                fields=["model", "started_at"],
                name="usage_call_tiered",
                condition=~models.Q(service_tier=""),
            ),
            models.Index(
                fields=["-started_at", "-id"], name="usage_call_signals", condition=models.Q(signals__gt=0)
            ),
        ]

    @property
    def charged_at_hold(self) -> bool:
        """Whether nobody knew what it, or an attempt of it, cost: what was held for it was charged, and a person may say."""
        return self.status == self.UNKNOWN or any(
            str(one.get("note", "")).startswith(CHARGED_AT_HOLD)
            for one in self.attempts
            if isinstance(one, dict)
        )

    def __str__(self) -> str:
        return str(self.id)


class RetentionMark(models.Model):
    """The one row that says from which moment on every call, and every rollup by minute, is still there.

    None: none was ever removed.
    """

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    calls_since = models.DateTimeField(null=True)
    minutes_since = models.DateTimeField(null=True)

    class Meta:
        db_table = "usage_retention_mark"
        constraints = [models.CheckConstraint(condition=models.Q(id=1), name="usage_retention_mark_single")]

    def __str__(self) -> str:
        return f"calls since {self.calls_since}, minutes since {self.minutes_since}"
