"""The playground's key of each project, runs with what was heard of them, and setups that somebody shared."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from llmops.access.held_keys import HeldKey
from llmops.access.models import Project, ServiceKey
from llmops.base.models import UUIDModel


class ProjectKey(HeldKey):
    """The service key with which the playground calls for a project. The secret is sealed; no page and no API shows it."""

    project = models.OneToOneField(Project, on_delete=models.PROTECT, related_name="playground_key")
    service_key = models.OneToOneField(ServiceKey, on_delete=models.PROTECT, related_name="playground_of")

    class Meta:
        db_table = "playground_project_key"

    def __str__(self) -> str:
        return f"the playground's key of {self.project}"


class Run(UUIDModel):
    """One call that somebody made in the playground; its id is the browser's, so that asking twice makes one call.

    ``beat_at`` is the sign of life of the process that reads the answer, ``watched_at`` that of a page that shows it.
    """

    WAITING, RUNNING, DONE, FAILED, CANCELLED, LOST = (
        "waiting",
        "running",
        "done",
        "failed",
        "cancelled",
        "lost",
    )
    STATES = [
        (WAITING, "Waiting"),
        (RUNNING, "Running"),
        (DONE, "Answered"),
        (FAILED, "Failed"),
        (CANCELLED, "Cancelled"),
        (LOST, "Lost: the process that read it ended"),
    ]
    #: of which something may still come
    OPEN = (WAITING, RUNNING)

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="playground_runs")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="playground_runs"
    )
    prompt_name = models.CharField(max_length=63, blank=True)
    prompt_version = models.CharField(
        max_length=12, blank=True, help_text="A number, draft, or edited: what was tried."
    )
    model = models.CharField(max_length=63, help_text="The route or model that was asked for.")
    digest = models.CharField(max_length=64, help_text="SHA-256 of what was asked.")
    state = models.CharField(max_length=10, choices=STATES, default=WAITING)
    call_id = models.UUIDField(null=True)
    started_at = models.DateTimeField()
    beat_at = models.DateTimeField()
    watched_at = models.DateTimeField()
    cancel_asked_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "playground_run"
        ordering = ["-started_at"]
        indexes = [
            models.Index(fields=["user", "-started_at"], name="playground_run_of"),
            models.Index(fields=["started_at"], name="playground_run_time"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=["waiting", "running", "done", "failed", "cancelled", "lost"]),
                name="playground_run_state_known",
            )
        ]

    def __str__(self) -> str:
        return f"run of {self.prompt_name or 'free text'} with {self.model}"


class Piece(UUIDModel):
    """What was heard of a run since the piece before: a JSON list of events (``hearing.py``), sealed."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="pieces")
    n = models.PositiveIntegerField()
    sealed = models.TextField()

    class Meta:
        db_table = "playground_piece"
        ordering = ["run", "n"]
        constraints = [models.UniqueConstraint(fields=["run", "n"], name="playground_piece_once")]

    def __str__(self) -> str:
        return f"piece {self.n} of {self.run_id}"


class Setup(UUIDModel):
    """What stood in the playground when somebody shared it: columns and values, sealed. For members of the project."""

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="playground_setups")
    sealed = models.TextField()
    made_by = models.CharField(max_length=200)
    made_at = models.DateTimeField()

    class Meta:
        db_table = "playground_setup"
        ordering = ["-made_at"]
        indexes = [models.Index(fields=["made_at"], name="playground_setup_time")]

    def __str__(self) -> str:
        return f"setup of {self.made_by}"
