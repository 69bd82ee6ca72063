"""What people keep of dashboards: views of their own."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from llmops.base.models import UUIDModel


class SavedView(UUIDModel):
    """A dashboard as its address says it, under a name that its owner gave it.

    Whoever has its address opens it, and sees with it what they may see themselves: it holds filters and no figure.
    """

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    page = models.CharField(max_length=20, help_text="Name of the page: reliability, traffic, quality.")
    name = models.CharField(max_length=60)
    query = models.CharField(
        max_length=600, blank=True, help_text="Of its address, without the question mark."
    )
    made_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "dashboards_saved_view"
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["owner", "page", "name"], name="dashboards_saved_view_once")
        ]

    def __str__(self) -> str:
        return self.name
