"""An e-mail to the channel's addresses."""

from __future__ import annotations

from collections.abc import Sequence

from django.core.mail import EmailMessage

from llmops.alerts.channels.base import Kind, Message
from llmops.alerts.models import Channel


def _send(channel: Channel, messages: Sequence[Message]) -> None:
    subject = (
        messages[0].headline if len(messages) == 1 else f"{len(messages)} alerts: {messages[0].headline}"
    )
    body = "\n\n".join("\n".join(message.lines()) for message in messages)
    headers = {"Auto-Submitted": "auto-generated", "X-LLMOps-Incident": messages[0].incident}
    EmailMessage(
        " ".join(subject.split())[:180], body + "\n", None, list(channel.addresses), headers=headers
    ).send()  # fmt: skip


KIND = Kind("mail", "E-mail", _send, together=True)
