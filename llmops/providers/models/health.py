"""What data planes say about targets and keys: observations of processes."""

from __future__ import annotations

from django.db import models

from llmops.base.models import UUIDModel


class CredentialTrouble(UUIDModel):
    """One data-plane process cannot read a key. The process says so again while it lasts, so an old row says nothing."""

    credential = models.ForeignKey("providers.Credential", on_delete=models.CASCADE, related_name="troubles")
    process = models.UUIDField(editable=False)
    host = models.CharField(max_length=200)
    reason = models.CharField(max_length=500)
    since = models.DateTimeField()
    seen_at = models.DateTimeField()

    class Meta:
        db_table = "providers_credential_trouble"
        ordering = ["host", "process"]
        constraints = [
            models.UniqueConstraint(
                fields=["credential", "process"], name="providers_credential_trouble_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.host} cannot read {self.credential}"


class CredentialUse(UUIDModel):
    """What one data-plane process still does on a key that is draining; said every few seconds while it drains.

    A row with nothing in it says that the process knows of the draining and has nothing left.
    """

    credential = models.ForeignKey("providers.Credential", on_delete=models.CASCADE, related_name="uses")
    process = models.UUIDField(editable=False)
    host = models.CharField(max_length=200)
    calls = models.PositiveIntegerField()
    background = models.PositiveIntegerField()
    seen_at = models.DateTimeField()

    class Meta:
        db_table = "providers_credential_use"
        ordering = ["host", "process"]
        constraints = [
            models.UniqueConstraint(fields=["credential", "process"], name="providers_credential_use_once"),
        ]

    def __str__(self) -> str:
        return f"{self.host} has {self.calls} calls on {self.credential}"


class OpenBreaker(models.Model):
    """A target of a route that one data-plane process leaves alone now, until ``until``; then it is probed. The row goes when
    the breaker closes, or with its process. Routes, models, providers and projects by slug, as they were then; with a project only
    its own calls are kept away.
    """

    process = models.UUIDField(editable=False)
    host = models.CharField(max_length=200)
    route = models.CharField(max_length=63, blank=True)
    model = models.CharField(max_length=63)
    provider = models.CharField(max_length=63)
    project = models.CharField(max_length=63, blank=True, default="", db_default="")
    since = models.DateTimeField()
    until = models.DateTimeField()
    why = models.CharField(max_length=500, blank=True)

    class Meta:
        db_table = "providers_open_breaker"
        ordering = ["route", "model", "since"]
        constraints = [
            models.UniqueConstraint(
                fields=["process", "route", "model", "project"], name="providers_open_breaker_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.route or 'by name'} → {self.model}"


class CredentialHeadroom(models.Model):
    """What a provider said last is left of a key's limits with a model, by its own name for it. A limit of 0 was not told."""

    credential = models.UUIDField()
    model = models.CharField(max_length=120)
    at = models.DateTimeField()
    requests = models.BigIntegerField()
    requests_left = models.BigIntegerField()
    tokens = models.BigIntegerField()
    tokens_left = models.BigIntegerField()

    class Meta:
        db_table = "providers_credential_headroom"
        ordering = ["credential", "model"]
        constraints = [
            models.UniqueConstraint(fields=["credential", "model"], name="providers_credential_headroom_once")
        ]

    def __str__(self) -> str:
        return f"limits of {self.credential} with {self.model}"

    @property
    def used(self) -> tuple[float, str]:
        """The larger share that is used, 0 to 1, and of what: ``requests`` or ``tokens``."""
        shares = [
            (1 - left / limit, what)
            for limit, left, what in (
                (self.requests, self.requests_left, "requests"),
                (self.tokens, self.tokens_left, "tokens"),
            )
            if limit > 0
        ]
        return max(shares, default=(0.0, "requests"))


class HealthEvent(UUIDModel):
    """A moment in which a target's breaker opened or closed, or a provider refused a key or took it again."""

    KINDS = [
        ("breaker_opened", "Breaker opened"),
        ("breaker_closed", "Breaker closed"),
        ("credential_refused", "Key refused"),
        ("credential_quota", "Key out of quota"),
        ("credential_accepted", "Key accepted again"),
        ("rotation_returned", "Rotation taken back"),
    ]

    at = models.DateTimeField()
    kind = models.CharField(max_length=30, choices=KINDS)
    route = models.CharField(max_length=63, blank=True)
    model = models.CharField(max_length=63, blank=True)
    provider = models.CharField(max_length=63, blank=True)
    credential = models.UUIDField(null=True, blank=True)
    process = models.UUIDField()
    text = models.CharField(max_length=500, blank=True)

    class Meta:
        db_table = "providers_health_event"
        ordering = ["-at", "-id"]
        indexes = [
            models.Index(fields=["at"], name="providers_health_at"),
            models.Index(fields=["credential", "at"], name="providers_health_credential"),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} at {self.at:%Y-%m-%d %H:%M:%S}"
