"""Cases of testing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from django.utils import timezone

from llmops.core.ids import uuid7
from llmops.prompts.models import Label
from llmops.providers.models import ModelTrial, Rotation
from llmops.readiness.finding import LACKING, MET, NOTHING
from llmops.serving.models import Revision
from llmops.usage.models import CallOutcome
from tests.readiness.cases.case import case
from tests.readiness.world import ago, credential, day_of_calls, model, project, prompt, provider, route


@case("models-pinned")
def _(settings: Any) -> Iterator[str]:
    yield NOTHING
    route("r", model("a"))
    yield MET
    route("s", model("b", floats=True, floats_reason="the provider has no other"))
    yield LACKING


@case("models-tried")
def _(settings: Any) -> Iterator[str]:
    yield NOTHING
    one, other = model("a"), model("b")
    route("r", one, other)
    day_of_calls("ok", "a")
    yield LACKING
    ModelTrial.objects.create(
        model=other,
        version=1,
        at=timezone.now(),
        by="x",
        state=ModelTrial.ANSWERED,
        held_nano=1,
        charged_nano=1,
    )
    yield MET


@case("credentials-probed")
def _(settings: Any) -> Iterator[str]:
    yield NOTHING
    one = credential()
    yield LACKING
    one.last_probe_at = one.last_failure_at = ago(minutes=5)
    one.save()
    yield LACKING
    one.last_used_at = timezone.now()
    one.save()
    yield MET
    one.last_used_at = one.last_failure_at = None
    one.save()
    yield MET


@case("rotation-rehearsed")
def _(settings: Any) -> Iterator[str]:
    yield LACKING
    old, new = credential("old"), credential("new")
    Rotation.objects.create(
        provider=provider(), old=old, new=new, state="done", begun_by="x", finished_at=ago(days=9)
    )
    yield MET


@case("rollback-rehearsed")
def _(settings: Any) -> Iterator[str]:
    given = {"digest": "d", "document": "{}", "changes": [], "author": "x", "published_at": timezone.now()}
    Revision.objects.create(number=901, **given)
    yield LACKING
    Revision.objects.create(number=902, restores=901, **given)
    yield MET


@case("prompts-sampled")
def _(settings: Any) -> Iterator[str]:
    yield NOTHING
    prompt("a", [{"name": "one"}])
    yield MET
    prompt("b", [])
    yield LACKING


@case("prompts-labelled")
def _(settings: Any) -> Iterator[str]:
    yield NOTHING
    one = prompt("a", [])
    Label.objects.create(prompt=one, name="staging", version=one.current)
    yield LACKING
    Label.objects.create(prompt=one, name="production", version=one.current)
    yield MET


@case("policies-triable")
def _(settings: Any) -> Iterator[str]:
    one = project()
    yield LACKING
    one.keep_texts_percent = 5
    one.save()
    yield MET


@case("outcomes-told")
def _(settings: Any) -> Iterator[str]:
    yield LACKING
    CallOutcome.objects.create(
        call_id=uuid7(), call_started_at=ago(days=1), project_id=uuid4(), key_id=uuid4(), kind="resolved",
        at=timezone.now(), told_by="x",
    )  # fmt: skip
    yield MET
