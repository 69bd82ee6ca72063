"""Asking again what a call had asked: the request, and what it will cost. Pure.

The new request is the kept one with another model or another version of its prompt. Nothing is carried out for it: tools that a
provider would run itself are left out, those of the caller are only named by the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmops.core.errors import Conflict, InvalidRequest
from llmops.providers.pricing import PriceBook
from llmops.serving.snapshot import ModelEntry, RevisionDocument
from llmops.usage.records import Tokens

#: Where calls of an endpoint are sent.
PATHS = {"chat.completions": "/chat/completions", "responses": "/responses"}
#: What only the provider that answered first could go on from.
_ELSEWHERE = ("previous_response_id", "conversation")
#: Tools that whoever asks carries out; a provider runs all others itself.
_CALLERS_OWN = ("function", "custom")
_CAPS = ("max_completion_tokens", "max_tokens", "max_output_tokens")


@dataclass(frozen=True)
class Again:
    """``left_out``: what of the request is not asked again, in words."""

    path: str
    body: dict[str, Any]
    left_out: tuple[str, ...] = ()


def why_not(endpoint: str, request: Mapping[str, Any] | None) -> str:
    """Why a kept request cannot be asked again; empty when it can."""
    if endpoint not in PATHS:
        return "Only chat completions and responses are asked again."
    if request is None:
        return "The request is not kept whole: it was too long. What is left of it would be another question."
    for name in _ELSEWHERE:
        if request.get(name) is not None:
            return "The request goes on from what its provider keeps, which cannot be asked again."
    return ""


def request_again(
    endpoint: str, request: Mapping[str, Any] | None, *, model: str, version: int | None, streamed: bool
) -> Again:
    """Raises ``Conflict`` for a request that cannot be asked again, ``InvalidRequest`` naming what was chosen wrongly."""
    if problem := why_not(endpoint, request):
        raise Conflict(problem, code="not_replayable")
    assert request is not None
    body = {name: value for name, value in request.items() if value is not None}
    left_out = []
    if version is not None:
        prompt = body.get("prompt")
        if not isinstance(prompt, Mapping):
            raise InvalidRequest(
                "version: the variables of the prompt are not kept, because a policy took something out of them.",
                param="version",
            )
        body["prompt"] = {**prompt, "version": version}
    if isinstance(tools := body.get("tools"), list):
        own = [one for one in tools if isinstance(one, Mapping) and one.get("type") in _CALLERS_OWN]
        if len(own) < len(tools):
            left_out.append("tools that the provider would run itself")
            choice = body.get("tool_choice")
            if not own or not (
                isinstance(choice, str)
                or (isinstance(choice, Mapping) and choice.get("type") in _CALLERS_OWN)
            ):
                body.pop("tool_choice", None)
        if own:
            body["tools"] = own
        else:
            body.pop("tools")
    if body.pop("web_search_options", None) is not None:
        left_out.append("the search of the web")
    body["model"] = model
    if streamed:
        body["stream"] = True
        if endpoint == "chat.completions":
            body["stream_options"] = {"include_usage": True}
    if endpoint == "responses":
        # The provider keeps nothing of it.
        body["store"] = False
    return Again(PATHS[endpoint], body, tuple(left_out))


@dataclass(frozen=True, slots=True)
class Estimate:
    """In nanodollars. ``least`` and ``most`` are for an answer as long as the first one, by the cheapest and the dearest target;
    ``bound`` for the longest one that the request allows. None without a price."""

    least: int | None
    most: int | None
    bound: int | None


def estimated(
    document: RevisionDocument,
    name: str,
    *,
    request: Mapping[str, Any],
    input_tokens: int,
    output_tokens: int,
    at: float,
) -> Estimate:
    """What the same tokens cost at today's prices of the route or model ``name``; ``at`` in Unix seconds."""
    models = {one.slug: one for one in document.models}
    route = next((one for one in document.routes if one.slug == name), None)
    slugs = [target.model for target in route.targets] if route is not None else [name]
    entries = [models[slug] for slug in slugs if slug in models]
    if not entries:
        return Estimate(None, None, None)
    same = [_cost(entry, input_tokens, output_tokens, at) for entry in entries]
    bounds = [_cost(entry, input_tokens, max(_cap(entry, request), output_tokens), at) for entry in entries]
    known = [one for one in same if one is not None]
    if len(known) < len(same):
        return Estimate(None, None, None)
    return Estimate(min(known), max(known), max(one for one in bounds if one is not None))


def _cap(entry: ModelEntry, request: Mapping[str, Any]) -> int:
    given = [request[name] for name in _CAPS if isinstance(request.get(name), int)]
    return min(int(given[0]), entry.max_output_tokens) if given else entry.default_max_output_tokens


def _cost(entry: ModelEntry, input_tokens: int, output_tokens: int, at: float) -> int | None:
    prices = PriceBook(entry.prices).at(at)
    return prices.cost(Tokens(input=input_tokens, output=output_tokens)) if prices is not None else None
