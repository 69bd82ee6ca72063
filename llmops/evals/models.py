"""Datasets: calls that somebody chose to keep as cases, with what ought to have been answered."""

from __future__ import annotations

from django.db import models

from llmops.access.models import Project
from llmops.base.models import UUIDModel


class Dataset(UUIDModel):
    """Cases of one project under a name. Cases are only added; ``cases`` counts them, and the next one has the next number."""

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="datasets")
    name = models.CharField(max_length=80)
    description = models.CharField(max_length=300, blank=True)
    cases_made = models.PositiveIntegerField(default=0, db_default=0)
    made_by = models.CharField(max_length=200)
    made_at = models.DateTimeField()

    class Meta:
        db_table = "evals_dataset"
        ordering = ["project", "name"]
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="evals_dataset_name")]

    def __str__(self) -> str:
        return self.name


class Case(UUIDModel):
    """A call that was put into a dataset; never changed, never removed. ``sealed_expected`` is what somebody typed.

    What was copied from the call stands in ``CaseText`` and goes when the call's own texts go; ``digest`` (SHA-256) tells later whether
    two cases said the same.
    """

    dataset = models.ForeignKey(Dataset, on_delete=models.PROTECT, related_name="cases")
    n = models.PositiveIntegerField()
    source_call = models.UUIDField()
    source_started_at = models.DateTimeField()
    endpoint = models.CharField(max_length=40)
    model = models.CharField(max_length=63, blank=True)
    prompt_name = models.CharField(max_length=63, blank=True)
    prompt_version = models.PositiveIntegerField(null=True)
    digest = models.CharField(max_length=64)
    sealed_expected = models.TextField(blank=True)
    note = models.CharField(max_length=500, blank=True)
    added_by = models.CharField(max_length=200)
    added_at = models.DateTimeField()

    class Meta:
        db_table = "evals_case"
        ordering = ["dataset", "n"]
        constraints = [models.UniqueConstraint(fields=["dataset", "n"], name="evals_case_number")]
        indexes = [models.Index(fields=["source_call"], name="evals_case_source")]

    def __str__(self) -> str:
        return f"case {self.n} of {self.dataset}"


class CaseText(models.Model):
    """What a case copied of its call: the request, the answer; sealed. Removed with the texts of the call, by its project's days."""

    case = models.OneToOneField(Case, on_delete=models.PROTECT, primary_key=True, related_name="text")
    project_id = models.UUIDField()
    started_at = models.DateTimeField()
    sealed = models.TextField()

    class Meta:
        db_table = "evals_case_text"
        ordering = ["-started_at"]
        indexes = [models.Index(fields=["project_id", "started_at"], name="evals_case_text_project")]

    def __str__(self) -> str:
        return f"text of {self.case_id}"
