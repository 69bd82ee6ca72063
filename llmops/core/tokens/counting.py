"""Counting the tokens of a text, and bounding them without counting."""

from __future__ import annotations

import re
from collections.abc import Iterator

from llmops.core.tokens.models import encoding_for
from llmops.core.tokens.ranks import encoding

# tiktoken's splitter is a backtracking one: a run of a million spaces overflows its stack (and panics). In pieces of
# this size no input does, and a piece also bounds the memory of its list of tokens.
_PIECE = 65_536
_WORD_START = re.compile(r"(?<=[A-Za-z]) (?=[A-Za-z])")
_LOOK_BACK = 2_048


def upper_bound(data: bytes | str) -> int:
    """At least as many tokens as any byte-level BPE tokenizer makes of ``data``: its length in UTF-8 bytes.

    Every token of such a tokenizer stands for at least one byte. The bytes of a whole request body in JSON also bound
    what a provider adds around messages and tools (its overhead is smaller than the JSON around them), but not what
    an image, a sound or a file costs: see ``media_upper_bound``.
    """
    return len(data) if isinstance(data, bytes) else len(data.encode("utf-8", "surrogatepass"))


def count_text(text: str, model: str) -> int:
    """The tokens of ``text`` for ``model``; special tokens such as ``<|endoftext|>`` count as the text they are.

    CPU-bound at 2 to 30 MB/s: run it off the event loop when the text is large. Exact, except that a run of more than
    65,536 characters without one space between two Latin letters may be counted a few tokens too high.
    """
    encode = encoding(encoding_for(model).name).encode_ordinary
    if len(text) <= _PIECE:
        return len(encode(text))
    return sum(len(encode(piece)) for piece in _pieces(text))


def truncate_text(text: str, model: str, limit: int) -> str:
    """The longest beginning of ``text`` that was found to cost at most ``limit`` tokens, never half a character."""
    if upper_bound(text) <= limit:
        return text
    if limit <= 0:
        return ""
    chosen = encoding(encoding_for(model).name)
    ids: list[int] = []
    for piece in _pieces(text):
        ids += chosen.encode_ordinary(piece)
        if len(ids) > limit:
            break
    else:
        return text
    # The beginning of a text does not always split as the whole did, so what is kept is counted again.
    for kept in range(limit, 0, -1):
        beginning = chosen.decode_bytes(ids[:kept]).decode("utf-8", "ignore")
        if count_text(beginning, model) <= limit:
            return beginning
    return ""


def _pieces(text: str) -> Iterator[str]:
    """Cut before a space between two letters, where both encodings always begin a new token."""
    start = 0
    while len(text) - start > _PIECE:
        end = start + _PIECE
        for match in _WORD_START.finditer(text, end - _LOOK_BACK, end):
            end = match.start()
        yield text[start:end]
        start = end
    yield text[start:]
