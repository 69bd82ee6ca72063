"""What calls brought, as services tell it afterwards."""

from __future__ import annotations

from django.db import models


class CallOutcome(models.Model):
    """What came of one call, in one respect: a ticket resolved, a visitor converted, a thumb up.

    A call has at most one of each kind; told again, the last word counts. It carries what figures are grouped by, as
    the call has it, because calls are removed after their retention. ``value_nano`` is what it brought, in nanodollars.
    """

    id = models.BigAutoField(primary_key=True)
    call_id = models.UUIDField()
    call_started_at = models.DateTimeField()
    project_id = models.UUIDField()
    key_id = models.UUIDField()
    route = models.CharField(max_length=63, blank=True)
    model = models.CharField(max_length=63, blank=True)
    feature = models.CharField(max_length=100, blank=True)
    kind = models.CharField(max_length=40)
    value_nano = models.BigIntegerField(default=0)
    at = models.DateTimeField(help_text="When it came about.")
    note = models.CharField(max_length=300, blank=True)
    told_at = models.DateTimeField(auto_now=True)
    told_by = models.CharField(max_length=200)

    class Meta:
        db_table = "usage_call_outcome"
        constraints = [models.UniqueConstraint(fields=["call_id", "kind"], name="usage_call_outcome_once")]
        indexes = [models.Index(fields=["call_started_at"], name="usage_call_outcome_day")]

    def __str__(self) -> str:
        return f"{self.kind} of {self.call_id}"


class OutcomeKind(models.Model):
    """A kind of outcome that a project's services have told of. There are only so many of them in a project."""

    id = models.BigAutoField(primary_key=True)
    project_id = models.UUIDField()
    kind = models.CharField(max_length=40)

    class Meta:
        db_table = "usage_outcome_kind"
        constraints = [models.UniqueConstraint(fields=["project_id", "kind"], name="usage_outcome_kind_once")]

    def __str__(self) -> str:
        return self.kind


class OutcomeRollup(models.Model):
    """How many outcomes of a kind the calls of a day (UTC, that on which the call began) had, and what they brought."""

    id = models.BigAutoField(primary_key=True)
    bucket = models.DateTimeField()
    project_id = models.UUIDField()
    key_id = models.UUIDField()
    route = models.CharField(max_length=63)
    model = models.CharField(max_length=63)
    feature = models.CharField(max_length=100)
    kind = models.CharField(max_length=40)
    outcomes = models.BigIntegerField(default=0)
    value_nano = models.BigIntegerField(default=0)

    DIMENSIONS = ("bucket", "project_id", "key_id", "route", "model", "feature", "kind")
    SUMS = ("outcomes", "value_nano")

    class Meta:
        db_table = "usage_outcome_rollup"
        constraints = [
            models.UniqueConstraint(
                fields=["bucket", "project_id", "key_id", "route", "model", "feature", "kind"],
                name="usage_outcome_rollup_once",
            )
        ]

    def __str__(self) -> str:
        return f"{self.outcomes} {self.kind} on {self.bucket:%Y-%m-%d}"
