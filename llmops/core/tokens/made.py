"""What making images and sound, and hearing it, costs at most in tokens: bounds to hold money by, not figures to bill by."""

from __future__ import annotations

import math
import re

# Output tokens of an image by its size and quality: OpenAI's guide "Image generation", section "Cost and latency"
# (platform.openai.com/docs/guides/image-generation), read 2025-12. gpt-image-1, -1-mini and -1.5 share the table.
_FIRST_GENERATION = {
    "1024x1024": (272, 1056, 4160),
    "1024x1536": (408, 1584, 6240),
    "1536x1024": (400, 1568, 6208),
}
_QUALITIES = ("low", "medium", "high")
# gpt-image-2 has no published formula. Its calculator gives 7,024 tokens for 1024x1024 in high quality and fewer for
# each pixel of a larger image (12,329 for 3584x2048), read 2026-05; tokens in proportion to the pixels, and never fewer
# than for that square, are more than either.
_SECOND_GENERATION_SQUARE = 7_024
_LARGEST_PIXELS = 3840 * 2160
_FIRST = re.compile(r"(?:gpt-image-1|sim-image)(?![.\d])|gpt-image-1\.5")
_SECOND = re.compile(r"gpt-image-2(?![.\d])")
_SIZE = re.compile(r"([1-9]\d{1,4})x([1-9]\d{1,4})")
#: Each partial image of a stream: the same guide, section "Streaming".
PARTIAL_IMAGE = 100
#: An image that is edited or referred to: 65 + 129 for each of at most 4 tiles at low fidelity, and up to 6,240 more at high
#: fidelity (guide "Images and vision", section "GPT Image 1").
INPUT_IMAGE = 65 + 4 * 129 + 6_240

# Spoken audio: gpt-4o-mini-tts is priced at 12 USD per million tokens and said to cost 0.015 USD a minute (model page, read
# 2025-12), which makes 21 tokens a second.
_SPOKEN_PER_SECOND = 21
# People speak about 15 letters a second, and about 4 characters where a character is a syllable or a digit is a word; a
# second for each character is more than any voice that was told to go slowly takes, and silence before and after is in the
# flat part.
_SPOKEN_PER_CHARACTER = 21
_SPOKEN_AT_LEAST = 210
# The fewest bytes that a second takes in a format: uncompressed 24 kHz, 16 bit; otherwise the lowest bit rate in use.
_BYTES_PER_SECOND = {"pcm": 48_000, "wav": 48_000, "flac": 12_000, "mp3": 4_000, "aac": 4_000, "opus": 1_500}

# Heard audio: what is said takes no accepted format less than Opus at its lowest, 6 kbit/s (RFC 6716, section 2.1.1).
# Silence may take less: how long a sound says that it is counts as well where it is known.
_LEAST_BYTES_PER_SECOND = 750
# One token for each 100 ms (guide "Managing costs", realtime audio), doubled because that of transcription is not published.
_HEARD_PER_SECOND = 20
# Nobody says more than 25 tokens in a second: fast speech is 6 words, and a word of a rare script takes up to 4.
_WRITTEN_PER_SECOND = 25
_WRITTEN_AT_LEAST = 64


def image_tokens(model: str, size: str, quality: str) -> int | None:
    """The most output tokens that one image of ``model`` takes; None when nothing published bounds them.

    ``size`` and ``quality`` as in the request; empty and ``auto`` are what the provider chooses.
    """
    bare = model.rpartition("/")[2]
    if _FIRST.match(bare):
        column = _QUALITIES.index(quality) if quality in _QUALITIES else 2
        if quality not in ("", "auto", "standard", "hd", *_QUALITIES):
            return None
        known = _FIRST_GENERATION.get(size)
        if known is not None:
            return known[column]
        return max(row[column] for row in _FIRST_GENERATION.values())
    if _SECOND.match(bare):
        if quality not in ("", "auto", *_QUALITIES):
            return None
        match = _SIZE.fullmatch(size)
        pixels = int(match[1]) * int(match[2]) if match else _LARGEST_PIXELS
        return max(_SECOND_GENERATION_SQUARE, math.ceil(_SECOND_GENERATION_SQUARE * pixels / 1024**2))
    return None


def spoken_tokens(characters: int, speed: float = 1.0) -> int:
    """The most audio tokens that speaking so many characters takes."""
    return math.ceil((_SPOKEN_AT_LEAST + _SPOKEN_PER_CHARACTER * characters) / min(1.0, max(speed, 0.25)))


def spoken_tokens_of(size: int, audio_format: str) -> int:
    """About how many audio tokens ``size`` bytes of sound were, rather more than fewer."""
    seconds = size / _BYTES_PER_SECOND.get(audio_format, min(_BYTES_PER_SECOND.values()))
    return math.ceil(_SPOKEN_PER_SECOND * seconds)


def seconds_of(size: int) -> int:
    """The most seconds of sound that ``size`` bytes can hold."""
    return math.ceil(size / _LEAST_BYTES_PER_SECOND)


def heard_tokens(seconds: int) -> int:
    """The most input tokens that so many seconds of sound are."""
    return _HEARD_PER_SECOND * seconds


def written_tokens(seconds: int) -> int:
    """The most output tokens that a transcript of so many seconds takes."""
    return _WRITTEN_AT_LEAST + _WRITTEN_PER_SECOND * seconds
