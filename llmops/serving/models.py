"""Published revisions, and the pointer to the live one."""

from __future__ import annotations

from django.db import models

from llmops.base.models import UUIDModel


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
    approved_by = models.CharField(max_length=200, blank=True, default="", db_default="")
    origin = models.JSONField(
        null=True,
        help_text="Where it was brought from: the number, author, reason and time that it had there.",
    )
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


class PublishingRule(models.Model):
    """The one row that says when making something live takes a second person. Without it: never."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    always = models.BooleanField(default=False)
    #: slugs of projects whose prompts take a second person
    projects = models.JSONField(default=list)
    restore_alone = models.BooleanField(default=True)
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        db_table = "serving_publishing_rule"
        constraints = [
            models.CheckConstraint(condition=models.Q(id=1), name="serving_publishing_rule_single")
        ]

    def __str__(self) -> str:
        return "publishing"


class BroughtRevision(UUIDModel):
    """The bytes of a revision of another installation, before somebody makes them live here. Its digest is theirs."""

    digest = models.CharField(max_length=64, unique=True)
    document = models.TextField()
    origin = models.JSONField()
    brought_by = models.CharField(max_length=200)
    brought_at = models.DateTimeField()

    class Meta:
        db_table = "serving_brought_revision"
        ordering = ["-brought_at"]
        verbose_name = "brought revision"

    def __str__(self) -> str:
        return f"revision {self.origin.get('number') or '?'} of elsewhere ({self.digest[:12]})"


class OrganisationSwitch(models.Model):
    """A switch of the whole organisation that is on (``switches.SWITCHES``), since when, why and by whom."""

    name = models.CharField(max_length=20, primary_key=True)
    since = models.DateTimeField()
    reason = models.CharField(max_length=300)
    by = models.CharField(max_length=200)

    class Meta:
        db_table = "serving_organisation_switch"
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name
