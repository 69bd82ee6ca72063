"""Whether models are for what a call asks: what they declare to be for, where they declare anything (``providers.rules``)."""

from __future__ import annotations

from collections.abc import Sequence

from llmops.core.errors import InvalidRequest
from llmops.gateway.routing import Resolution, Target

CHAT = "chat"
#: What a model is for besides chat; all else that is declared is a manner of chatting.
_OTHERS = frozenset(("embeddings", "images", "speech", "transcription", "moderation", "rerank"))


def suit(targets: Sequence[Target], needed: str) -> bool:
    """Whether any of them may be for ``needed``: one that declares nothing may be for anything."""
    return any(
        not (declared := target.entry.capabilities)
        or needed in declared
        or (needed == CHAT and _OTHERS.isdisjoint(declared))
        for target in targets
    )


def check_suited(resolution: Resolution, needed: str) -> None:
    """Raises ``InvalidRequest`` for a name none of whose models is for ``needed``."""
    targets = (*resolution.targets, *resolution.fallbacks)
    if suit(targets, needed):
        return
    raise InvalidRequest(
        f"The model {resolution.name!r} is not for {needed}: it is for {', '.join(targets[0].entry.capabilities)}.",
        param="model",
        code="model_not_supported",
    )
