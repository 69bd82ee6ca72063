"""Prompts in the declarative file: made, continued, labelled, and never rewritten."""

from __future__ import annotations

import pytest

from console.declarative.apply import apply_text
from console.declarative.checks import BadFile
from console.declarative.export import export_text
from console.declarative.state import read_state
from llmops.access import services as access
from llmops.prompts.models import Prompt
from llmops.serving.selectors import live_prompts
from tests import configuring
from tests.cast import no_event
from tests.configuring import OPERATOR
from tests.kept import kept

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("everything")]

FILE = """
version: 1
prompts:
  - slug: triage
    versions:
      - system: "You triage support tickets."
        task: "Classify the ticket."
        user: "{{ ticket }}"
        output_schema: {type: object, properties: {label: {type: string}}, required: [label]}
        route: chat
    labels: {production: 1}
"""
SECOND = FILE.replace(
    "    labels:",
    """      - system: "You triage."
        user: "{{ ticket }} {{ lang }}"
        note: shorter
    labels:""",
).replace("production: 1", "production: 2, old: 1")


@kept
def everything():
    configuring.everything()
    access.create_project(OPERATOR, slug="support")


def apply(text, **how):
    return apply_text(OPERATOR, text, **how)


def test_from_the_file_to_what_is_live():
    done = apply(FILE)
    assert [str(step) for step in done.plan.steps] == [
        "+ prompt triage\n    version 1",
        "~ prompt triage\n    label production: none → version 1",
    ]
    assert "prompt triage added: version 1; production → version 1" in done.published
    assert live_prompts()["", "triage"].labels == {"production": 1}
    with no_event():
        assert apply(FILE).nothing_to_do
        assert apply(export_text(read_state())).nothing_to_do
    done = apply(SECOND)
    assert [str(step).splitlines()[:2] for step in done.plan.steps] == [
        ["~ prompt triage", "    version 2"],
        ["~ prompt triage", "    label old: none → version 1"],
        ["~ prompt triage", "    label production: version 1 → version 2"],
    ]
    assert [line for line in done.published if "prompt" in line] == [
        "prompt triage: label old added: version 1",
        "prompt triage: production version 1 → version 2",
        "prompt triage: version 2 can be named by number",
    ]
    assert apply(export_text(read_state())).nothing_to_do
    # A file that knows of fewer versions takes none away; labels that it leaves out go.
    done = apply(FILE)
    assert [step.values for step in done.plan.steps] == [
        {"label": "old", "number": None},
        {"label": "production", "number": 1},
    ]
    assert Prompt.objects.get().versions.count() == 2


def test_prompts_of_projects_and_shared_ones():
    apply(FILE.replace("slug: triage", "slug: triage\n    project: support"))
    assert Prompt.objects.get().project.slug == "support"
    assert live_prompts()["support", "triage"].versions == {1}
    with pytest.raises(BadFile, match="stand beside"), no_event():
        apply(FILE)


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("Classify the ticket.", "Sort the ticket."), "version 1 is recorded otherwise"),
        (("production: 1", "production: 3"), "production means version 3, and there are 1"),
        (("slug: triage", "slug: triage\n    project: nowhere"), "there is no project 'nowhere'"),
        (("production: 1", "Prod: 1"), "lowercase letters"),
    ],
)
def test_what_cannot_be_is_told_and_nothing_is_done(change, told):
    apply(FILE)
    with pytest.raises(BadFile, match=told), no_event():
        apply(FILE.replace(*change))


def test_a_route_that_is_not_there_keeps_it_from_being_published():
    with (
        pytest.raises(
            BadFile, match=r"triage, version 1 \(production\) goes the route other, which is not there"
        ),
        no_event(),
    ):
        apply(FILE.replace("route: chat", "route: other"))


def test_what_was_put_away_and_is_named_comes_back():
    from llmops.prompts import services

    apply(FILE)
    services.archive_prompt(OPERATOR, prompt=Prompt.objects.get())
    assert [step.action for step in apply(FILE).plan.steps] == ["bring back"]
