"""A disk that is full: no new call is taken, which is said; what is under way is written down when there is space again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager

from tests.gateway.rig import Asked, Reply, Rig, a_budget, answers, completion, eventually


@contextmanager
def full_disk(rig: Rig) -> Iterator[None]:
    """Every write to the journal meets the kernel's own "no space left", and the reserve is used up."""
    journal = rig.journal
    journal._release_reserve()
    kept, full = os.dup(journal._fd), os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, journal._fd)
    os.close(full)
    try:
        yield
    finally:
        os.dup2(kept, journal._fd)
        os.close(kept)


async def test_new_calls_are_refused_by_a_sentence_and_nothing_is_lost(rig: Rig) -> None:
    go_on = asyncio.Event()

    async def waits(asked: Asked, reply: Reply) -> None:
        await go_on.wait()
        await reply.json(completion("late"))

    rig.configure(budgets=(a_budget(),))
    rig.upstream.does(waits, answers("Hello"))
    under_way = rig.start({"model": "small", "messages": [{"role": "user", "content": "Say hello"}]})
    await eventually(lambda: len(rig.upstream.asked) == 1)
    with full_disk(rig):
        for _ in range(3):
            refused = await rig.chat()
            assert refused.status == 503 and "cannot record calls" in refused.error["message"]
            assert refused.headers["retry-after"] == "5"
        assert len(rig.upstream.asked) == 1, "no call goes out that could not be written down"
        assert not rig.journal.healthy and "Free space on that volume" in rig.journal.problem
        go_on.set()
        answer = await under_way.done()
        assert answer.status == 200, "who has paid gets the answer"
        assert rig.ended() == [] and rig.plane.unwritten == 4, "its end, and the refusals, wait for space"
        rig.plane.write_kept()
        assert rig.plane.unwritten == 4
    # As a data plane does by itself, once a second.
    rig.plane.write_kept()
    assert rig.plane.unwritten == 0 and rig.journal.problem == ""
    rig.upstream.does(answers("Hello"))
    again = await rig.chat()
    assert again.status == 200
    assert [one.outcome.status for one in rig.ended() if one.outcome] == ["error"] * 3 + ["ok"] * 2
    held = [one.origin.call for one in rig.held()]
    ended = [one.origin.call for one in rig.ended() if one.attempt]
    assert sorted(held) == sorted(ended) and len(held) == 2
    assert [one.n for one in rig.records()] == list(range(1, len(rig.records()) + 1)), "no gap, no torn line"
    rig.nothing_held()
