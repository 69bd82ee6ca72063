"""A signed request to a service of yours, in the form that webhooks of tools have (Standard Webhooks 1.0).

``webhook-id`` is the notification's id and stays the same however often it is sent. Anything but 2xx is tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace

from llmops.alerts.channels.base import Kind, Message, NotTaken
from llmops.alerts.models import Channel
from llmops.alerts.sealed import secret_of
from llmops.core.digests import canonical_json
from llmops.tools.executors.webhook import post, signature, url_problem

TIMEOUT_S = 10.0


def deliver(url: str, body: bytes, headers: dict[str, str], *, allow_private: bool) -> None:
    """Send it once; no redirect is followed, and no address that the network guard refuses is spoken to."""
    if problem := url_problem(url, allow_private=allow_private):
        raise NotTaken(f"Nothing was sent: {problem.replace('on the tool', 'on the channel')}.")
    progress = SimpleNamespace(connected=False)
    sent = {
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "llmops-console",
        **headers,
    }
    status, _, _ = asyncio.run(post(url, body, sent, TIMEOUT_S, allow_private, progress))
    if not 200 <= status < 300:
        raise NotTaken(f"It answered {status}.")


def _send(channel: Channel, messages: Sequence[Message]) -> None:
    secret = secret_of(channel)
    for message in messages:
        body = canonical_json(message.as_json())
        at = int(message.sent_at.timestamp())
        headers = {
            "webhook-id": message.id,
            "webhook-timestamp": str(at),
            "webhook-signature": signature(secret, message_id=message.id, timestamp=at, body=body),
        }
        deliver(channel.url, body, headers, allow_private=channel.allow_private_network)


KIND = Kind("webhook", "Signed webhook", _send, sealing="signs")
