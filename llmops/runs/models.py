"""Runs, and the steps that each of them took."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from llmops.access.held_keys import HeldKey
from llmops.access.models import Project, ServiceKey
from llmops.base.models import TimestampedModel, UUIDModel
from llmops.tools.models import Action


class ProjectKey(HeldKey):
    """The service key with which runs of a project call models. The secret is sealed; no page and no API shows it."""

    project = models.OneToOneField(Project, on_delete=models.PROTECT, related_name="runs_key")
    service_key = models.OneToOneField(ServiceKey, on_delete=models.PROTECT, related_name="runs_of")

    class Meta:
        db_table = "runs_project_key"

    def __str__(self) -> str:
        return f"the key of {self.project} for runs"


class Run(TimestampedModel):
    """From a question to its answer. Whoever works on it holds a lease (``fence``, ``lease_until``), taken by conditional UPDATE.

    ``sealed`` is what was asked (``rules.Asked``, and the tools as they were offered), ``sealed_answer`` what came of it.
    ``left_ms`` is what is left of the time for work when ``began_at``; waiting for people does not count.
    """

    QUEUED, RUNNING, PARKED = "queued", "running", "parked"
    SUCCEEDED, FAILED, CANCELLED = "succeeded", "failed", "cancelled"
    STATES = [
        (QUEUED, "Waiting for a worker"),
        (RUNNING, "Running"),
        (PARKED, "Waiting for its tools"),
        (SUCCEEDED, "Answered"),
        (FAILED, "Failed"),
        (CANCELLED, "Cancelled"),
    ]
    OPEN = (QUEUED, RUNNING, PARKED)
    DUE, DELIVERED, UNDELIVERED = "due", "delivered", "undelivered"

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="runs")
    mode = models.CharField(max_length=10)
    sealed = models.TextField(blank=True)
    digest = models.CharField(max_length=64)
    idempotency_key = models.CharField(max_length=255, blank=True, default="")
    requested_by_kind = models.CharField(max_length=12)
    requested_by_id = models.CharField(max_length=64)
    requested_by_name = models.CharField(max_length=200)
    behalf_of = models.CharField(max_length=150, blank=True, default="")
    prompt_name = models.CharField(max_length=63, blank=True, default="")
    prompt_version = models.PositiveIntegerField(null=True)
    model = models.CharField(max_length=200, help_text="The route or model that was asked for.")
    tools = models.JSONField(default=list)
    max_turns = models.PositiveSmallIntegerField()
    max_seconds = models.PositiveIntegerField()
    max_cost_nano = models.BigIntegerField(null=True)

    state = models.CharField(max_length=10, choices=STATES, default=QUEUED)
    fence = models.PositiveIntegerField(default=0)
    worker = models.CharField(max_length=200, blank=True, default="")
    lease_until = models.DateTimeField(null=True)
    #: Not to be taken before: a call failed for a reason that passes.
    not_before = models.DateTimeField(null=True)
    #: When a worker was last told of it; whoever looks after what lies about tells one again.
    handed_at = models.DateTimeField(null=True)
    began_at = models.DateTimeField(null=True)
    left_ms = models.BigIntegerField()
    tries = models.PositiveSmallIntegerField(default=0)
    turns = models.PositiveSmallIntegerField(default=0)
    cost_nano = models.BigIntegerField(default=0)
    cancel_asked_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    sealed_answer = models.TextField(blank=True, default="")
    #: what the model says at the moment, for whoever follows; of no account for what comes next
    sealed_saying = models.TextField(blank=True, default="", db_default="")
    error_code = models.CharField(max_length=60, blank=True, default="")
    error_message = models.CharField(max_length=1000, blank=True, default="")
    error_param = models.CharField(max_length=200, blank=True, default="")

    webhook_url = models.CharField(max_length=1000, blank=True, default="")
    webhook_state = models.CharField(max_length=12, blank=True, default="")
    webhook_tries = models.PositiveSmallIntegerField(default=0)
    webhook_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "runs_run"
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=["queued", "running", "parked", "succeeded", "failed", "cancelled"]),
                name="runs_run_state_known",
            ),
            models.CheckConstraint(
                condition=~Q(state="running") | Q(lease_until__isnull=False),
                name="runs_run_running_is_leased",
            ),
            models.CheckConstraint(
                condition=Q(state__in=["queued", "running", "parked"], finished_at=None)
                | (~Q(state__in=["queued", "running", "parked"]) & Q(finished_at__isnull=False)),
                name="runs_run_over_when_finished",
            ),
            models.UniqueConstraint(
                fields=["project", "requested_by_kind", "requested_by_id", "idempotency_key"],
                condition=~Q(idempotency_key=""),
                name="runs_run_started_once",
            ),
        ]
        indexes = [
            models.Index(
                fields=["state", "lease_until"],
                name="runs_run_open",
                condition=Q(state__in=["queued", "running", "parked"]),
            ),
            models.Index(fields=["project", "-id"], name="runs_run_newest"),
            models.Index(fields=["webhook_at"], name="runs_run_to_tell", condition=Q(webhook_state="due")),
        ]

    def __str__(self) -> str:
        return f"run of {self.prompt_name or self.model or 'a prompt'}"

    @property
    def over(self) -> bool:
        return self.state not in self.OPEN


class Step(UUIDModel):
    """One line of a run's story; the database refuses to change or remove it.

    ``turn``    the model answered: its message, tokens, cost, and the call in the ledger
    ``call``    it wants a tool: the action that this became, or why it became none
    ``result``  what it was told came of that
    ``note``    parked, taken over, asked again, cancelled: ``what`` says which
    """

    run = models.ForeignKey(Run, on_delete=models.PROTECT, related_name="steps")
    n = models.PositiveIntegerField()
    kind = models.CharField(max_length=10)
    turn = models.PositiveSmallIntegerField()
    place = models.SmallIntegerField(default=-1)
    what = models.CharField(max_length=200, blank=True)
    outcome = models.CharField(max_length=60, blank=True)
    action = models.ForeignKey(Action, on_delete=models.PROTECT, null=True, related_name="steps")
    call_id = models.UUIDField(null=True)
    input_tokens = models.BigIntegerField(null=True)
    output_tokens = models.BigIntegerField(null=True)
    cost_nano = models.BigIntegerField(null=True)
    took_us = models.BigIntegerField(null=True)
    #: SHA-256 of the canonical JSON of what is sealed, so that the story can be proved when its texts are gone.
    digest = models.CharField(max_length=64)
    sealed = models.TextField(blank=True)
    at = models.DateTimeField()

    class Meta:
        db_table = "runs_step"
        ordering = ["run", "n"]
        constraints = [models.UniqueConstraint(fields=["run", "n"], name="runs_step_once")]

    def __str__(self) -> str:
        return f"step {self.n} of {self.run_id}"
