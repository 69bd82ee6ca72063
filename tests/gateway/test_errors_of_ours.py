"""Whatever breaks inside of the console between a hold and its end: the money is settled, and the call is on record once."""

from __future__ import annotations

from typing import Any

import pytest

from llmops.gateway.attempts.resilience import Plan, Step
from llmops.usage.records import Held
from tests.gateway.rig import Rig, a_budget, a_model, a_route, ask, fails


class Broken(Exception):
    pass


def raises(*_: Any, **__: Any) -> Any:
    raise Broken("that cannot be")


async def meets(rig: Rig, *, stream: bool = False) -> None:
    rig.configure(
        models=[a_model(), a_model("other")],
        routes=[a_route("chat", "small", fallbacks=("other",))],
        budgets=[a_budget()],
    )
    answer = await rig.call(ask("chat", stream=stream))
    assert (answer.status, answer.error["code"]) == (500, "internal_error")
    assert "that cannot be" not in answer.body.decode()
    outcomes = [one.outcome for one in rig.ended() if one.outcome is not None]
    assert [one.status for one in outcomes] == ["error"]
    rig.nothing_held()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_provider_that_no_channel_can_be_made_for(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr(rig.plane.transport, "channel", raises)
    await meets(rig, stream=stream)
    assert rig.outcome().cost == 0 and len(rig.held()) == 1, "nothing was sent, so nothing is billed"


async def test_a_hold_that_cannot_be_told(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rig.journal.append

    def append(record: Any) -> None:
        if isinstance(record, Held):
            raises()
        whole(record)

    monkeypatch.setattr(rig.journal, "append", append)
    await meets(rig)
    assert rig.upstream.asked == []


@pytest.mark.parametrize("where", [(Plan, "after"), (Step, "ended")])
async def test_what_follows_a_failure(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, where: tuple[Any, str]
) -> None:
    monkeypatch.setattr(*where, raises)
    rig.upstream.does(fails(500))
    await meets(rig)
    assert len(rig.ended()) == 2 and rig.outcome().cost == 0


async def test_a_stream_that_nobody_can_read(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmops.gateway.endpoints.chat.Chat.relay", raises)
    await meets(rig, stream=True)
    assert rig.outcome().cost == 0 and rig.upstream.asked == []
