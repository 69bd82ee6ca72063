"""Published revisions, and the pointer to the live one."""

from __future__ import annotations

from django.db import models


class Revision(models.Model):
    """Everything the data plane needs, compiled into one immutable document (see ``snapshot.py``). Never a secret."""

    number = models.PositiveIntegerField(primary_key=True)
    digest = models.CharField(max_length=64, help_text="SHA-256 of the document's bytes.")
    document = models.TextField(help_text="Canonical JSON.")
    changes = models.JSONField(
        default=list, help_text="What differs from the revision that was live before, in words."
    )
    reason = models.CharField(max_length=300, blank=True)
    restores = models.PositiveIntegerField(
        null=True, help_text="Number of the earlier revision this one publishes again."
    )
    author = models.CharField(max_length=200)
    published_at = models.DateTimeField()

    class Meta:
        db_table = "serving_revision"
        ordering = ["-number"]

    def __str__(self) -> str:
        return f"revision {self.number}"


class LivePointer(models.Model):
    """The one row that says which revision is live."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    revision = models.ForeignKey(Revision, on_delete=models.PROTECT, related_name="+")
    moved_at = models.DateTimeField()

    class Meta:
        db_table = "serving_live_pointer"
        constraints = [models.CheckConstraint(condition=models.Q(id=1), name="serving_live_pointer_single")]

    def __str__(self) -> str:
        return f"live: {self.revision}"
