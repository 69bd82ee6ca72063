"""How many tokens the prompts have that were seen lately."""

from __future__ import annotations

import asyncio
from typing import Any

from llmops.simulator.counting import count_prompt

# Above this many bytes a prompt is counted in a thread, so that other calls go on meanwhile.
_LARGE = 32_768
_KNOWN_PROMPTS = 4_096


class Prompts:
    """The token counts of prompts seen lately; the tokenizer is loaded by the first that needs it."""

    def __init__(self) -> None:
        self._known: dict[bytes, int] = {}
        self._warm = False

    async def count(self, raw: bytes, messages: list[Any], tools: list[Any] | None) -> int:
        found = self._known.get(raw)
        if found is not None:
            return found
        if self._warm and len(raw) <= _LARGE:
            found = count_prompt(messages, tools)
        else:
            found = await asyncio.to_thread(count_prompt, messages, tools)
            self._warm = True
        if len(raw) <= _LARGE:
            if len(self._known) >= _KNOWN_PROMPTS:
                self._known.clear()
            self._known[raw] = found
        return found
