"""What images, sounds and files in messages cost at most: their tokens have nothing to do with their bytes in JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

# OpenAI's guide "Images and vision", section "Calculating costs" (platform.openai.com/docs/guides/images-vision).
# Tiles: the image is fitted into 2048 x 2048 and then to a shortest side of 768, so at most 2048 x 768 = 8 tiles of
# 512 x 512; cost = base + 8 * per tile, or the base alone with detail "low". (base, per tile)
_MAX_TILES = 8
_TILED = (
    (re.compile(r"gpt-4o-mini"), (2833, 5667)),
    (re.compile(r"gpt-4o|gpt-4\.1(?!-mini|-nano)|gpt-4\.5|gpt-4-turbo|chatgpt-4o|sim-"), (85, 170)),
    (re.compile(r"gpt-5(?!-mini|-nano|\.)"), (70, 140)),
    (re.compile(r"o1(?!-mini)|o3(?!-mini)"), (75, 150)),
    (re.compile(r"computer-use-preview"), (65, 129)),
)
# Patches of 32 x 32, at most 1,536 of them, times a factor; detail does not matter.
_MAX_PATCHES = 1536
_PATCHED = (
    (re.compile(r"gpt-4\.1-mini|gpt-5-mini"), 1.62),
    (re.compile(r"gpt-4\.1-nano|gpt-5-nano"), 2.46),
    (re.compile(r"o4-mini"), 1.72),
)
# No published formula of this kind goes higher than gpt-4o-mini's, so an unknown model is bounded by it.
_UNKNOWN = (2833, 5667)

# Input audio is billed at one token for each 100 ms; no codec in use spends fewer than 8 kbit/s = 100 bytes on those.
_BYTES_PER_AUDIO_TOKEN = 100


def media_upper_bound(messages: Iterable[Mapping[str, Any]], model: str) -> int | None:
    """The tokens that non-text parts of ``messages`` cost at most, on top of ``upper_bound`` of the body's bytes.

    0 when there are none. ``None`` when nothing but the model's context window bounds them: a file part's pages are
    not in the request. Accepts chat's parts (``image_url``, ``input_audio``, ``file``) and those of the responses
    API (``input_image``, ``input_audio``, ``input_file``).
    """
    total = 0
    for part in content_parts(messages):
        tokens = part_upper_bound(part, model)
        if tokens is None:
            return None
        total += tokens
    return total


def content_parts(messages: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for message in messages:
        content = message.get("content")
        if isinstance(content, list):
            yield from (part for part in content if isinstance(part, Mapping))


def part_upper_bound(part: Mapping[str, Any], model: str) -> int | None:
    kind = part.get("type")
    if kind in ("image_url", "input_image"):
        return _image(_detail(part), model)
    if kind == "input_audio":
        sound = part.get("input_audio")
        data = sound.get("data") if isinstance(sound, Mapping) else None
        return math.ceil(len(data) * 3 / 4 / _BYTES_PER_AUDIO_TOKEN) if isinstance(data, str) else None
    if kind in ("file", "input_file"):
        return None
    return 0


def _detail(part: Mapping[str, Any]) -> Any:
    image = part.get("image_url")
    return image.get("detail") if isinstance(image, Mapping) else part.get("detail")


def _image(detail: Any, model: str) -> int:
    bare = model.removeprefix("ft:").rpartition("/")[2].removeprefix("ft:")
    for pattern, factor in _PATCHED:
        if pattern.match(bare):
            return math.ceil(_MAX_PATCHES * factor)
    base, tile = next((costs for pattern, costs in _TILED if pattern.match(bare)), _UNKNOWN)
    return base if detail == "low" else base + _MAX_TILES * tile
