"""How much OpenAI's models take and answer at most, in tokens, as their own pages say (developers.openai.com/api/docs/models).

By the beginning of a name: the longest that fits holds. What is not here is not known, and is asked of whoever adds the model.
"""

from __future__ import annotations

_WINDOWS: dict[str, tuple[int, int]] = {
    "gpt-3.5-turbo": (16_385, 4_096),
    "gpt-4-turbo": (128_000, 4_096),
    "gpt-4o": (128_000, 16_384),
    "gpt-4o-2024-05-13": (128_000, 4_096),
    "gpt-4.1": (1_047_576, 32_768),
    "gpt-5": (400_000, 128_000),
    "gpt-5-chat": (128_000, 16_384),
    "o1": (200_000, 100_000),
    "o3": (200_000, 100_000),
    "o4-mini": (200_000, 100_000),
    "text-embedding-3": (8_191, 0),
    "text-embedding-ada-002": (8_191, 0),
}
#: Names that begin like one above and are something else.
_OTHERS = ("audio", "realtime", "transcribe", "tts", "search", "image", "deep-research", "preview")


def window_of(upstream_model: str) -> tuple[int, int] | tuple[None, None]:
    """Context window and maximum output; (None, None) where they are not known."""
    if any(part in upstream_model for part in _OTHERS):
        return None, None
    fitting = [name for name in _WINDOWS if upstream_model == name or upstream_model.startswith(f"{name}-")]
    return _WINDOWS[max(fitting, key=len)] if fitting else (None, None)
