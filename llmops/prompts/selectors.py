"""Reading prompts: what each is now, what is live of it, and what a rendering of it would cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.module_loading import import_string

from llmops.access.selectors import may_anywhere, visible
from llmops.core.errors import NotFound
from llmops.core.money import cost_nano
from llmops.core.tokens import encoding_for
from llmops.prompts.content import EMPTY, tokens_of
from llmops.prompts.models import LabelMove, Prompt, PromptVersion
from llmops.prompts.rendering import Rendered
from llmops.providers.models import Model, Route
from llmops.providers.pricing import PriceBook

#: Longer renderings are counted by their bytes, so that a preview never keeps a worker busy.
_COUNTED_CHARS = 200_000
_BYTES_A_TOKEN = 4
#: Where a row has what is live of it, once that was looked up.
_NOTED = "_live_noted"


@dataclass(frozen=True, slots=True)
class LivePrompt:
    """What data planes serve of a prompt: labels with the versions they mean, and every version that can be asked for."""

    revision: int
    labels: Mapping[str, int] = field(default_factory=dict)
    versions: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Cost:
    """What a rendering costs with one model of a route. Amounts in nanodollars, None without a price."""

    model: str
    role: str
    tokens: int
    exact: bool
    window: int
    fits: bool
    input_nano: int | None
    #: with all of the output that is allowed
    most_nano: int | None
    output_tokens: int


def visible_prompts(rows: QuerySet[Prompt], who: Any, permissions: str | list[str]) -> QuerySet[Prompt]:
    """Those of the projects in which ``who`` holds one of ``permissions``, and, to look at, all shared ones."""
    wanted = [permissions] if isinstance(permissions, str) else permissions
    own = visible(rows, who, wanted, project="project")
    if "prompt.view" in wanted and may_anywhere(who, "prompt.view"):
        return (own | rows.filter(project=None)).distinct()
    return own


def live_prompts() -> dict[tuple[str, str], LivePrompt]:
    """By project (empty: shared) and slug. What is live is known above this room: ``settings.LIVE_PROMPTS``."""
    found: dict[tuple[str, str], LivePrompt] = import_string(settings.LIVE_PROMPTS)()
    return found


def live_of(prompt: Prompt) -> LivePrompt | None:
    """What is live of ``prompt``; None for nothing. A page that asks often looks once (``note_live``)."""
    if _NOTED in prompt.__dict__:
        noted: LivePrompt | None = prompt.__dict__[_NOTED]
        return noted
    return live_prompts().get(_key(prompt))


def note_live(prompts: Iterable[Prompt]) -> None:
    """Note on rows that a page was just given what is live of each, so that the page says one thing, and asks once."""
    anew = [prompt for prompt in prompts if _NOTED not in prompt.__dict__]
    live = live_prompts() if anew else {}
    for prompt in anew:
        prompt.__dict__[_NOTED] = live.get(_key(prompt))


def _key(prompt: Prompt) -> tuple[str, str]:
    return (prompt.project.slug if prompt.project else "", prompt.slug)


def content_to_edit(prompt: Prompt) -> dict[str, Any]:
    """The draft, or else what the newest version says, or else nothing."""
    if prompt.draft is not None:
        return {**EMPTY, **prompt.draft}
    return dict(prompt.current.content) if prompt.current else dict(EMPTY)


def version_of(prompt: Prompt, number: int) -> PromptVersion:
    """Raises ``NotFound``."""
    found = prompt.versions.filter(number=number).first()
    if found is None:
        raise NotFound(f"{prompt.slug} has no version {number}.", param="version")
    return found


def moves_of(prompt: Prompt, name: str | None = None) -> list[LabelMove]:
    """Where labels of ``prompt`` pointed, the newest move first."""
    moves = prompt.label_moves.all()
    return list(moves if name is None else moves.filter(name=name))


def costs_of(rendered: Rendered, content: Mapping[str, Any]) -> list[Cost]:
    """A rendering with each model of the version's route, targets first. Empty without a route that is in use."""
    route = (
        Route.objects.filter(slug=content["route"], archived_at=None).first() if content["route"] else None
    )
    if route is None:
        return []
    found = []
    seen: set[str] = set()
    targets = route.targets.select_related("model__current").order_by("fallback", "position", "model__slug")
    now = timezone.now().timestamp()
    for target in targets:
        model = target.model
        if model.slug in seen or model.current is None or model.archived_at is not None:
            continue
        seen.add(model.slug)
        found.append(_cost(model, "fallback" if target.fallback else "target", rendered, content, now))
    return found


def _cost(model: Model, role: str, rendered: Rendered, content: Mapping[str, Any], now: float) -> Cost:
    version = model.current
    assert version is not None
    if len(rendered.system) + len(rendered.user) <= _COUNTED_CHARS:
        tokens = tokens_of(rendered, content["output_schema"], version.upstream_model)
        exact = encoding_for(version.upstream_model).exact and content["output_schema"] is None
    else:
        tokens, exact = len((rendered.system + rendered.user).encode()) // _BYTES_A_TOKEN, False
    output = min(
        content["parameters"].get("max_output_tokens") or version.default_max_output_tokens,
        version.max_output_tokens,
    )
    prices = PriceBook(_Row(price) for price in model.prices.all()).at(now)
    return Cost(
        model=model.slug,
        role=role,
        tokens=tokens,
        exact=exact,
        window=version.context_window,
        fits=tokens + output <= version.context_window,
        input_nano=None if prices is None else cost_nano([(tokens, prices.input)]),
        most_nano=None
        if prices is None
        else cost_nano([(tokens, prices.input), (output, prices.output or 0)]),
        output_tokens=output,
    )


class _Row:
    """A price of the database as price books read them."""

    __slots__ = ("nano_per_million", "since", "token_class")

    def __init__(self, price: Any) -> None:
        self.token_class: str = price.token_class
        self.since = int(price.effective_from.timestamp())
        self.nano_per_million: int = price.nano_per_million
