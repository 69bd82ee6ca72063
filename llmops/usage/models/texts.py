"""What calls asked, and what they were answered, of projects that have it kept."""

from __future__ import annotations

from django.db import models


class KeptText(models.Model):
    """The texts of one request: redacted and sealed before they left the data plane (``records.kept_text_identity``).

    Policies are tried on them. ``readable``: kept for people, as ``usage.texts`` opens them. Removed after the project's
    ``keep_texts_days``, and once it has none kept.
    """

    call_id = models.UUIDField(primary_key=True)
    project_id = models.UUIDField()
    route = models.CharField(max_length=63, blank=True)
    started_at = models.DateTimeField()
    sealed = models.TextField()
    readable = models.BooleanField(default=False, db_default=False)

    class Meta:
        db_table = "usage_kept_text"
        ordering = ["-started_at"]
        indexes = [
            models.Index(fields=["project_id", "-started_at"], name="usage_kept_text_project"),
            models.Index(fields=["-started_at", "-call_id"], name="usage_kept_text_newest"),
        ]

    def __str__(self) -> str:
        return f"texts of {self.call_id}"


class KeptAnswer(models.Model):
    """What a call whose texts are kept for people was answered: redacted and sealed as they are, and removed with them."""

    call_id = models.UUIDField(primary_key=True)
    project_id = models.UUIDField()
    started_at = models.DateTimeField()
    sealed = models.TextField()

    class Meta:
        db_table = "usage_kept_answer"
        ordering = ["-started_at"]
        indexes = [models.Index(fields=["project_id", "-started_at"], name="usage_kept_answer_project")]

    def __str__(self) -> str:
        return f"answer of {self.call_id}"
