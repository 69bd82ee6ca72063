"""Which calls were made to ask again what others had asked."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from llmops.usage.models import Call, Replay

#: A call that is not in the ledger after so long will not come: its process ended, or the data plane never got it.
LATE = timedelta(minutes=20)
_MOST = 20
_BEGINS = "replay-"


@dataclass(frozen=True, slots=True)
class ReplayTold:
    """``call`` is the new call, once it is booked."""

    replay: Replay
    call: Call | None


def replays_of(call_id: UUID) -> list[ReplayTold]:
    """The latest first."""
    return told(list(Replay.objects.filter(of_call=call_id)[:_MOST]))


def told(rows: Collection[Replay]) -> list[ReplayTold]:
    """These with their calls. One query."""
    # A request id is the caller's to choose: only the key that made it tells a replay.
    calls = Call.objects.filter(request_id__in=[one.request for one in rows]) if rows else ()
    found = {(call.request_id, call.key_id): call for call in calls}
    return [ReplayTold(one, found.get((one.request, one.key_id))) for one in rows]


def call_made_by(replay: Replay) -> Call | None:
    return Call.objects.filter(request_id=replay.request, key_id=replay.key_id).first()


def original_of(call: Call) -> Replay | None:
    """The replay that ``call`` is; None for any other call."""
    if not call.request_id.startswith(_BEGINS):
        return None
    try:
        pk = UUID(call.request_id.removeprefix(_BEGINS))
    except ValueError:
        return None
    return Replay.objects.filter(pk=pk, key_id=call.key_id, project_id=call.project_id).first()
