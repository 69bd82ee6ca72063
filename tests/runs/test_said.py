"""A run of the mode ``stream``: what the model says is told as it says it, beside the steps, and nothing hangs on it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmops.runs import services
from llmops.runs.api import events
from llmops.runs.models import Run
from llmops.runs.services import saying
from tests.access.test_service_keys import every_text_in_the_database
from tests.runs.conftest import call, completion, plays, refusal
from tests.runs.making import begun, done, steps, text_of, told

pytestmark = [pytest.mark.django_db, pytest.mark.any_engine]


@pytest.fixture(autouse=True)
def written(monkeypatch):
    """All that is said is written down at once."""
    monkeypatch.setattr(saying, "_EVERY_S", 0.0)


def read(event: bytes) -> tuple[str, str, Any]:
    lines = dict(line.split(": ", 1) for line in event.decode().strip().split("\n"))
    return lines["event"], lines.get("id", ""), json.loads(lines["data"])


def test_a_stream_is_put_together_to_what_one_piece_would_have_been(lab, plane):
    plane.script = plays(
        [call("look", {"name": "Ada"}, "a"), call("look", {"name": "Bob"}, "b")], "Both are good customers."
    )
    run = done(lab, tools=["look"], mode="stream")
    assert (run.state, text_of(run), run.sealed_saying) == ("succeeded", "Both are good customers.", "")
    assert plane.paid[0]["stream"] is True and plane.paid[0]["stream_options"] == {"include_usage": True}
    assert steps(run)[0] == "turn sim-small tool_calls" and run.cost_nano > 0
    whole = done(lab, tools=["look"])
    plane.script = plays(
        [call("look", {"name": "Ada"}, "a"), call("look", {"name": "Bob"}, "b")], "Both are good customers."
    )
    assert "stream" not in plane.paid[-1] and whole.state == "succeeded"
    (first, _), (message, *_) = told(run, "turn"), [told(run, "turn")[0]["message"]]
    assert first["message"] == message and [one["id"] for one in message["tool_calls"]] == ["a", "b"]


def test_what_breaks_off_is_asked_again_and_what_is_refused_in_the_middle_says_why(lab, plane):
    answers = iter([
        (200, completion({"content": "Half an"}) | {"cut": True}),
        (200, completion({"content": "Half an"}) | refusal("upstream_error", "It broke.")),
        (200, completion({"content": "A whole answer"})),
    ])  # fmt: skip

    def script(asked, n):
        plane._known.clear()
        return next(answers)

    plane.script = script
    plane.answered, keeps = (
        (lambda headers, raw: (plane._known.clear(), keeps(headers, raw))[1]),
        plane.answered,
    )
    run = done(lab, mode="stream")
    assert (run.state, text_of(run)) == ("succeeded", "A whole answer")
    assert steps(run)[:3] == [
        "note later gateway_cut",
        "note paid upstream_error",
        "note later upstream_error",
    ]
    plane.script = plays((200, completion({"content": "My"}) | refusal("policy_blocked", "No secrets.")))
    run = done(lab, mode="stream")
    assert (run.state, run.error_code, run.error_message) == ("failed", "policy_blocked", "No secrets.")
    plane.script = lambda asked, n: (200, completion({"content": ""}) | {"usage": None})
    assert done(lab, mode="stream").state == "succeeded"


def test_what_is_said_is_sealed_and_the_same_for_every_process(lab, plane):
    run = begun(lab, mode="stream")
    held = services.take(run.pk)
    speaks = saying.Saying(held, 1)
    speaks.heard("Secretly ")
    assert saying.HERE[run.pk] == (1, "Secretly ")
    assert events.look(run.pk, 0).said == (1, "Secretly ")
    assert not any("Secretly" in text for text in every_text_in_the_database())
    speaks.heard("x" * (saying.MOST_CHARACTERS + 5))
    assert len(saying.HERE[run.pk][1]) == saying.MOST_CHARACTERS
    speaks.close()
    assert run.pk not in saying.HERE
    # Whoever lost the run says nothing any more.
    Run.objects.filter(pk=run.pk).update(fence=held.run.fence + 1)
    saying.Saying(held, 1).heard("late")
    assert events.look(run.pk, 0).said[1].startswith("Secretly ")
    saying.HERE.clear()


def test_news_are_what_was_not_told_yet():
    listened = events.Listened()

    def news(turn, text):
        return [read(one)[2] for one in listened.news((turn, text))]

    assert listened.news(None) == []
    assert news(1, "Hel") == [{"turn": 1, "at": 0, "text": "Hel"}]
    assert news(1, "Hello") == [{"turn": 1, "at": 3, "text": "lo"}]
    assert news(1, "Hello") == []
    # The turn was asked again, and says something else.
    assert news(1, "Good") == [{"turn": 1, "at": 0, "text": "Good"}]
    assert news(2, "Good day") == [{"turn": 2, "at": 0, "text": "Good day"}]
    listened.turns = 2
    assert news(2, "Good day, Ada") == []
    assert news(3, "x") == [{"turn": 3, "at": 0, "text": "x"}]
