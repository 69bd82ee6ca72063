"""The rule for publishing in a file: stricter at once, looser by other people, and as it is where the file is silent."""

from __future__ import annotations

import pytest
import yaml

from console.declarative.apply import apply_text
from console.declarative.checks import BadFile
from console.declarative.export import export_text
from console.declarative.state import read_state
from llmops.access import services as access
from llmops.approvals.models import Request
from llmops.approvals.services import decide
from llmops.serving.rules import Rule
from llmops.serving.selectors import live_revision, publishing_rule
from tests import configuring
from tests.cast import acting, cast, no_event, one_event, quick_passwords
from tests.configuring import OPERATOR

__all__ = ["cast", "quick_passwords"]

pytestmark = pytest.mark.django_db

STRICT = "version: 1\npublishing: {projects: [support], restore_alone: no}\n"
ALWAYS = "version: 1\npublishing: {second_person: yes}\n"
NONE = "version: 1\npublishing: {}\n"


def apply(text, **how):
    return apply_text(OPERATOR, text, **{"with_publish": False, **how})


def exported():
    return yaml.safe_load(export_text(read_state()))


def test_a_stricter_rule_holds_at_once_and_stays_where_the_file_is_silent(cast):
    assert "publishing" not in exported()
    with no_event():
        [step] = apply(STRICT, dry_run=True).plan.steps
    assert str(step).splitlines() == [
        "~ publishing rule",
        "    One person publishes alone. → What changes prompts of support takes a second person. So does going back.",
    ]
    assert publishing_rule() == Rule()
    with one_event("publishing.rule_changed") as seen:
        apply(STRICT)
    assert seen.event.after == {"always": False, "projects": ["support"], "restore_alone": False}
    assert publishing_rule() == Rule(False, frozenset(["support"]), False)
    assert exported()["publishing"] == {"projects": ["support"], "restore_alone": False}
    with no_event():
        for text in (STRICT, "version: 1\n", yaml.safe_dump({"version": 1, **_rule_of(exported())})):
            assert not apply(text).plan.steps


def _rule_of(document):
    return {"publishing": document["publishing"]}


def test_a_looser_one_is_asked_for_once_and_holds_when_others_agree(cast):
    apply(ALWAYS)
    with one_event("publishing.loosen_requested"):
        [step] = apply(NONE).plan.steps
    assert "holds once another person approves it" in str(step)
    assert publishing_rule() == Rule(always=True)
    with no_event():
        again = apply(NONE).plan
    assert not again.steps and "asked for already" in again.notes[0]
    request = Request.objects.get()
    # A command is nobody's word: two people have to agree.
    for user in (cast.alice, cast.root):
        decide(acting(user), request_id=request.pk, approves=True, seen=request.digest)
    assert publishing_rule() == Rule()
    with no_event():
        again = apply(NONE).plan
    assert (again.steps, again.notes) == ((), ())


def test_what_was_asked_for_under_another_rule_is_asked_for_anew(cast):
    apply(STRICT)
    apply(NONE)
    apply("version: 1\npublishing: {second_person: yes, projects: [support], restore_alone: no}\n")
    with one_event("publishing.loosen_requested"):
        assert len(apply(NONE).plan.steps) == 1


def test_the_stricter_rule_of_a_file_holds_for_what_the_same_file_publishes(cast):
    configuring.everything()
    done = apply_text(OPERATOR, ALWAYS)
    assert (done.revision, live_revision()) == (None, None)
    assert done.waits.startswith("Publish")
    assert Request.objects.get().state == Request.OPEN


def test_a_project_may_be_of_the_same_file_and_must_be_in_use(cast):
    apply("version: 1\nprojects: [{slug: new}]\npublishing: {projects: [new]}\n")
    assert publishing_rule().projects == {"new"}
    with pytest.raises(BadFile) as refused:
        apply("version: 1\npublishing:\n  restore_alone: yes\n  projects: [gone]\n")
    assert "line 4" in str(refused.value) and "there is no project 'gone'" in str(refused.value)


def test_a_project_that_was_put_away_stays_in_the_rule(cast):
    apply("version: 1\npublishing: {projects: [search, support]}\n")
    access.archive_project(OPERATOR, project=cast.search)
    assert exported()["publishing"] == {"projects": ["support"]}
    with no_event():
        assert not apply("version: 1\npublishing: {projects: [support]}\n").plan.steps
    assert publishing_rule().projects == {"search", "support"}


@pytest.mark.any_engine
@pytest.mark.parametrize("live", ["paused", "pauses", "switches", "degraded"])
def test_what_is_switched_for_the_moment_is_in_no_file(live):
    with pytest.raises(BadFile, match="there is no member"):
        apply(f"version: 1\n{live}: yes\n")
