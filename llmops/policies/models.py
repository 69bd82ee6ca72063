"""Policies, and their immutable versions."""

from __future__ import annotations

from django.db import models

from llmops.access.models import slug_validator
from llmops.base.models import TimestampedModel, UUIDModel


class Policy(TimestampedModel):
    """The name under which checks are known; ``current`` points to the newest immutable version. A draft until published."""

    slug = models.CharField(max_length=63, unique=True, validators=[slug_validator])
    description = models.CharField(max_length=300, blank=True)
    everywhere = models.BooleanField(
        "holds everywhere",
        default=False,
        help_text="For every call, whatever its route. Otherwise only for the routes that name this policy.",
    )
    current = models.ForeignKey(
        "PolicyVersion", on_delete=models.PROTECT, null=True, editable=False, related_name="current_of"
    )
    archived_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        db_table = "policies_policy"
        ordering = ["slug"]
        verbose_name_plural = "policies"

    def __str__(self) -> str:
        return self.slug


class PolicyVersion(UUIDModel):
    """One immutable version: ``checks`` is a list of ``{kind, stage, action, settings}`` in the order in which they run."""

    policy = models.ForeignKey(Policy, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField(editable=False)
    checks = models.JSONField()
    note = models.CharField(max_length=300, blank=True)
    digest = models.CharField(max_length=64, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.CharField(max_length=200, editable=False)

    class Meta:
        db_table = "policies_policy_version"
        ordering = ["policy", "-number"]
        constraints = [
            models.UniqueConstraint(fields=["policy", "number"], name="policies_policy_version_number")
        ]

    def __str__(self) -> str:
        return f"{self.policy.slug} v{self.number}"
