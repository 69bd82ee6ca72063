"""Which encoding a model uses. A name that is not known is counted with the newest one, and said to be an estimate."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class EncodingChoice:
    """``exact`` is False when the model is unknown and the count is therefore an estimate."""

    name: str
    exact: bool


# From tiktoken 0.14 (tiktoken/model.py). gpt-oss has an encoding of its own there that differs from o200k_base in its
# special tokens only, which are counted as plain text here. "sim-" is this product's simulator. The models of the
# p50k and r50k encodings are gone from the API.
_FAMILIES = (
    (
        "o200k_base",
        r"gpt-5(?:\.\d+)?|gpt-4\.1|gpt-4\.5|gpt-4o|chatgpt-4o|o1|o3|o4|gpt-oss|sim",
    ),
    (
        "cl100k_base",
        r"gpt-4|gpt-3\.5|gpt-35|text-embedding-3|text-embedding-ada-002|davinci-002|babbage-002",
    ),
)
_PATTERNS = tuple(
    (name, re.compile(rf"(?:{families})(?:$|[-:@])", re.IGNORECASE)) for name, families in _FAMILIES
)
FALLBACK = EncodingChoice("o200k_base", exact=False)


@lru_cache(maxsize=4096)
def encoding_for(model: str) -> EncodingChoice:
    """The encoding of a model name as providers spell it: ``gpt-4o-2024-08-06``, ``openai/o3``, ``ft:gpt-4.1:org::id``."""
    bare = model.removeprefix("ft:").rpartition("/")[2].removeprefix("ft:")
    for name, pattern in _PATTERNS:
        if pattern.match(bare):
            return EncodingChoice(name, exact=True)
    return FALLBACK
