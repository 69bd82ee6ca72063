"""``python -m benchmarks.journal CALLS``: a journal such as a busy data plane leaves, written by its own writer.

Runs in an installation's environment. Its money is leased like a data plane's, its process is gone when this ends.
Prints ``{"calls": N, "cost": nanodollars}``.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator
from typing import Any

import django

#: Calls under way at a time: how far apart a call's beginning and end lie in the file.
IN_FLIGHT = 64
#: The calls began within this time, as after an outage of the database.
SPREAD_S = 600
_WORST_NANO = 10_500_000


def main(calls: int) -> None:
    django.setup()
    from django.conf import settings
    from django.utils import timezone

    from llmops.access.models import ServiceKey
    from llmops.budgets.models import Budget
    from llmops.budgets.services import lease, open_window
    from llmops.usage.journal import JournalWriter

    key = ServiceKey.objects.select_related("project").get(name="bench")
    writer = JournalWriter(settings.JOURNAL_DIR)
    windows = [
        open_window(budget_id=budget.pk, at=timezone.now()).window_id
        for budget in Budget.objects.filter(hard=True)
    ]
    for window in windows:
        most = calls * 2 * _WORST_NANO
        lease(window_id=window, journal_id=writer.journal_id, need=most, want=most, lease_seconds=3600)
    chance = random.Random(7)
    cost = 0
    under_way: list[Iterator[int]] = []
    begun = 0
    while begun < calls or under_way:
        if begun < calls and len(under_way) < IN_FLIGHT:
            started = time.time_ns() - int(SPREAD_S * 1e9 * (1 - begun / calls))
            under_way.append(_call(writer, key, windows, chance, begun, started))
            begun += 1
            place = len(under_way) - 1
        else:
            place = chance.randrange(len(under_way))
        spent = next(under_way[place], None)
        if spent is None:
            under_way[place] = under_way[-1]
            under_way.pop()
        else:
            cost += spent
    writer.close()
    print(json.dumps({"calls": calls, "cost": cost}))


def _call(
    writer: Any, key: Any, windows: list[int], chance: random.Random, number: int, started: int
) -> Iterator[int]:
    """Writes a record at each step and yields what it spent: one call in twenty is retried, one in fifty fails."""
    from llmops.core.ids import uuid7
    from llmops.usage.records import Attempt, Charge, Ended, Held, HeldCharge, Origin, Outcome, Tokens

    streamed = number % 4 == 0
    origin = Origin(
        call=str(uuid7()),
        started=started,
        project=str(key.project_id),
        key=str(key.pk),
        endpoint="chat.completions",
        revision=1,
        route="bench",
        streamed=streamed,
        request=f"req-{number:012d}",
        feature=f"feature-{chance.randrange(5)}",
        user=f"{chance.randrange(10_000):016x}",
        tags=["bench"],
        bytes_in=chance.randrange(300, 6_000),
    )
    kind = chance.random()
    tries, fails = (2, False) if kind < 0.05 else (1, kind > 0.98)
    attempts: list[Attempt] = []
    at = started
    for attempt in range(1, tries + 1):
        held = [HeldCharge(window, _WORST_NANO) for window in windows]
        at += 200_000
        writer.append(
            Held(
                0,
                at,
                attempt,
                origin,
                "bench-model",
                1,
                "upstream",
                charges=held,
                worst_cost=_WORST_NANO,
                cap=1024,
            )
        )
        yield 0
        last = attempt == tries
        good = last and not fails
        tokens = (
            Tokens(input=chance.randrange(20, 3_000), output=chance.randrange(1, 600)) if good else Tokens()
        )
        spent = tokens.input * 2_500 + tokens.output * 10_000
        took = int(chance.lognormvariate(13.5, 0.7))
        at += took * 1000
        attempts.append(
            Attempt(
                attempt, "bench-model", "upstream", status=200 if good else 500, code="" if good else "upstream_error",
                total_us=took, ttft_us=took // 3 if streamed and good else None, provider_request="req_bench", cost=spent,
            )
        )  # fmt: skip
        outcome = Outcome(
            status="ok" if good else "error",
            http=200 if good else 502,
            model="bench-model",
            model_version=1,
            provider="upstream",
            upstream_model="bench-upstream-2024-01-01" if good else "",
            code="" if good else "upstream_error",
            finish="stop" if good else "",
            attempts=attempts,
            retries=tries - 1,
            tokens=tokens,
            cap=1024,
            cost=spent,
            total_us=took + 400,
            ttft_us=took // 3 if streamed and good else None,
            upstream_us=took,
            provider_request="req_bench",
            bytes_out=chance.randrange(500, 5_000),
        )
        charges = [Charge(window, _WORST_NANO, spent) for window in windows]
        writer.append(
            Ended(0, at, attempt, origin, charges=charges, cost=spent, outcome=outcome if last else None)
        )
        yield spent


if __name__ == "__main__":
    main(int(sys.argv[1]))
