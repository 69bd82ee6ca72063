"""How the simulator counts tokens: with the tokenizer's ranks, or by its splitter alone, without their 45 MB."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from llmops.core.tokens import count_chat, count_text, truncate_text

MODEL = "sim-small"
# The splitter of o200k_base, except that capitals inside of a word do not begin a piece. Each piece is a token or more.
_PIECE = re.compile(
    r"(?:[^\w\r\n]|_)?[^\W\d_]+(?:'(?i:s|t|re|ve|m|ll|d))?"
    r"|\d{1,3}"
    r"| ?(?:[^\s\w]|_)+[\r\n/]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_estimating = False


def estimate() -> None:
    """From now on count pieces: right for plain English, too few for rare words, code and other scripts. Hardly ever more
    than there are, so that a provider that counts so charges no more than a gateway that counts exactly has held."""
    global _estimating
    _estimating = True
    counted.cache_clear()


def pieces(shown: str) -> int:
    return sum(1 for _ in _PIECE.finditer(shown))


@lru_cache(maxsize=4096)
def counted(shown: str) -> int:
    return pieces(shown) if _estimating else count_text(shown, MODEL)


def count_prompt(messages: list[Any], tools: list[Any] | None) -> int:
    given = (one for one in messages if isinstance(one, Mapping))
    return count_chat(given, MODEL, tools, count=pieces if _estimating else None)


def truncated(shown: str, limit: int) -> str:
    """The beginning of ``shown`` that has at most ``limit`` tokens."""
    if not _estimating:
        return truncate_text(shown, MODEL, limit)
    end = 0
    for number, piece in enumerate(_PIECE.finditer(shown)):
        if number >= limit:
            break
        end = piece.end()
    return shown[:end]
