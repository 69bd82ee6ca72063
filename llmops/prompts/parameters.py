"""Parameters that a version sets where a request does not, and how each is called at an address. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmops.core.errors import InvalidRequest
from llmops.core.texts import text_problem

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
VERBOSITIES = ("low", "medium", "high")
#: name -> least and most of a number
_NUMBERS: dict[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
}
_WHOLE = {"max_output_tokens": (1, 10_000_000), "seed": (-(2**53), 2**53)}
_CHOICES = {"reasoning_effort": EFFORTS, "verbosity": VERBOSITIES}
NAMES = (*_NUMBERS, *_WHOLE, *_CHOICES, "stop", "parallel_tool_calls")
#: What ``/v1/responses`` does not take.
CHAT_ONLY = frozenset({"presence_penalty", "frequency_penalty", "seed", "stop"})


def checked_parameters(given: object) -> dict[str, Any]:
    """Raises ``InvalidRequest`` naming ``parameters.temperature``."""
    if not isinstance(given, Mapping):
        raise InvalidRequest("parameters: give an object.", param="parameters")
    return {name: _parameter(name, given[name]) for name in sorted(given, key=str) if given[name] is not None}


def _parameter(name: Any, value: Any) -> Any:
    path = f"parameters.{str(name)[:60]}"

    def wrong(what: str) -> InvalidRequest:
        return InvalidRequest(f"{path}: {what}.", param=path)

    if name in _NUMBERS:
        least, most = _NUMBERS[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise wrong(f"a number from {least:g} to {most:g}")
        return value
    if name in _WHOLE:
        low, high = _WHOLE[name]
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise wrong(f"a whole number from {low:,} to {high:,}")
        return value
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            raise wrong(f"one of {', '.join(_CHOICES[name])}")
        return value
    if name == "parallel_tool_calls":
        if not isinstance(value, bool):
            raise wrong("true or false")
        return value
    if name == "stop":
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not 1 <= len(texts) <= 4:
            raise wrong("one to four texts")
        if any(
            not isinstance(one, str) or not one or len(one) > 200 or text_problem(one, lines=True)
            for one in texts
        ):
            raise wrong("each is a text of 1 to 200 characters")
        return texts
    raise wrong(f"there is no such parameter here. There are {', '.join(NAMES)}")


def for_chat(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Members of a request for ``/v1/chat/completions``."""
    return {
        "max_completion_tokens" if name == "max_output_tokens" else name: value
        for name, value in parameters.items()
    }


def for_responses(parameters: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Members of a request for ``/v1/responses``, and those that stand inside of ``reasoning`` and of ``text``."""
    plain = {
        name: value for name, value in parameters.items() if name not in CHAT_ONLY and name not in _CHOICES
    }
    reasoning = {"effort": parameters["reasoning_effort"]} if "reasoning_effort" in parameters else {}
    text = {"verbosity": parameters["verbosity"]} if "verbosity" in parameters else {}
    return plain, reasoning, text
