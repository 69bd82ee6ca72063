"""What a call really cost, where the process could not know: found out and written down by a person."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from llmops.audit.services import record
from llmops.base.locks import lock
from llmops.budgets.services import Charged, correct_soft, correct_windows, lock_windows
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, InvalidRequest, NotFound
from llmops.core.money import MAX_NANO, format_usd
from llmops.usage.ingest import write
from llmops.usage.ingest.batch import Batch
from llmops.usage.ingest.rows import CallRow, Facts
from llmops.usage.models import Call, Correction, Rollup
from llmops.usage.services.journals import ROLLUPS_LOCK

_LONGEST_REASON = 500
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def correct_call(
    actor: Actor, *, call_id: UUID, cost_nano: int, reason: str, expected_nano: int | None = None
) -> Correction:
    """Say what a call of unknown outcome cost in all.

    In one transaction the windows it was charged to, the call itself and its rollups follow, and the correction is kept beside
    them. ``expected_nano`` is the cost that the person was shown: raises ``Conflict`` when it is another by now.
    """
    reason = reason.strip()
    if not reason:
        raise InvalidRequest("reason: say how you know; it goes into the audit trail.", param="reason")
    if len(reason) > _LONGEST_REASON:
        raise InvalidRequest(f"reason: at most {_LONGEST_REASON} characters.", param="reason")
    if (
        isinstance(cost_nano, bool)
        or not isinstance(cost_nano, int)
        or not 0 <= cost_nano <= MAX_NANO // 1000
    ):
        raise InvalidRequest("cost_usd: zero or more, and at most 9.2 million USD.", param="cost_usd")
    with transaction.atomic():
        # As the ingester does: whoever recomputes rollups holds this lock alone.
        lock(ROLLUPS_LOCK, shared=True)
        call = Call.objects.select_for_update(of=("self",)).filter(pk=call_id).first()
        if call is None:
            raise NotFound("There is no such call, or it is past its retention.")
        if not call.charged_at_hold:
            raise Conflict(
                "What this call cost is known from the provider's own figures; only calls that were charged at their hold can "
                "be corrected."
            )
        before = call.cost_nano
        if expected_nano is not None and expected_nano != before:
            raise Conflict(
                f"Somebody corrected this call meanwhile: it stands at ${format_usd(before)}. Reload and look again."
            )
        if cost_nano == before:
            raise InvalidRequest(f"cost_usd: it stands at ${format_usd(before)} already.", param="cost_usd")
        # Rollups before windows, as the ingester has it.
        _add_to_rollups(call, cost_nano - before, 0)
        charges = _follow_charges(call, cost_nano, actor)
        overrun = max([one.get("overrun", 0) for one in charges if "window" in one], default=0)
        if overrun != call.overrun_nano:
            _add_to_rollups(call, 0, overrun - call.overrun_nano)
        made = Correction.objects.create(
            call_id=call.pk,
            call_started_at=call.started_at,
            project_id=call.project_id,
            before_nano=before,
            after_nano=cost_nano,
            charges_before=call.charges,
            charges_after=charges,
            reason=reason,
            by_kind=actor.kind,
            by_id=actor.identifier[:64],
            by_name=actor.name[:200],
        )
        Call.objects.filter(pk=call.pk, started_at=call.started_at).update(
            cost_nano=cost_nano, overrun_nano=overrun, charges=charges
        )
        record(
            actor,
            action="call.corrected",
            object_type="usage.call",
            object_id=call.pk,
            object_name=str(call.pk),
            project_id=call.project_id,
            before={"cost_usd": format_usd(before)},
            after={"cost_usd": format_usd(cost_nano)},
            reason=reason,
        )
    return made


def _follow_charges(call: Call, cost: int, actor: Actor) -> list[dict[str, Any]]:
    hard = {
        one["window"]: Charged(one.get("held", 0), one.get("cost", 0), one.get("overrun", 0))
        for one in call.charges
        if "window" in one
    }
    # Of what a soft budget was charged by earlier attempts nothing is known apart: the difference is the whole call's.
    soft = {UUID(one["budget"]): cost - call.cost_nano for one in call.charges if "budget" in one}
    lock_windows(hard, soft, at=call.started_at)
    beyond = {UUID(one["budget"]): one.get("overrun", 0) for one in call.charges if "budget" in one}
    beyond |= correct_soft(soft, beyond, at=call.started_at, call_id=call.pk)
    now = correct_windows(hard, cost, call_id=call.pk, who=actor.name)
    charges = []
    for one in call.charges:
        if "window" in one and one["window"] in now:
            stands = now[one["window"]]
            charges.append({**one, "cost": stands.cost, "overrun": stands.overrun})
        elif "budget" in one:
            over = beyond[UUID(one["budget"])]
            charged = {**one, "cost": one.get("cost", 0) + cost - call.cost_nano}
            charges.append(charged | ({"overrun": over} if over or "overrun" in one else {}))
        else:
            charges.append(one)
    return charges


def _add_to_rollups(call: Call, cost: int, overrun: int) -> None:
    """As the ingester adds a call, with the difference alone: no call more, and no token."""
    sums = [0] * len(Rollup.SUMS)
    sums[Rollup.SUMS.index("cost_nano")] = cost
    sums[Rollup.SUMS.index("overrun_nano")] = overrun
    seconds = int((call.started_at - _EPOCH).total_seconds())
    difference = Facts(
        minute=seconds - seconds % 60,
        dimensions=(
            call.project_id,
            call.key_id,
            call.endpoint,
            call.route,
            call.model,
            call.feature,
            call.status,
            call.error_code,
        ),
        sums=tuple(sums),
        total_us=None,
        ttft_us=None,
        overhead_us=None,
        user=call.user_digest,
        tags=tuple(dict.fromkeys(tag for tag in call.tags if tag)),
        prompt=(call.prompt_name, call.prompt_version or 0) if call.prompt_name else None,
    )
    batch = Batch(calls=[CallRow((), difference)])
    write.add_rollups(batch.rollups())
    write.add_prompts(batch.prompts())
    # The first two of their sums count calls.
    write.add_attributions({key: [0, 0, *added[2:]] for key, added in batch.attributions().items()})
