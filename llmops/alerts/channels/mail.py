"""An e-mail to the channel's addresses. The same notifications have the same ``Message-ID`` however often they are sent."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from django.conf import settings
from django.core.mail import EmailMessage

from llmops.alerts.channels.base import Kind, Message
from llmops.alerts.models import Channel
from llmops.core.digests import sha256_hex


def _send(channel: Channel, messages: Sequence[Message]) -> None:
    subject = (
        messages[0].headline if len(messages) == 1 else f"{len(messages)} alerts: {messages[0].headline}"
    )
    body = "\n\n".join("\n".join(message.lines()) for message in messages)
    told = sha256_hex("\n".join(sorted(message.id for message in messages)).encode())[:32]
    headers = {
        "Auto-Submitted": "auto-generated",
        "X-LLMOps-Incident": messages[0].incident,
        "Message-ID": f"<{told}@{urlsplit(settings.PUBLIC_URL).hostname or 'localhost'}>",
    }
    EmailMessage(
        " ".join(subject.split())[:180], body + "\n", None, list(channel.addresses), headers=headers
    ).send()  # fmt: skip


KIND = Kind("mail", "E-mail", _send, together=True)
