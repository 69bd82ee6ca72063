"""The models that a provider says it has, and what is known of each: so that one is pinned by choosing it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from llmops.core.errors import UpstreamError
from llmops.core.texts import text_problem
from llmops.providers.catalogue import shipped
from llmops.providers.catalogue.windows import window_of
from llmops.providers.models import Provider
from llmops.providers.rules import looks_floating

#: More models than this are not read: a list of all that a hub has is no list to choose from.
MOST_MODELS = 2_000
_NAME = 120


class ListRefused(UpstreamError):
    """A provider told no list; the message says why, and holds no part of the key or the answer."""

    code = "model_list_refused"


@dataclass(frozen=True, slots=True)
class ListedModel:
    """``floats``: the provider may point the name elsewhere. Prices are nanodollars per million tokens, ``window`` and
    ``output`` tokens; None: not known here."""

    name: str
    floats: bool
    made: datetime | None = None
    window: int | None = None
    output: int | None = None
    input_price: int | None = None
    output_price: int | None = None


def listed_models(provider: Provider, secret: str) -> list[ListedModel]:
    """Asks ``GET /models``. Raises ``ListRefused`` or ``direct.NotAnswered``."""
    # The HTTP client is a fifth of a process's start; hardly any asks a provider.
    from llmops.providers import direct

    reply = direct.ask(provider, secret, "GET", "/models")
    if reply.status != 200:
        raise ListRefused(direct.refusal(provider, reply, "GET", "/models"))
    return parsed(provider, reply.body)


def parsed(provider: Provider, body: bytes) -> list[ListedModel]:
    """OpenAI's ``{"data": [{"id", "created", ...}]}``; some servers say a context window as well. By name."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        told = None
    rows = told.get("data") if isinstance(told, dict) else None
    if not isinstance(rows, list):
        raise ListRefused(f"{provider.slug} answered with something else than a list of models.")
    found: dict[str, ListedModel] = {}
    for row in rows[:MOST_MODELS]:
        name = row.get("id") if isinstance(row, dict) else None
        if (
            isinstance(name, str)
            and 0 < len(name) <= _NAME
            and name == name.strip()
            and not text_problem(name)
        ):
            found.setdefault(name, _listed(provider, name, row))
    return [found[name] for name in sorted(found)]


def _listed(provider: Provider, name: str, row: dict[str, Any]) -> ListedModel:
    window, output = window_of(name) if provider.kind in ("openai", "azure") else (None, None)
    window = _tokens(row, "context_window", "max_model_len", "context_length") or window
    output = _tokens(row, "max_output_tokens", "max_completion_tokens") or output
    prices = shipped()
    of_model = (
        {one.token_class: one.nano_per_million for one in prices.of(name)}
        if provider.kind == prices.provider
        else {}
    )
    return ListedModel(
        name=name,
        floats=looks_floating(provider.kind, name),
        made=_moment(row.get("created")),
        window=window,
        output=output,
        input_price=of_model.get("input"),
        output_price=of_model.get("output"),
    )


def _tokens(row: dict[str, Any], *names: str) -> int | None:
    for name in names:
        value = row.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 100_000_000:
            return value
    return None


def _moment(value: object) -> datetime | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 4e9:
        return None
    return datetime.fromtimestamp(int(value), tz=UTC)
