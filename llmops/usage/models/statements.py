"""What providers say was used: imports of their exports, kept as they came, and drifts that were told."""

from __future__ import annotations

from django.db import models


class ProviderImport(models.Model):
    """An export of a provider that was taken over. Rows of this and of its figures never change.

    What holds for a day is what its newest import says; older ones stay, so that one can see what was said when.
    """

    id = models.BigAutoField(primary_key=True)
    provider = models.CharField(max_length=63)
    source = models.CharField(max_length=10, choices=[("csv", "File"), ("api", "Provider's API")])
    file_name = models.CharField(max_length=200, blank=True)
    digest = models.CharField(max_length=64, help_text="SHA-256 of what was read.")
    has_tokens = models.BooleanField()
    has_cost = models.BooleanField()
    first_day = models.DateField()
    last_day = models.DateField()
    imported_at = models.DateTimeField()
    imported_by = models.CharField(max_length=200)

    class Meta:
        db_table = "usage_provider_import"
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.provider} {self.first_day} to {self.last_day}"


class ProviderFigure(models.Model):
    """What an import says of a model on a day. ``model`` is the provider's name for it.

    A day that the import covers and says nothing of has one row without a model, of zeros.
    """

    id = models.BigAutoField(primary_key=True)
    statement = models.ForeignKey(ProviderImport, on_delete=models.PROTECT, related_name="figures")
    provider = models.CharField(max_length=63)
    day = models.DateField()
    model = models.CharField(max_length=120, blank=True)
    requests = models.BigIntegerField(default=0)
    input_tokens = models.BigIntegerField(default=0)
    cached_input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    cost_nano = models.BigIntegerField(null=True)

    class Meta:
        db_table = "usage_provider_figure"
        ordering = ["day", "model"]
        constraints = [
            models.UniqueConstraint(fields=["statement", "day", "model"], name="usage_provider_figure_once")
        ]
        indexes = [models.Index(fields=["provider", "day"], name="usage_provider_figure_day")]

    def __str__(self) -> str:
        return f"{self.provider} {self.model} on {self.day}"


class DriftAlert(models.Model):
    """The ledger and a provider differed by more than the bound, when an import was taken over. Told once by e-mail."""

    TOKENS, COST = "tokens", "cost"

    id = models.BigAutoField(primary_key=True)
    statement = models.ForeignKey(ProviderImport, on_delete=models.PROTECT, related_name="alerts")
    provider = models.CharField(max_length=63)
    day = models.DateField()
    model = models.CharField(max_length=120, blank=True)
    what = models.CharField(max_length=10, choices=[(TOKENS, "Tokens"), (COST, "Cost")])
    ledger = models.BigIntegerField(help_text="Tokens or nanodollars, as the ledger has them.")
    stated = models.BigIntegerField(help_text="The same, as the provider says.")
    raised_at = models.DateTimeField()

    class Meta:
        db_table = "usage_drift_alert"
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["statement", "day", "model", "what"], name="usage_drift_alert_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.what} of {self.model} at {self.provider} on {self.day}"
