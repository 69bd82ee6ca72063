"""Whether an error says that an input is too long for a context window, and by how much: read out of words."""

from __future__ import annotations

import re

from llmops.gateway.attempts.failures import TOO_LONG
from llmops.gateway.attempts.said import Said

PER_MINUTE = re.compile(r"\bper[- ](minute|hour|day)\b|\bTPM\b|\bRPM\b|rate limit", re.IGNORECASE)
#: As providers word it: OpenAI, Azure, vLLM, SGLang, llama.cpp, Ollama, LM Studio, TGI, Anthropic, Google, Mistral, Cohere,
#: Groq, xAI, Bedrock, OpenRouter, DeepSeek.
_TOO_LONG_WORDS = re.compile(
    r"""(?xis)
    (?:exceed|maximum|longer|larger|greater|too\ (?:long|large|many)|overflow|only|beyond|full)
        .{0,120}? context [\s_-]* (?:length|window|size|limit)
    | context [\s_-]* (?:length|window|size|limit|the\ overflows)
        .{0,120}? (?:exceed|maximum|longer|larger|greater|too\ (?:long|large|many)|overflow|only|\bis\ \d)
    | (?:prompt|inputs?|input\ (?:text|prompt|tokens?|token\ count)|request|messages?)\b .{0,60}?
        (?:\btoo\ long\b | \bis\ longer\ than\b | \btoo\ large\ for\ (?:the\ )?model)
    | (?:prompt\ contains|contains)\ \d+\ tokens .{0,80}? too\ large\ for\ model
    | \btokens?\b .{0,80}? \bexceeds?\b .{0,40}? \b(?:maximum|limit|model|allowed)
    | \bmaximum\ (?:allowed\ )?(?:prompt|model|input|sequence)\ (?:length|size|tokens)
    | \btoo\ many\ (?:input\ |prompt\ )?tokens
    | \breduce\ the\ length\ of\ (?:the\ |your\ )?(?:messages|prompt|input)
    | inputs?`?\ tokens\ \+\ .{0,40}? must\ be\ <=
    | inputs?`?\ must\ have\ less\ than\ \d+\ tokens
    """
)
#: about the answer's length, which another cap mends
_ABOUT_OUTPUT = re.compile(
    r"(max_(?:completion_|output_|new_)?tokens)\b.{0,60}?(at most|must be|maximum)", re.IGNORECASE
)
_TOO_LONG_CODES = frozenset(
    (TOO_LONG, "context_window_exceeded", "exceed_context_size_error", "string_above_max_tokens")
)


def is_too_long(status: int, said: Said) -> bool:
    """Whether an error says that the input does not fit into the model's context window, whatever its words."""
    if said.code in _TOO_LONG_CODES or said.type in _TOO_LONG_CODES:
        return True
    # Some servers answer 500 for what the caller sent.
    if status not in (400, 413, 422, 500) or not said.message or PER_MINUTE.search(said.message):
        return False
    if _TOO_LONG_WORDS.search(said.message) is None:
        return False
    return (
        _ABOUT_OUTPUT.search(said.message) is None
        or "context" in said.message.lower()
        or "inputs" in said.message
    )


_LIMIT = re.compile(
    r"""(?xis)
    (?:context[\s_-]*(?:length|window|size)|maximum|limit|at\ most|less\ than|only|<=|>|allowed|n_ctx|model\ with|context\ size\ of)
    \D{0,60}? (\d[\d,]{1,11})
    """
)
_NUMBER = re.compile(r"\d[\d,]{1,11}")


def excess_told(words: str) -> int | None:
    """By how many tokens an input is too long, where a refusal tells it; None when its figures do not.

    Such messages name a limit and a larger number that was asked for ("maximum context length is 8192 tokens. However, you
    requested 9000 tokens (8000 in the messages, 1000 in the completion)").
    """
    numbers = [int(text.replace(",", "")) for text in _NUMBER.findall(words)]
    limits = [int(text.replace(",", "")) for text in _LIMIT.findall(words)]
    for limit in limits:
        above = [number for number in numbers if number > limit]
        if above and max(above) < 100 * limit:
            return max(above) - limit
    return None
