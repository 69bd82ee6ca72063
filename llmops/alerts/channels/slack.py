"""A message to a chat, as Slack's incoming webhooks take it (Mattermost and others as well). Its address is a secret."""

from __future__ import annotations

from collections.abc import Sequence

from llmops.alerts.channels.base import Kind, Message
from llmops.alerts.channels.webhook import deliver
from llmops.alerts.models import Channel
from llmops.alerts.sealed import secret_of
from llmops.core.digests import canonical_json


def _send(channel: Channel, messages: Sequence[Message]) -> None:
    text = "\n\n".join("\n".join(message.lines()) for message in messages)
    # Names in it were given by services and providers: none of them is mark-up, a mention or a link of Slack's.
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    body = canonical_json({"text": text})
    deliver(secret_of(channel), body, {}, allow_private=channel.allow_private_network)


KIND = Kind("slack", "Slack-compatible chat", _send, together=True, sealing="address")
