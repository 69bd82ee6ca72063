"""Long pieces of work, and what providers keep for a project."""

from __future__ import annotations

from django.db import models

from llmops.core.ids import uuid7


class Job(models.Model):
    """A long piece of work somebody asked for in the console: its state lives here, not in the broker.

    The worker that has it is named in ``claimed_by`` and shows itself in ``heartbeat_at``; one that falls silent loses
    it to another, which goes on at ``done``. ``tries`` counts claims since the last progress.
    """

    QUEUED, RUNNING, DONE, FAILED = "queued", "running", "done", "failed"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    kind = models.CharField(max_length=40)
    arguments = models.JSONField(default=dict)
    state = models.CharField(
        max_length=10,
        default=QUEUED,
        choices=[(QUEUED, "Queued"), (RUNNING, "Running"), (DONE, "Done"), (FAILED, "Failed")],
    )
    done = models.BigIntegerField(default=0)
    total = models.BigIntegerField(default=0)
    message = models.CharField(max_length=300, blank=True)
    result = models.JSONField(null=True)
    claimed_by = models.CharField(max_length=36, blank=True)
    tries = models.PositiveSmallIntegerField(default=0)
    requested_by = models.CharField(max_length=200)
    requested_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    heartbeat_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "usage_job"
        ordering = ["-requested_at"]

    def __str__(self) -> str:
        return f"{self.kind} {self.state}"


class KeptObject(models.Model):
    """An object that a provider made and keeps for a project: a response, a file, a batch, whatever has an id there.

    Only the project whose key made it may reach it. Ids are the provider's own, so one is unique within a provider.
    ``due_at`` is when somebody is to look at it (a batch that has not ended); whoever does holds it by
    ``claimed_by`` until ``claimed_until``. ``metered_at``: what it cost is booked.
    """

    id = models.BigAutoField(primary_key=True)
    object_id = models.CharField(max_length=200)
    provider = models.CharField(max_length=63)
    kind = models.CharField(max_length=40)
    project_id = models.UUIDField()
    key_id = models.UUIDField()
    credential = models.CharField(max_length=36, blank=True, help_text="Id of the provider key that made it.")
    model = models.CharField(max_length=63, blank=True)
    made_at = models.DateTimeField()
    gone_at = models.DateTimeField(null=True, help_text="When it was deleted at the provider.")
    details = models.JSONField(default=dict)
    due_at = models.DateTimeField(null=True)
    claimed_by = models.CharField(max_length=36, blank=True, default="")
    claimed_until = models.DateTimeField(null=True)
    looks = models.PositiveIntegerField(default=0)
    metered_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "usage_kept_object"
        constraints = [
            models.UniqueConstraint(fields=["object_id", "provider"], name="usage_kept_object_once")
        ]
        indexes = [
            models.Index(fields=["kind", "made_at"], name="usage_kept_object_age"),
            models.Index(
                fields=["gone_at"], name="usage_kept_object_gone", condition=models.Q(gone_at__isnull=False)
            ),
            models.Index(
                fields=["due_at"], name="usage_kept_object_due", condition=models.Q(due_at__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.object_id}"


class KeptItem(models.Model):
    """Something inside of a kept object that has an id of its own: an output item of a response, a container it ran in.

    There are several to a response, so a row is as small as can be: ``digest`` is ``core.digests.short_digest`` of the id.
    Whose it is, and where, its object says.
    """

    pk = models.CompositePrimaryKey("digest", "kept")
    digest = models.BigIntegerField()
    kept = models.ForeignKey(KeptObject, on_delete=models.CASCADE, related_name="items")

    class Meta:
        db_table = "usage_kept_item"

    def __str__(self) -> str:
        return f"item of {self.kept_id}"
