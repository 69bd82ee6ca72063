"""Datasets made, cases added and taken out as a file: each is one transaction with one event, and no event holds a text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from llmops.access.models import Project
from llmops.audit.services import record_about
from llmops.base.clock import database_now
from llmops.core.actors import Actor
from llmops.core.digests import digest
from llmops.core.errors import Conflict, InvalidRequest
from llmops.core.texts import text_problem
from llmops.evals.models import Case, CaseText, Dataset
from llmops.evals.sealed import expected_identity, opened, seal, text_identity
from llmops.usage import texts
from llmops.usage.models import Call

MOST_CASES, MOST_EXPECTED = 10_000, 32_000
_BATCH = 1000


@transaction.atomic
def create_dataset(actor: Actor, *, project: Project, name: str, description: str = "") -> Dataset:
    """Raises ``InvalidRequest`` for a name that is none, ``Conflict`` for one that is taken."""
    name, description = name.strip(), description.strip()
    if not name or len(name) > 80 or text_problem(name):
        raise InvalidRequest("name: give the dataset a name of at most 80 characters.", param="name")
    if len(description) > 300 or text_problem(description):
        raise InvalidRequest("description: at most 300 plain characters.", param="description")
    if Dataset.objects.filter(project=project, name=name).exists():
        raise Conflict(f"name: {project} has a dataset {name} already.", param="name")
    row = Dataset(
        project=project, name=name, description=description, made_by=actor.name[:200], made_at=timezone.now()
    )
    row.save(force_insert=True)
    record_about(actor, row, action="dataset.created", after={"name": name}, project_id=project.pk)
    return row


@transaction.atomic
def add_case(actor: Actor, *, dataset: Dataset, call: Call, expected: str = "", note: str = "") -> Case:
    """Put a call into a dataset of its own project, with what its project keeps of its texts.

    Whoever calls this has asked whether the actor may read them. Raises ``NotFound`` where none are kept, ``InvalidRequest``,
    ``Conflict`` for a call that is in it already.
    """
    expected, note = expected.replace("\r\n", "\n").strip(), note.strip()
    if len(expected) > MOST_EXPECTED or text_problem(expected, lines=True):
        raise InvalidRequest(f"expected: at most {MOST_EXPECTED:,} characters of text.", param="expected")
    if len(note) > 500 or text_problem(note):
        raise InvalidRequest("note: at most 500 plain characters, in one line.", param="note")
    if call.project_id != dataset.project_id:
        raise InvalidRequest(
            "dataset: what a project's calls say stays in it: choose one of its own.", param="dataset"
        )
    # One after the other, so that numbers have no gaps.
    dataset = Dataset.objects.select_for_update().get(pk=dataset.pk)
    if dataset.cases.filter(source_call=call.pk).exists():
        raise Conflict(f"This call is in {dataset} already.", param="dataset")
    if dataset.cases_made >= MOST_CASES:
        raise Conflict(f"{dataset} has {MOST_CASES:,} cases, which is as many as one may have.")
    kept = texts.opened(call)
    copied = {
        "request": kept.request,
        "asked": kept.asked,
        "answered": kept.answered,
        "cut": kept.cut or kept.answer_cut,
        "changed": kept.changed,
    }
    case = Case(
        dataset=dataset,
        n=dataset.cases_made + 1,
        source_call=call.pk,
        source_started_at=call.started_at,
        endpoint=call.endpoint,
        model=call.model,
        prompt_name=call.prompt_name,
        prompt_version=call.prompt_version,
        digest=digest([kept.request or kept.asked, kept.answered]),
        note=note,
        added_by=actor.name[:200],
        added_at=timezone.now(),
    )
    if expected:
        case.sealed_expected = seal(expected, identity=expected_identity(case.pk))
    case.save(force_insert=True)
    CaseText.objects.create(
        case=case,
        project_id=call.project_id,
        started_at=call.started_at,
        sealed=seal(copied, identity=text_identity(case.pk)),
    )
    Dataset.objects.filter(pk=dataset.pk).update(cases_made=F("cases_made") + 1)
    record_about(
        actor,
        dataset,
        action="dataset.case_added",
        after={"case": case.n, "call": str(call.pk), "digest": case.digest},
        project_id=dataset.project_id,
    )
    return case


@transaction.atomic
def export_dataset(actor: Actor, *, dataset: Dataset) -> Iterator[str]:
    """The cases as lines of JSON, in the order of their numbers. That they were read is on record before the first line."""
    record_about(
        actor,
        dataset,
        action="dataset.exported",
        after={"cases": dataset.cases.count()},
        project_id=dataset.project_id,
    )
    return _lines(dataset)


def _lines(dataset: Dataset) -> Iterator[str]:
    since = _since(dataset.project_id)
    for case in dataset.cases.select_related("text").order_by("n").iterator(_BATCH):
        yield json.dumps(_told(case, since), ensure_ascii=False) + "\n"


def _told(case: Case, since: datetime) -> dict[str, Any]:
    """One case with its texts. ``input`` and ``output`` are null once they went with the texts of their call."""
    copied = _copied(case, since)
    gone = copied is None
    copied = copied or {}
    return {
        "case": case.n,
        "source_call": str(case.source_call),
        "source_started_at": case.source_started_at.isoformat(),
        "endpoint": case.endpoint,
        "model": case.model,
        "prompt": {"name": case.prompt_name, "version": case.prompt_version} if case.prompt_name else None,
        "input": None if gone else copied.get("request") or {"texts": copied.get("asked")},
        "output": None if gone else copied.get("answered"),
        "cut": bool(copied.get("cut")),
        "changed": bool(copied.get("changed")),
        "expected": opened(case.sealed_expected, identity=expected_identity(case.pk))
        if case.sealed_expected
        else None,
        "note": case.note,
        "digest": case.digest,
    }


def _copied(case: Case, since: datetime) -> dict[str, Any] | None:
    text = getattr(case, "text", None)
    # Whether or not somebody came by to remove what is past its days.
    if text is None or text.started_at < since:
        return None
    found: dict[str, Any] = opened(text.sealed, identity=text_identity(case.pk))
    return found


def _since(project_id: Any) -> datetime:
    """From when on copies of a project's texts may still be there."""
    now = database_now()
    days = keeping().filter(pk=project_id).values_list("keep_texts_days", flat=True).first()
    return now if days is None else now - timedelta(days=days)


def keeping() -> Any:
    """Projects that keep texts for people; copies of the others' go."""
    return Project.objects.filter(keep_texts_percent__gt=0, keep_texts_readable=True, archived_at=None)


def remove_copied_texts(*, now: datetime | None = None, batch: int = _BATCH) -> int:
    """Remove what cases copied, with the texts of their calls: past their project's days, and once it keeps none for people."""
    now = now or database_now()
    kept = dict(keeping().values_list("pk", "keep_texts_days"))
    past = [Q(project_id=pk, started_at__lt=now - timedelta(days=days)) for pk, days in kept.items()]
    removed = 0
    for which in [*past, ~Q(project_id__in=list(kept))]:
        while True:
            found = list(CaseText.objects.filter(which).values_list("pk", flat=True)[:batch])
            removed += CaseText.objects.filter(pk__in=found).delete()[0]
            if len(found) < batch:
                break
    return removed
