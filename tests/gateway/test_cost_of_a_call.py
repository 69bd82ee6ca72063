"""What an ordinary call costs, in calls of our own functions: a figure that no busy machine blurs.

Whoever adds to the ordinary call sees it here. The bounds leave a tenth above what was counted last: 194, 171 and 243. If
what is added is worth its price, say so by a new figure; where one can be lowered, lower it.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import llmops
from llmops.serving.snapshot import CheckEntry, PolicyEntry
from tests.gateway.rig import (
    DONE,
    KEY,
    USD,
    Asked,
    Reply,
    Rig,
    a_budget,
    a_key,
    answers,
    ask,
    chunk,
    streams,
    usage_chunk,
)

OURS = str(Path(llmops.__file__).parent)
CHECKS = ("length", "secrets", "personal_data", "injection", "special_tokens")
WARM, MEASURED = 5, 10


class Counting:
    """Counts calls of functions below ``llmops``, those of coroutines once for each time they go on."""

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()

    def __enter__(self) -> Counting:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(OURS):
            self.found[f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_qualname}"] += 1


def everything_on(rig: Rig, *, policies: bool) -> None:
    """A key with limits, a hard budget that is far, the five usual checks, the journal."""
    checks = tuple(CheckEntry(kind, "before", "block", {}) for kind in CHECKS)
    rig.configure(
        keys={KEY: a_key(rpm=1_000_000, tpm=1_000_000_000, concurrency=1_000)},
        budgets=[a_budget(limit_nano=1_000 * USD)],
        policies=[PolicyEntry("usual", 1, checks, everywhere=True)] if policies else [],
    )


@pytest.mark.parametrize(
    ("stream", "policies", "most"), [(False, True, 213), (False, False, 188), (True, True, 267)]
)
async def test_an_ordinary_call_takes_no_more_calls_of_functions_than_it_did(
    rig: Rig, stream: bool, policies: bool, most: int
) -> None:
    everything_on(rig, policies=policies)
    rig.upstream.does(
        streams(chunk("Hello"), chunk(finish="stop"), usage_chunk(prompt=10, completion=5), DONE)
        if stream
        else answers("Hello")
    )
    members = {"stream": True} if stream else {}
    for _ in range(WARM):
        assert (await rig.chat(**members)).status == 200
    with Counting() as counting:
        for _ in range(MEASURED):
            await rig.chat(**members)
    each = counting.found.total() / MEASURED
    dearest = ", ".join(f"{name} {count / MEASURED:g}" for name, count in counting.found.most_common(40))
    assert each <= most, f"{each:g} calls of functions in a call: {dearest}"


async def test_a_piece_of_a_stream_wakes_nobody(rig: Rig) -> None:
    """From the socket's read to the server's: nine calls of functions when this was written."""
    everything_on(rig, policies=True)
    pieces = 200

    async def one_by_one(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        for number in range(pieces):
            await reply.chunk(chunk(f"word {number} "))
            await asyncio.sleep(0.001)
        await reply.chunk(chunk(finish="stop") + usage_chunk(prompt=10, completion=600) + DONE)
        await reply.raw(b"0\r\n\r\n")

    rig.upstream.does(one_by_one)
    exchange = rig.start(ask(stream=True))
    await exchange.answer.until(lambda answer: len(answer.pieces) > pieces // 4)
    begun = len(exchange.answer.pieces)
    with Counting() as counting:
        await exchange.answer.until(lambda answer: len(answer.pieces) > pieces * 3 // 4)
    counted = len(exchange.answer.pieces) - begun
    await exchange.done()
    # What happens once in a stream, such as beginning to listen for a hang-up, is no piece's.
    each = sum(count for count in counting.found.values() if count > 1) / counted
    dearest = ", ".join(f"{name} {count / counted:.2f}" for name, count in counting.found.most_common(20))
    assert each <= 10, f"{each:g} calls of functions for a piece: {dearest}"
