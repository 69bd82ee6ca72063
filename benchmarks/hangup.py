"""How soon a provider feels that a client hung up, plain and streamed: until then it works, and bills, for nobody."""

from __future__ import annotations

import asyncio
import json
import random
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import uvloop

from benchmarks import load
from benchmarks.failure import BenchmarkFailed
from benchmarks.installation import HOLD_ROUTE
from benchmarks.load import Request
from benchmarks.planes import NOT_PINNED, PINNED, Planes, planes
from benchmarks.report import Bar, Options, Section, Table
from benchmarks.upstream import MARK

#: Hang-ups of each kind.
TIMES = 1_000
AT_ONCE = 50
ASKED_MS = 200
#: A client leaves after a time between these, seconds from when it sent its request or saw the stream begin.
SOONEST, LATEST = 0.02, 0.4
_PATIENCE_S = 10.0


@dataclass(frozen=True)
class _Kind:
    """``after``: milliseconds from each hang-up to when the upstream's connection was closed, sorted.

    ``before``: clients that were gone before their call had come to the upstream; it must never come there.
    """

    name: str
    after: Sequence[float]
    before: int

    def percentile(self, share: float) -> float:
        return self.after[min(len(self.after) - 1, int(share * len(self.after)))]


class _Client(asyncio.Protocol):
    def __init__(self) -> None:
        self.first: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if not self.first.done():
            self.first.set_result(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.first.done():
            self.first.cancel()


def run(options: Options) -> Section:
    """``rounds``: the hang-ups of each kind."""
    times = options.rounds or TIMES
    with planes(HOLD_ROUTE) as both:
        kinds = [
            _measure(both, name, streamed, times) for name, streamed in (("plain", False), ("stream", True))
        ]
        both.close_books()
        if len(_held(both)) != 2 * times - sum(kind.before for kind in kinds):
            raise BenchmarkFailed("calls came to the upstream after their clients were gone")
        _must_be_settled(both, 2 * times)
    longest = max(kind.after[-1] for kind in kinds)
    return Section(
        "hangup",
        bars=[
            Bar(
                "from a client's hang-up to the provider's, longest",
                f"< {ASKED_MS} ms",
                f"{longest:.1f} ms",
                longest < ASKED_MS,
            )
        ],
        tables=[
            Table(
                ["", "hang-ups", "gone before", "p50, ms", "p99, ms", "longest, ms"],
                [
                    [
                        kind.name,
                        f"{len(kind.after) + kind.before:,}",
                        f"{kind.before:,}",
                        *(f"{kind.percentile(share):.2f}" for share in (0.5, 0.99, 1)),
                    ]
                    for kind in kinds
                ],
            )
        ],
        notes=[
            f"{AT_ONCE} calls at a time, each hung up {SOONEST * 1000:.0f} to {LATEST * 1000:.0f} ms after it was sent (a stream: "
            "after its first piece), by closing the connection; then until the upstream sees its own connection closed.",
            "Gone before: the client left before its call had come to the upstream; it never came there.",
            PINNED if both.pinned else NOT_PINNED,
            f"Afterwards the ledger held exactly these {2 * times:,} calls, each as hung up by its client, and the budget was "
            "settled at their cost with nothing left on hold.",
        ],
    )


def _measure(both: Planes, name: str, streamed: bool, times: int) -> _Kind:
    async def hang_up(number: int, turn: asyncio.Semaphore) -> tuple[str, int]:
        user = f"{name}-{number}"
        request = _request(both, user, streamed)
        async with turn:
            loop = asyncio.get_running_loop()
            transport, client = await loop.create_connection(_Client, request.host, request.port)
            transport.write(request.data)
            if streamed:
                first = await asyncio.wait_for(client.first, _PATIENCE_S)
                if not first.startswith(b"HTTP/1.1 200 "):
                    raise BenchmarkFailed("not a stream: " + first[:400].decode(errors="replace"))
            await asyncio.sleep(random.uniform(SOONEST, LATEST))
            if not streamed and client.first.done():
                raise BenchmarkFailed("an answer to what is never answered")
            closed = time.monotonic_ns()
            transport.abort()
            return user, closed

    async def all_of_them() -> dict[str, int]:
        turn = asyncio.Semaphore(AT_ONCE)
        return dict(await asyncio.gather(*(hang_up(number, turn) for number in range(times))))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        closed = runner.run(all_of_them())
    held = _held(both)
    return _Kind(
        name,
        sorted((held[user] - at) / 1e6 for user, at in closed.items() if user in held),
        len(closed.keys() - held.keys()),
    )


def _request(both: Planes, user: str, streamed: bool) -> Request:
    return load.chat_request(
        host="127.0.0.1",
        port=both.gateway.request.port,
        model=HOLD_ROUTE,
        key=both.installation.key,
        mark=MARK,
        pieces=1 if streamed else 0,
        user=user,
    )


def _held(both: Planes) -> dict[str, int]:
    """When the upstream saw each of its calls go. Raises ``BenchmarkFailed`` if it still holds one."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        with urllib.request.urlopen(f"{both.upstream_url}/held", timeout=5) as answer:
            held: dict[str, int] = json.load(answer)
        if all(held.values()):
            return held
        if time.monotonic() > deadline:
            still = sum(not at for at in held.values())
            raise BenchmarkFailed(f"the upstream still holds {still} calls whose clients are gone")
        time.sleep(0.05)


def _must_be_settled(both: Planes, calls: int) -> None:
    rows = both.installation.rows
    statuses = dict(rows("SELECT status, count(*) FROM usage_call GROUP BY status"))
    if statuses != {"client_closed": calls}:
        raise BenchmarkFailed(
            f"the ledger holds {statuses} instead of {calls} calls hung up by their clients"
        )
    [(cost,)] = rows("SELECT sum(cost_nano) FROM usage_call")
    [money] = rows("SELECT sum(settled_nano), sum(leased_nano), sum(overrun_nano) FROM budgets_window")
    if money != (cost, 0, 0):
        raise BenchmarkFailed(f"settled, leased and overrun are {money}, the calls cost {cost}")
