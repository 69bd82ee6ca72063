"""What is asked is kept of projects that say so: redacted, bounded, sealed in the journal, and never a reason to fail."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.base.crypto import MasterKeys
from llmops.core.errors import ServiceUnavailable
from llmops.core.verdicts import BEFORE, BLOCK, REDACT
from llmops.gateway.kept.texts import MOST_BYTES, bounded
from llmops.serving.snapshot import ProjectEntry
from llmops.usage.records import TextKept, kept_text_identity
from tests.gateway.rig import KEY, Rig, a_key, a_route, ask, eventually
from tests.gateway.test_policing import policy
from tests.trying import tries

KEYS = MasterKeys({"k": b"0" * 32})
SECRET = "sk-proj-" + "aB3dE5" * 8


def keeping(rig: Rig, percent: int = 100, **what: Any) -> None:
    key = a_key()
    project = ProjectEntry(key.project_id, "support", keep_texts=percent)
    rig.configure(keys={KEY: key}, projects={key.project_id: project}, **what)
    rig.plane.seal = lambda text, identity: KEYS.seal(text, identity=identity)


def texts(rig: Rig) -> list[list[list[str]]]:
    kept = [one for one in rig.records() if isinstance(one, TextKept)]
    return [json.loads(KEYS.open(one.sealed, identity=kept_text_identity(one.call))) for one in kept]


async def test_what_is_asked_is_sealed_beside_the_call(rig):
    keeping(rig)
    assert (await rig.chat(text=f"My key is {SECRET}, ada@example.com")).status == 200
    assert texts(rig) == [[["user", "My key is [redacted], ada@example.com"]]]
    [kept] = [one for one in rig.records() if isinstance(one, TextKept)]
    assert kept.call == rig.ended()[0].origin.call and kept.project == rig.ended()[0].origin.project
    raw = b"".join(path.read_bytes() for path in rig.directory.iterdir() if path.is_file())
    assert b"ada@example.com" not in raw and SECRET.encode() not in raw


async def test_nothing_is_kept_unless_a_project_says_so(rig):
    keeping(rig, 0)
    await rig.chat()
    rig.plane.seal = None
    await rig.chat()
    assert texts(rig) == []


async def test_what_policies_took_out_is_not_kept_nor_what_they_refused(rig):
    keeping(rig, policies=[policy(("personal_data", BEFORE, REDACT, {"kinds": ["email"]}))])
    await rig.chat(text="Write to ada@example.com")
    [[[_, text]]] = texts(rig)
    assert "ada@" not in text and "EMAIL" in text
    keeping(rig, policies=[policy(("personal_data", BEFORE, BLOCK, {"kinds": ["email"]}))])
    assert (await rig.chat(text="Write to ada@example.com")).status == 400
    assert len(texts(rig)) == 1


async def test_a_share_of_calls_by_chance(rig, monkeypatch):
    keeping(rig, 25)
    dice = iter([0.24, 0.26, 0.0, 0.99])
    monkeypatch.setattr("llmops.gateway.kept.texts.random.random", lambda: next(dice))
    for _ in range(4):
        assert (await rig.chat()).status == 200
    assert len(texts(rig)) == 2


async def test_a_seal_that_fails_fails_no_call(rig):
    keeping(rig)

    def broken(text: str, identity: str) -> str:
        raise RuntimeError(text)

    rig.plane.seal = broken
    assert (await rig.chat()).status == 200
    assert texts(rig) == []


async def test_large_ones_are_cut_at_the_beginning(rig):
    keeping(rig)
    messages = [
        {"role": "system", "content": "a" * 30_000},
        {"role": "user", "content": [{"type": "text", "text": "ü" * 10_000}]},
        {"role": "user", "content": "now"},
    ]
    assert (await rig.call(ask("small") | {"messages": messages})).status == 200
    await eventually(lambda: not len(rig.plane.aside))
    [kept] = texts(rig)
    assert [text[:3] for _, text in kept] == ["aaa", "üüü", "now"]
    assert sum(len(text.encode()) for _, text in kept) <= MOST_BYTES


@given(
    st.lists(
        st.tuples(st.sampled_from(["user", "system"]), st.text(max_size=60).map(lambda text: text * 900)),
        max_size=6,
    )
)
@tries(100)
def test_never_more_than_the_bound(given_texts):
    kept = bounded(given_texts)
    assert sum(len(text.encode("utf-8", "replace")) for _, text in kept) <= MOST_BYTES
    assert [role for role, _ in kept] == [role for role, _ in given_texts][len(given_texts) - len(kept) :]


def test_a_secret_across_the_cut_does_not_stay():
    filler = "x " * (MOST_BYTES // 2 - 10)
    [(_, text)] = bounded([("user", filler + SECRET)])
    assert "sk-proj" not in text


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/responses"])
async def test_other_endpoints_too(rig, path):
    keeping(rig)
    await rig.call({"model": "small", "input": "Say hello"}, path=path)
    assert texts(rig) == [[["user", "Say hello"]]]


async def test_what_limits_refuse_is_not_kept(rig):
    key = a_key(rpm=1)
    project = ProjectEntry(key.project_id, "support", keep_texts=100)
    rig.configure(keys={KEY: key}, projects={key.project_id: project})
    rig.plane.seal = lambda text, identity: KEYS.seal(text, identity=identity)
    assert [(await rig.chat()).status for _ in range(3)] == [200, 429, 429]
    assert len(texts(rig)) == 1


async def test_while_nothing_can_be_written_no_texts_pile_up_in_memory(rig, monkeypatch):
    keeping(rig)
    whole = rig.journal.append

    def full(record: Any) -> None:
        raise ServiceUnavailable("no room")

    monkeypatch.setattr(rig.journal, "append", full)
    for _ in range(3):
        assert (await rig.chat(text="x" * 20_000)).status == 503
    await eventually(lambda: not len(rig.plane.aside))
    assert rig.plane.unwritten == 3, "their ends, and nothing of what they asked"
    monkeypatch.setattr(rig.journal, "append", whole)
    rig.plane.write_kept()
    assert texts(rig) == [] and len(rig.ended()) == 3


async def test_answers_from_the_cache_are_kept_with_what_was_asked(rig):
    keeping(rig, routes=[a_route(cache_ttl_s=60)])
    for word in ("miss", "hit"):
        answer = await rig.chat(model="chat")
        assert answer.headers["x-llmops-cache"] == word
    assert len(texts(rig)) == 2
