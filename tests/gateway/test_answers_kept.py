"""Where a project has texts kept for people: the answer as it went out, and the request as it can be sent again."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from llmops.base.crypto import MasterKeys
from llmops.core.verdicts import AFTER, BEFORE, REDACT
from llmops.gateway.kept import aside
from llmops.gateway.kept.answers import MOST_BYTES, bounded, parts_of
from llmops.gateway.kept.texts import bounded as texts_bounded
from llmops.serving.snapshot import ProjectEntry
from llmops.usage.records import ANSWER, TextKept, kept_answer_identity, kept_text_identity
from tests.gateway.rig import DONE, KEY, Rig, a_key, answers, ask, chunk, eventually, streams, usage
from tests.gateway.test_policing import policy

KEYS = MasterKeys({"k": b"0" * 32})
SECRET = "sk-proj-" + "aB3dE5" * 8


def keeping(rig: Rig, percent: int = 100, *, readable: bool = True, **what: Any) -> None:
    key = a_key()
    project = ProjectEntry(key.project_id, "support", keep_texts=percent, read_texts=readable)
    rig.configure(keys={KEY: key}, projects={key.project_id: project}, **what)
    rig.plane.seal = lambda text, identity: KEYS.seal(text, identity=identity)


def asked(rig: Rig) -> list[Any]:
    kept = [one for one in rig.records() if isinstance(one, TextKept) and not one.part]
    return [json.loads(KEYS.open(one.sealed, identity=kept_text_identity(one.call))) for one in kept]


def answered(rig: Rig) -> list[Any]:
    kept = [one for one in rig.records() if isinstance(one, TextKept) and one.part == ANSWER]
    assert all(one.readable for one in kept)
    return [json.loads(KEYS.open(one.sealed, identity=kept_answer_identity(one.call))) for one in kept]


async def test_question_parameters_and_answer_without_secrets(rig):
    keeping(rig)
    rig.upstream.scripts = [answers(f"Your key {SECRET} is bad")]
    tool = {"type": "function", "function": {"name": "look", "parameters": {"properties": {"password": {}}}}}
    members = {"temperature": 0, "user": "ada", "metadata": {"of": "ada"}, "tools": [tool]}
    answer = await rig.call(ask("small", f"Is {SECRET} good?") | members)
    assert answer.status == 200 and SECRET.encode() in answer.body
    [kept] = asked(rig)
    assert kept["texts"] == [["user", "Is [redacted] good?"]] and kept["changed"] and not kept["cut"]
    # Who asked is nobody's business here, a schema keeps its members.
    assert kept["request"] == {
        "messages": [{"role": "user", "content": "Is [redacted] good?"}],
        "temperature": 0,
        "tools": [tool],
    }
    assert answered(rig) == [{"parts": [["text", "Your key [redacted] is bad"]], "cut": False}]


async def test_the_answer_is_kept_before_its_last_byte_and_only_for_people(rig):
    keeping(rig, readable=False)
    assert (await rig.chat()).status == 200
    assert isinstance(asked(rig)[0], list) and answered(rig) == []


async def test_a_stream_is_put_together(rig):
    keeping(rig)
    call = {"index": 0, "id": "c1", "function": {"name": "look", "arguments": '{"a"'}}
    more = {"index": 0, "function": {"arguments": ":1}"}}
    deltas = [{"content": "Hel"}, {"content": "lo"}, {"tool_calls": [call]}, {"tool_calls": [more]}]
    pieces = [chunk(choices=[{"index": 0, "delta": one, "finish_reason": None}]) for one in deltas]
    rig.upstream.scripts = [streams(*pieces, chunk(finish="tool_calls"))]
    answer = await rig.call(ask("small", "Say hello", stream=True))
    assert answer.status == 200
    assert answered(rig) == [{"parts": [["text", "Hello"], ["tool", 'look({"a":1})']], "cut": False}]


async def test_what_policies_took_out_of_the_answer_is_not_kept(rig):
    keeping(rig, policies=[policy(("personal_data", AFTER, REDACT, {"kinds": ["email"]}))])
    rig.upstream.scripts = [answers("Write to ada@example.com")]
    answer = await rig.chat(text="To whom?")
    assert b"ada@" not in answer.body
    [kept] = answered(rig)
    assert "ada@" not in json.dumps(kept)


async def test_a_refusal_has_no_answer(rig):
    keeping(rig)
    assert (await rig.call(ask("small") | {"max_tokens": 10**9})).status == 400
    assert answered(rig) == []


async def test_a_caller_may_wish_that_a_call_be_kept_where_some_are(rig, monkeypatch):
    monkeypatch.setattr("llmops.gateway.kept.texts.random.random", lambda: 0.99)
    keeping(rig, 1)
    await rig.chat()
    assert asked(rig) == []
    await rig.call(ask("small"), headers={"x-llmops-keep-texts": "false"})
    assert asked(rig) == []
    await rig.call(ask("small"), headers={"x-llmops-keep-texts": "true"})
    assert len(asked(rig)) == len(answered(rig)) == 1
    keeping(rig, 0)
    await rig.call(ask("small"), headers={"x-llmops-keep-texts": "true"})
    assert len(asked(rig)) == 1


async def test_a_large_request_is_kept_cut_and_cannot_be_sent_again(rig):
    keeping(rig)
    await rig.call(ask("small", "a" * 40_000))
    await eventually(lambda: not len(rig.plane.aside))
    [kept] = asked(rig)
    assert kept["cut"] and kept["request"] is None


async def test_what_a_policy_took_out_is_not_in_the_request(rig):
    keeping(rig, policies=[policy(("personal_data", BEFORE, REDACT, {"kinds": ["email"]}))])
    await rig.chat(text="Write to ada@example.com")
    [kept] = asked(rig)
    assert kept["changed"] and "ada@" not in json.dumps(kept)


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        (b"", []),
        (b"not json", []),
        (b"[1]", []),
        (b'{"choices": [{"message": {"content": null, "refusal": "No"}}]}', [("refusal", "No")]),
        (
            b'{"output": [{"type": "message", "content": [{"type": "output_text", "text": "Hi"}]},'
            b'{"type": "function_call", "name": "f", "arguments": "{}"}]}',
            [("text", "Hi"), ("tool", "f({})")],
        ),
        (b'{"text": "heard"}', [("text", "heard")]),
        (b'{"data": [{"embedding": [0.1]}]}', []),
    ],
)
def test_answers_of_other_shapes(body, parts):
    assert parts_of(body, events=False) == parts


def test_events_of_responses():
    delta = b'data: {"type": "response.output_text.delta", "delta": "Hi"}\n\n'
    assert parts_of(delta * 2 + b"data: [DONE]\n\n: comment\n", events=True) == [("text", "HiHi")]
    end = b'data: {"type": "response.completed", "response": {"output": [{"type": "message", "content": [{"text": "All"}]}]}}\n\n'
    assert parts_of(delta + end, events=True) == [("text", "All")]


def test_an_answer_is_cut_at_its_end():
    kept, cut = bounded([("text", "ü" * MOST_BYTES), ("text", "more")])
    assert cut and len(kept) == 1 and len(kept[0][1].encode()) <= MOST_BYTES
    assert bounded([("text", "all")]) == ([("text", "all")], False)


async def test_no_call_waits_for_what_is_kept_of_it(rig, monkeypatch):
    """Whoever counts has all hands full: answers go out all the same, large or small, and what they said is kept later."""
    keeping(rig)
    monkeypatch.setattr(aside, "MOST_AT_ONCE", 3)
    go_on = threading.Event()
    for pool in (rig.plane.threads, rig.plane.slow_thread):
        for _ in range(2):
            pool.submit(go_on.wait)
    try:
        rig.upstream.scripts = [answers("word " * 60_000, usage(prompt=9_000, completion=60_000))]
        for _ in range(4):
            assert (await rig.chat(text="Say much " * 3_000)).status == 200
        assert answered(rig) == [] and len(rig.plane.aside) == 3, "no more than so many at once"
    finally:
        go_on.set()
    await eventually(lambda: not len(rig.plane.aside))
    assert len(asked(rig)) + len(answered(rig)) == 3
    assert all(one["cut"] for one in answered(rig))
    rig.nothing_held()


@pytest.mark.parametrize("stream", [False, True])
async def test_what_was_put_back_for_the_client_is_not_kept_for_people(rig, stream):
    keeping(rig, policies=[policy(("personal_data", BEFORE, REDACT, {"reversible": True}))])
    said = "Write to [EMAIL_1] or [EMAIL_9]"
    rig.upstream.scripts = [streams(chunk(said), chunk(finish="stop"), DONE) if stream else answers(said)]
    answer = await rig.chat(text="To ada@example.com?", stream=stream)
    assert b"ada@example.com" in answer.body
    [kept] = answered(rig)
    assert kept["parts"] == [["text", said]]


async def test_answers_without_words_are_not_even_looked_at(rig):
    keeping(rig)
    await rig.call({"model": "small", "input": "Say hello"}, path="/v1/embeddings")
    assert len(asked(rig)) == 1 and answered(rig) == []


def test_no_first_part_of_a_secret_stays_where_a_text_is_cut():
    """Secrets take less room once they are out: what is cut before that may still come in."""
    text = f"{SECRET} " * 4_000
    for cut_at in range(0, len(SECRET) + 1, 7):
        [(_, answer)], _ = bounded([("text", "x" * cut_at + " " + text)])
        [(_, question)] = texts_bounded([("user", "x" * cut_at + " " + text)])
        assert "sk-" not in answer and "sk-" not in question
        assert answer.count("[redacted]") > 500 and question.count("[redacted]") > 500


def test_thoughts_of_a_stream_that_has_no_end_are_not_what_it_said():
    def event(kind, delta):
        return f'data: {{"type": "{kind}", "delta": "{delta}"}}\n\n'.encode()

    raw = event("response.reasoning_summary_text.delta", "Hm") + event("response.output_text.delta", "Hi")
    assert parts_of(raw, events=True) == [("text", "Hi")]
