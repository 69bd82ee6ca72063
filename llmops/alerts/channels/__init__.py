"""The kinds of channels there are: a file, a line here and a test each."""

from __future__ import annotations

from functools import cache

from django.utils.module_loading import import_string

from llmops.alerts.channels.base import Kind, Message, NotTaken
from llmops.core.errors import InvalidRequest

__all__ = ["CHANNELS", "Kind", "Message", "NotTaken", "channel_named"]

CHANNELS: dict[str, str] = {
    "mail": "llmops.alerts.channels.mail.KIND",
    "webhook": "llmops.alerts.channels.webhook.KIND",
    "slack": "llmops.alerts.channels.slack.KIND",
}


@cache
def channel_named(name: str) -> Kind:
    """Raises ``InvalidRequest`` for a name that is none."""
    if name not in CHANNELS:
        raise InvalidRequest(
            f"kind: there is no channel {name!r}. There are {', '.join(CHANNELS)}.", param="kind"
        )
    found: Kind = import_string(CHANNELS[name])
    return found
