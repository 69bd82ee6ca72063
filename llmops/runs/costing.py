"""What a run has cost: what the data plane settled for its calls, failed attempts and what policies asked moderation models included.

The ledger has it once a call is booked, which is a moment after its end, and knows what nobody told the run: a call whose answer was
lost with a worker, what a person corrected since. Until then what the data plane told with its answers stands in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from llmops.access.models import ServiceKey
from llmops.runs.models import Run, Step
from llmops.usage.models import Call
from llmops.usage.records import Tokens, judged_id

#: Clocks of data planes and of the database are not that far apart.
_APART = timedelta(hours=1)
#: Keys under which one turn is asked for (``conversation.AGAIN``).
_KEYS_A_TURN = 2


def key_of(run_id: UUID, turn: int, again: int) -> str:
    """Under which a turn is asked for: its ``Idempotency-Key`` and request id."""
    return f"run-{run_id}-{turn}" + (f"-{again}" if again else "")


@dataclass(slots=True)
class TurnCost:
    """Nanodollars by call: as told with answers (all that was asked for the call included), as booked, and what policies asked.

    ``untold``: the ledger has a call that was made, and of which nobody told the run.
    """

    told: dict[UUID, int] = field(default_factory=dict)
    booked: dict[UUID, int] = field(default_factory=dict)
    judged: int = 0
    untold: bool = False

    @property
    def nano(self) -> int:
        """In the moment in which the ledger has what policies asked and not the call yet, what they asked counts twice: never too little."""
        told = sum(cost for call, cost in self.told.items() if call not in self.booked)
        return told + sum(self.booked.values()) + self.judged


def costs_by_turn(runs: Sequence[Run]) -> dict[UUID, dict[int, TurnCost]]:
    """Of each run, by turn."""
    found: dict[UUID, dict[int, TurnCost]] = {run.pk: defaultdict(TurnCost) for run in runs}
    told = Step.objects.filter(run__in=found, cost_nano__isnull=False).order_by("n")
    for step in told.only("run_id", "turn", "call_id", "cost_nano"):
        known = found[step.run_id][step.turn].told
        known[step.call_id or step.pk] = known.get(step.call_id or step.pk, 0) + (step.cost_nano or 0)
    for run, turn, judges, call in _booked(runs):
        of_turn = found[run.pk][turn]
        if judges:
            of_turn.judged += call.cost_nano
            continue
        of_turn.booked[call.pk] = call.cost_nano
        made = call.cost_nano or call.status not in (Call.ERROR, Call.REFUSED)
        of_turn.untold = of_turn.untold or (bool(made) and call.pk not in of_turn.told)
    return found


def costs_of(runs: Sequence[Run]) -> dict[UUID, int]:
    return {run_id: total(turns.values()) for run_id, turns in costs_by_turn(runs).items()}


def cost_of(run: Run) -> int:
    return costs_of([run])[run.pk]


def total(turns: Iterable[TurnCost]) -> int:
    return sum(turn.nano for turn in turns)


def _booked(runs: Sequence[Run]) -> Iterator[tuple[Run, int, bool, Call]]:
    """Calls that the ledger has of these runs, each with its run, its turn, and whether a policy asked."""
    asked: dict[str, tuple[Run, int, bool]] = {}
    for run in runs:
        for turn in range(1, run.turns + 2):
            for again in range(_KEYS_A_TURN):
                key = key_of(run.pk, turn, again)
                asked[key] = run, turn, False
                asked[judged_id(key)] = run, turn, True
    if not asked:
        return
    since = min(run.created_at for run in runs) - _APART
    rows = Call.objects.filter(request_id__in=list(asked), started_at__gte=since).order_by()
    if all(run.finished_at is not None for run in runs):
        rows = rows.filter(started_at__lte=max(run.finished_at for run in runs if run.finished_at) + _APART)
    held: set[UUID] | None = None
    for call in rows.only("request_id", "project_id", "key_id", "cost_nano", "status"):
        run, turn, judges = asked[call.request_id]
        if run.requested_by_kind == "service_key":
            own = str(call.key_id) == run.requested_by_id
        else:
            if held is None:
                keys = ServiceKey.objects.filter(
                    held_by_console=True, project__in={one.project_id for one in runs}
                )
                held = set(keys.values_list("pk", flat=True))
            own = call.key_id in held
        # A request id is a text that every service can write.
        if own and call.project_id == run.project_id:
            yield run, turn, judges, call


def tokens_of(usage: Mapping[str, Any]) -> Tokens:
    inside, outside = _object(usage, "prompt_tokens_details"), _object(usage, "completion_tokens_details")
    return Tokens(
        input=_count(usage, "prompt_tokens"),
        cached=_count(inside, "cached_tokens"),
        cache_write=_count(inside, "cache_write_tokens"),
        output=_count(usage, "completion_tokens"),
        reasoning=_count(outside, "reasoning_tokens"),
    )


def _object(usage: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = usage.get(name)
    return found if isinstance(found, Mapping) else {}


def _count(usage: Mapping[str, Any], name: str) -> int:
    found = usage.get(name)
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else 0
