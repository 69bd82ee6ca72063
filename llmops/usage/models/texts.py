"""What calls asked, of projects that have it kept."""

from __future__ import annotations

from django.db import models


class KeptText(models.Model):
    """The texts of one request: redacted and sealed before they left the data plane (``records.kept_text_identity``).

    Nothing shows them; policies are tried on them. Removed after the project's ``keep_texts_days``, and once it has none kept.
    """

    call_id = models.UUIDField(primary_key=True)
    project_id = models.UUIDField()
    route = models.CharField(max_length=63, blank=True)
    started_at = models.DateTimeField()
    sealed = models.TextField()

    class Meta:
        db_table = "usage_kept_text"
        ordering = ["-started_at"]
        indexes = [
            models.Index(fields=["project_id", "-started_at"], name="usage_kept_text_project"),
            models.Index(fields=["-started_at", "-call_id"], name="usage_kept_text_newest"),
        ]

    def __str__(self) -> str:
        return f"texts of {self.call_id}"
