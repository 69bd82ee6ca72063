"""Pages that are open: one look tells them all, what is told is what may be seen now, and none holds up a server that stops."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl

import pytest
from django.test import Client

from llmops.dashboards.boards import live, making
from llmops.dashboards.boards.making import Asked, Made
from llmops.dashboards.boards.scope import Scope
from llmops.dashboards.filters import parse
from tests.dashboards import seed

#: Of tests whose streams are looked at in a thread of its own, with its own connection.
apart = pytest.mark.django_db(transaction=True)
GONE = b"event: gone\ndata: {}\n\n"
NOW = datetime(2026, 11, 21, 14, 37, 22, tzinfo=UTC)


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    making.forget()
    live.forget()
    monkeypatch.setattr(live, "EVERY_S", 600.0)
    yield
    making.forget()
    live.forget()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """What was made, each time."""
    found: list[Asked] = []

    def counted(asked: Asked) -> Made:
        found.append(asked)
        return making.make(asked)

    monkeypatch.setattr(live, "made", counted)
    return found


def follower(who: Any, session: str, address: str = "range=1h", marker: str = "old") -> live.Follower:
    filters = parse(dict(parse_qsl(address)), now=NOW)
    return live.Follower(Asked("traffic", Scope.of(who), filters, True), who.pk, session, marker)


def session_of(client: Client) -> str:
    return str(client.session.session_key)


async def told(stream: AsyncIterator[bytes]) -> bytes:
    """The next that is no comment; nothing where the stream ends."""
    async with asyncio.timeout(30):
        async for piece in stream:
            if not piece.startswith((b":", b"retry")):
                return piece
    return b""


def data(event: bytes) -> Any:
    return json.loads(event.partition(b"data: ")[2])


@apart
def test_fifty_pages_are_told_by_one_look(
    stage: SimpleNamespace, alice: Client, still: None, made: list[Asked]
) -> None:
    seed.store([seed.make_call(stage, NOW - timedelta(minutes=5))])
    session = session_of(alice)
    pages = [follower(stage.alice, session) for _ in range(50)]

    async def watched() -> list[bytes]:
        streams = [page.stream() for page in pages]
        try:
            return await asyncio.gather(*map(told, streams))
        finally:
            for stream in streams:
                await stream.aclose()

    events = asyncio.run(watched())
    assert len(made) == 1 and len(set(events)) == 1 and events[0].startswith(b"id: ")
    assert not live._streams[stage.alice.pk] and not live._open, "nothing is left of a page that is closed"


@pytest.mark.any_engine
def test_pages_of_one_range_share_it_whenever_they_were_opened(stage: SimpleNamespace) -> None:
    early, late = (
        Asked("traffic", Scope.of(stage.alice), parse({"range": "1h"}, now=at), True)
        for at in (NOW, NOW + timedelta(minutes=9))
    )
    assert early != late and early.whenever() == late.whenever()
    assert early.whenever().at(NOW) == early
    chosen = parse({"from": "2026-11-20T10:00Z", "to": "2026-11-20T12:00Z"}, now=NOW)
    fixed = Asked("traffic", Scope.of(stage.alice), chosen, True)
    assert fixed.whenever() == fixed


@pytest.mark.any_engine
def test_what_did_not_change_is_not_sent_again(stage: SimpleNamespace, alice: Client, still: None) -> None:
    seed.store([seed.make_call(stage, NOW - timedelta(minutes=5), feature="one")])
    first, second = (follower(stage.alice, session_of(alice)) for _ in range(2))
    whole = data(first.look())
    seed.store([seed.make_call(stage, NOW - timedelta(minutes=4), feature="two")])
    making.forget()
    live._last[first.asked].at -= live.EVERY_S + live.STALE_S
    partly, all_of_it = data(first.look()), data(second.look())
    assert partly["marker"] == all_of_it["marker"] != whole["marker"]
    assert set(all_of_it["parts"]) == set(whole["parts"]) > set(partly["parts"])
    assert "two" in str(partly["parts"]["by-feature"]) and partly["drawing"] == all_of_it["drawing"]
    assert {**whole["parts"], **partly["parts"]} == all_of_it["parts"]
    assert first.look() == second.look() == b""


@pytest.mark.any_engine
@pytest.mark.parametrize("how", ["signs out", "password", "deactivated", "role", "somebody else's session"])
def test_nothing_is_told_to_who_may_not_see_it_any_more(
    stage: SimpleNamespace, alice: Client, bob: Client, still: None, how: str
) -> None:
    seed.store([seed.make_call(stage, NOW - timedelta(minutes=5))])
    page = follower(stage.bob, session_of(bob))
    assert page.look().startswith(b"id: ")
    page.marker = "older"
    if how == "signs out":
        bob.logout()
    elif how == "password":
        stage.bob.set_password("another battery staple")
        stage.bob.save()
    elif how == "deactivated":
        stage.bob.is_active = False
        stage.bob.save()
    elif how == "role":
        stage.bob.memberships.all().delete()
    else:
        page.session = session_of(alice)
    assert page.look() == GONE


@apart
def test_streams_end_with_their_readers_rights_and_with_their_server(
    stage: SimpleNamespace, alice: Client, bob: Client, still: None
) -> None:
    seed.store([seed.make_call(stage, NOW - timedelta(minutes=5))])
    lost, kept = follower(stage.bob, session_of(bob)), follower(stage.alice, session_of(alice))
    bob.logout()
    servers: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: servers.append(number))

    async def watched() -> list[bytes]:
        async with aclosing(lost.stream()) as unseen, aclosing(kept.stream()) as seen:
            found = [await told(unseen), await told(unseen), (await told(seen))[:4]]
            # Whoever does not take what was told is told no more meanwhile.
            kept.tell(b"waits")
            kept.marker = "older"
            await asyncio.to_thread(live.Rounds.here()._look, [kept])
            await asyncio.sleep(0)
            found.append(await told(seen))
            os.kill(os.getpid(), signal.SIGTERM)
            return [*found, await told(seen)]

    try:
        assert asyncio.run(watched()) == [GONE, b"", b"id: ", b"waits", b""]
    finally:
        signal.signal(signal.SIGTERM, before)
    assert servers == [signal.SIGTERM], "the server hears of it as before"


@pytest.mark.any_engine
def test_a_look_that_fails_ends_the_streams(
    stage: SimpleNamespace, alice: Client, still: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(asked: Asked) -> Made:
        raise ConnectionError("the database is away")

    monkeypatch.setattr(live, "made", away)
    page = follower(stage.alice, session_of(alice))

    async def watched() -> bytes:
        async with aclosing(page.stream()) as stream:
            return await told(stream)

    assert asyncio.run(watched()) == b"", "so that pages come back, and show that nobody answers"
