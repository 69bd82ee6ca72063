"""Telling a chat of what waits for approval. ``settings.APPROVAL_CHANNELS`` names it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace

from django.conf import settings

from llmops.approvals.models import Request
from llmops.approvals.telling import NotReached, in_words
from llmops.core.digests import canonical_json
from llmops.tools.executors.webhook import post, url_problem

_TIMEOUT_S = 10.0


def by_webhook(rows: Sequence[Request]) -> None:
    """A message with links to ``settings.APPROVALS_WEBHOOK``, as Slack's incoming webhooks take it. Raises ``NotReached``."""
    url, private = settings.APPROVALS_WEBHOOK, settings.APPROVALS_WEBHOOK_PRIVATE
    if not url:
        return
    if problem := url_problem(url, allow_private=private):
        raise NotReached(f"CONSOLE_APPROVALS_WEBHOOK: {problem}")
    # What models write is data: none of Slack's mark-up, mentions or links.
    text = in_words(rows).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    progress = SimpleNamespace(connected=False)
    headers = {
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "llmops-console",
    }
    body = canonical_json({"text": text})
    try:
        status, _, _ = asyncio.run(post(url, body, headers, _TIMEOUT_S, private, progress))
    except Exception as error:
        if progress.connected:
            raise
        raise NotReached(type(error).__name__) from error
    if status >= 300:
        raise NotReached(f"it answered {status}")
