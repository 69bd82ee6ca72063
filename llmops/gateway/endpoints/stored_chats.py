"""Chat completions that a provider stored (``store: true``): list, read, change, delete. OpenAI API reference, "Chat"."""

from __future__ import annotations

from llmops.gateway.addresses import Handler
from llmops.gateway.forwarding.calls import of_object
from llmops.gateway.kept.listing import of_objects
from llmops.gateway.kept.owners import CHAT
from llmops.gateway.policing.kept import check, check_item

ADDRESSES: dict[str, dict[str, Handler]] = {
    "/v1/chat/completions": {
        "GET": of_objects("chat.completions.list", CHAT, usual=20, most=100, each=check_item)
    },
    "/v1/chat/completions/{completion}": {
        "GET": of_object("chat.completions.retrieve", CHAT, after=check),
        "POST": of_object("chat.completions.update", CHAT, after=check),
        "DELETE": of_object("chat.completions.delete", CHAT, deletes=True),
    },
    "/v1/chat/completions/{completion}/messages": {
        "GET": of_object("chat.completions.messages", CHAT, after=check),
    },
}
