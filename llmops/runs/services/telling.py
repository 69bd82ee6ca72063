"""Telling a service that its run is over: a signed request, sent again with ever more time between until it is taken.

Signed as those of tools are (``tools.executors.webhook``): ``webhook-id`` is the run's id and the same each time, so that whoever
gets it twice knows. It carries no text of the run: who needs the answer asks for it, with a key.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from django.conf import settings

from llmops.base.clock import database_now
from llmops.base.tasks import send
from llmops.core.digests import canonical_json
from llmops.runs.costing import cost_of
from llmops.runs.models import Run
from llmops.runs.sealed import asked_identity, opened

TELL = "runs.tell"
_TIMEOUT_S = 15.0
#: Seconds between one try and the next; after the last nobody is told.
AGAIN_AFTER_S = (5, 30, 120, 600, 3_600, 6 * 3_600, 24 * 3_600)
#: A worker that died while it told is followed after so long.
_CLAIMED_FOR = timedelta(seconds=60)


def tell(run_id: UUID) -> str:
    """Send it if it is due and nobody else does; what became of it."""
    now = database_now()
    run = Run.objects.filter(pk=run_id, webhook_state=Run.DUE, webhook_at__lte=now).first()
    if run is None:
        return "nothing to tell"
    mine = Run.objects.filter(pk=run.pk, webhook_state=Run.DUE, webhook_tries=run.webhook_tries)
    tries = run.webhook_tries + 1
    if not mine.update(webhook_tries=tries, webhook_at=now + _CLAIMED_FOR):
        return "somebody else does"
    taken = _sent(run, int(now.timestamp()))
    still = Run.objects.filter(pk=run.pk, webhook_state=Run.DUE, webhook_tries=tries)
    if taken:
        still.update(webhook_state=Run.DELIVERED, webhook_at=database_now())
        return Run.DELIVERED
    if tries > len(AGAIN_AFTER_S):
        still.update(webhook_state=Run.UNDELIVERED, webhook_at=database_now())
        return Run.UNDELIVERED
    still.update(webhook_at=database_now() + timedelta(seconds=AGAIN_AFTER_S[tries - 1]))
    return Run.DUE


def tell_due() -> int:
    """Hand out what is due to be told; how many."""
    due = Run.objects.filter(webhook_state=Run.DUE, webhook_at__lte=database_now()).order_by("webhook_at")
    found = list(due.values_list("pk", flat=True)[:200])
    for pk in found:
        send(TELL, str(pk))
    return len(found)


def body_of(run: Run) -> bytes:
    told: dict[str, Any] = {
        "type": f"run.{run.state}",
        "run": str(run.pk),
        "project": run.project.slug,
        "state": run.state,
        "error": run.error_code or None,
        "turns": run.turns,
        "cost_nano": cost_of(run),
        "finished_at": run.finished_at.isoformat() if run.finished_at else None,
    }
    return canonical_json(told)


def _sent(run: Run, at: int) -> bool:
    # It brings aiohttp, which a process that serves pages does without as a rule.
    from llmops.tools.executors.webhook import post, signature, url_problem

    private = settings.RUN_WEBHOOKS_PRIVATE
    kept = opened(run.sealed, identity=asked_identity(run.pk)) or {}
    secret = str(kept.get("webhook_secret", ""))
    if not secret or url_problem(run.webhook_url, allow_private=private):
        return False
    body = body_of(run)
    headers = {
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "llmops-console",
        "webhook-id": str(run.pk),
        "webhook-timestamp": str(at),
        "webhook-signature": signature(secret, message_id=str(run.pk), timestamp=at, body=body),
    }
    progress = SimpleNamespace(connected=False)
    try:
        status, _, _ = asyncio.run(post(run.webhook_url, body, headers, _TIMEOUT_S, private, progress))
    except Exception:
        return False
    return 200 <= status < 300
