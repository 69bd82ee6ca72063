"""Prompts, their immutable versions, and the labels that point to them."""

from __future__ import annotations

from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q

from llmops.access.models import Project, slug_validator
from llmops.base.models import TimestampedModel, UUIDModel

#: Begins with a letter, so that no label can be taken for the number of a version.
label_validator = RegexValidator(
    r"^[a-z][a-z0-9._-]{0,62}$",
    "Use lowercase letters, digits, dots, underscores and hyphens, at most 63, starting with a letter.",
)


class Prompt(TimestampedModel):
    """The name by which services ask for a prompt. Without a project it is shared: every project's keys may use it.

    ``draft`` is work in progress (``content.py``), None when there is none; ``current`` is the newest version.
    """

    slug = models.CharField(max_length=63, validators=[slug_validator])
    project = models.ForeignKey(
        Project, on_delete=models.PROTECT, null=True, blank=True, related_name="prompts"
    )
    description = models.CharField(max_length=300, blank=True)
    draft = models.JSONField(null=True, editable=False)
    draft_by = models.CharField(max_length=200, blank=True, editable=False)
    draft_at = models.DateTimeField(null=True, editable=False)
    current = models.ForeignKey(
        "PromptVersion", on_delete=models.PROTECT, null=True, editable=False, related_name="current_of"
    )
    archived_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        db_table = "prompts_prompt"
        ordering = ["slug"]
        constraints = [
            models.UniqueConstraint(
                fields=["project", "slug"],
                name="prompts_prompt_of_project",
                violation_error_message="There is a prompt of this name already.",
            ),
            models.UniqueConstraint(
                fields=["slug"],
                condition=Q(project=None),
                name="prompts_prompt_shared",
                violation_error_message="There is a shared prompt of this name already.",
            ),
        ]

    def __str__(self) -> str:
        return self.slug


class PromptVersion(UUIDModel):
    """One immutable version: what ``content.checked`` gives, its digest, and what its samples are rendered to.

    ``renderer`` is the renderer (``rendering.RENDERER``) that proved ``renderings``.
    """

    prompt = models.ForeignKey(Prompt, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField(editable=False)
    content = models.JSONField()
    note = models.CharField(max_length=300, blank=True)
    digest = models.CharField(max_length=64, editable=False)
    renderings = models.JSONField(default=list, blank=True)
    renderer = models.PositiveSmallIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.CharField(max_length=200, editable=False)

    class Meta:
        db_table = "prompts_prompt_version"
        ordering = ["prompt", "-number"]
        constraints = [
            models.UniqueConstraint(fields=["prompt", "number"], name="prompts_prompt_version_number")
        ]

    def __str__(self) -> str:
        return f"{self.prompt.slug} v{self.number}"


class Label(TimestampedModel):
    """A name such as ``production`` that points to a version of its prompt. What is live is what was published of it."""

    prompt = models.ForeignKey(Prompt, on_delete=models.PROTECT, related_name="labels")
    name = models.CharField(max_length=63, validators=[label_validator])
    version = models.ForeignKey(PromptVersion, on_delete=models.PROTECT, related_name="labels")

    class Meta:
        db_table = "prompts_label"
        ordering = ["prompt", "name"]
        constraints = [models.UniqueConstraint(fields=["prompt", "name"], name="prompts_label_name")]

    def __str__(self) -> str:
        return f"{self.prompt.slug}@{self.name}"


class LabelMove(UUIDModel):
    """A label was set, moved or removed: never changed afterwards. Numbers of versions; None: there was, or is, none."""

    prompt = models.ForeignKey(Prompt, on_delete=models.PROTECT, related_name="label_moves")
    name = models.CharField(max_length=63)
    from_version = models.PositiveIntegerField(null=True)
    to_version = models.PositiveIntegerField(null=True)
    reason = models.CharField(max_length=300)
    moved_by = models.CharField(max_length=200)
    moved_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "prompts_label_move"
        ordering = ["-moved_at", "-id"]
        indexes = [models.Index(fields=["prompt", "name", "-moved_at"], name="prompts_label_move_of")]

    def __str__(self) -> str:
        return f"{self.prompt.slug}@{self.name}: {self.from_version or 'none'} → {self.to_version or 'none'}"
