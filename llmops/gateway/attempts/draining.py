"""What is still done on credentials that are being taken out of use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmops.gateway.parts import UnderWay
    from llmops.serving.snapshot import Snapshot


def uses_of_draining(
    snapshot: Snapshot, under_way: Iterable[UnderWay], in_background: Iterable[str]
) -> dict[str, tuple[int, int]]:
    """Id of each draining credential -> (calls, responses in the background). ``in_background``: of each such response, its
    credential.

    A call that has tried none yet may take any that its snapshot has in use.
    """
    served = snapshot.live.credentials
    draining = {
        entry.id: provider for provider, entries in served.items() for entry in entries if entry.draining
    }
    if not draining:
        return {}
    calls, background = dict.fromkeys(draining, 0), dict.fromkeys(draining, 0)
    for call in under_way:
        if call.attempts:
            if call.attempts[-1].credential in calls:
                calls[call.attempts[-1].credential] += 1
            continue
        then = call.view.snapshot.live.credentials
        if then is served:
            continue
        for credential, provider in draining.items():
            if any(one.id == credential and not one.draining for one in then.get(provider, ())):
                calls[credential] += 1
    for credential in in_background:
        if credential in background:
            background[credential] += 1
    return {one: (calls[one], background[one]) for one in draining}
