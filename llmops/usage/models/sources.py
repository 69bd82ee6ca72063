"""Where a provider's own figures are fetched from."""

from __future__ import annotations

from django.db import models

from llmops.providers.models import Credential, Provider


class StatementSource(models.Model):
    """With which of its keys a provider is asked what it says was used, and whether that is done every day.

    The key is an administrator's and stays staged: a key that data planes use for calls is never taken. ``next_run_at`` moves
    forward by compare-and-set in the transaction that asks for the fetch, so that each day has one.
    """

    id = models.BigAutoField(primary_key=True)
    provider = models.OneToOneField(Provider, on_delete=models.PROTECT, related_name="statement_source")
    credential = models.ForeignKey(Credential, on_delete=models.PROTECT, related_name="statement_sources")
    daily = models.BooleanField(default=False)
    next_run_at = models.DateTimeField(null=True)
    set_by = models.CharField(max_length=200)
    set_at = models.DateTimeField(auto_now=True)

    class Meta:
        db_table = "usage_statement_source"

    def __str__(self) -> str:
        return f"figures of {self.provider.slug}"
