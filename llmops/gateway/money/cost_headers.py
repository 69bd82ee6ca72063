"""What a caller says that a call may cost, and what it is told that it did cost, in nanodollars."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmops.serving.snapshot import KeyEntry

BOUND = b"x-llmops-max-cost-nano"
#: Told to who bounds the cost, and to the console's own keys: a run keeps within its bound by that. In a stream a comment before the
#: last event tells it, as nobody knows it when the head goes out.
COST = b"x-llmops-cost-nano"
COST_COMMENT = b": " + COST + b" "


def told(headers: Container[bytes], key: KeyEntry | None) -> bool:
    """Whether whoever asked with these headers and this key is told what the call cost."""
    return BOUND in headers or (key is not None and (key.held or key.through is not None))
