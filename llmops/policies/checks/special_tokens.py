"""Control tokens of chat templates written as text: a model may take them for the end of what it was told to trust."""

from __future__ import annotations

from typing import Any

from llmops.policies.checks.base import FINDS_PLACES, Span, TextCheck, TextSettings
from llmops.policies.patterns import Pattern

#: ChatML and Llama 3 (<|im_start|>), Llama 2 ([INST], <<SYS>>, <s>), Gemma (<start_of_turn>), DeepSeek (full-width bars).
_TOKENS = (
    r"<\|[A-Za-z0-9_]{1,40}\|>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>"
    r"|<｜[A-Za-z0-9_▁ ]{1,40}｜>"
)


class SpecialTokens(TextCheck):
    kind = "special_tokens"
    title = "Special tokens"
    summary = (
        "Finds control tokens such as <|im_start|> or [INST] written as text. Redacted, they lose their power but can "
        "still be read."
    )
    actions = FINDS_PLACES
    settings_type = TextSettings

    def __init__(self, settings: Any, stage: str, action: str) -> None:
        super().__init__(settings, stage, action)
        self._pattern = Pattern(_TOKENS)
        self.hint, self.opening = self._pattern.wide, self._pattern.wide_opening

    def spans(self, data: bytes, start: int = 0) -> list[Span]:
        return [
            Span(match.start(), match.end(), "special token") for match in self._pattern.matches(data, start)
        ]

    def open_at(self, data: bytes, start: int = 0) -> int:
        return self._pattern.open_at(data, start)

    def mask(self, data: bytes, span: Span) -> str:
        text = data[span.start : span.end].decode()
        return f"{text[0]} {text[1:]}"
