"""Who watches the streams of an endpoint for policies."""

from __future__ import annotations

from collections.abc import Callable

from llmops.gateway.policing.chat_streams import ChatWatcher
from llmops.gateway.policing.image_streams import ImageWatcher
from llmops.gateway.policing.response_streams import ResponsesWatcher
from llmops.gateway.policing.streams import Watcher
from llmops.gateway.policing.transcripts import TranscriptWatcher
from llmops.policies.decisions import Placeholders
from llmops.policies.engine import Guard

_WATCHERS: dict[str, Callable[[Guard, Placeholders], Watcher]] = {
    "chat.completions": ChatWatcher,
    "responses": ResponsesWatcher,
    "audio.transcriptions": TranscriptWatcher,
    "audio.translations": TranscriptWatcher,
    "images.generations": ImageWatcher,
    "images.edits": ImageWatcher,
}


def watcher_of(endpoint: str, guard: Guard, placeholders: Placeholders) -> Watcher | None:
    """Who watches the streams of an endpoint; None for one whose streams have no texts."""
    made = _WATCHERS.get(endpoint)
    return made(guard, placeholders) if made is not None else None
