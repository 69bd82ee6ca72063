"""A route as it stands in the editor: texts, whether they make sense or not, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from django.core.validators import MaxValueValidator, MinValueValidator
from django.http import QueryDict

from llmops.core.errors import InvalidRequest
from llmops.core.texts import text_problem
from llmops.providers.models import Model, Route, RouteTarget
from llmops.providers.rules import FAILURE_CLASSES
from llmops.providers.services.routes import FIELDS, MODEL_FIELDS
from llmops.serving.snapshot import RouteEntry, TargetEntry

#: More rows of a kind than this are not read.
MOST_ROWS = 60
#: Characters of a weight that are read; whatever has so many is too large.
LONGEST_WEIGHT = 12
CHOICES = ("context_strategy", "last_resort")
FLAGS = ("cache_tools", "clamp_output")
TEXTS = ("description", "static_answer")
#: Fields that are numbers; those in milliseconds are typed in seconds.
NUMBERS = tuple(name for name in FIELDS if name not in (*CHOICES, *FLAGS, *TEXTS, *MODEL_FIELDS, "policies"))
CLASSES = tuple(name for name, _ in FAILURE_CLASSES)

#: (model, weight as typed)
Target = tuple[str, str]


@dataclass(slots=True)
class Typed:
    """``texts`` hold what stands in each field of ``FIELDS`` but the flags; ``flags`` those that are on."""

    slug: str = ""
    texts: dict[str, str] = field(default_factory=dict)
    flags: frozenset[str] = frozenset()
    targets: list[Target] = field(default_factory=list)
    fallbacks: list[str] = field(default_factory=list)
    by_class: dict[str, list[str]] = field(default_factory=dict)
    policies: list[str] = field(default_factory=list)


def of_route(route: Route) -> Typed:
    """A route as it is stored (or a new one, unsaved, with what holds by default)."""
    texts = {name: _shown(route, name) for name in NUMBERS}
    texts |= {name: getattr(route, name) for name in (*TEXTS, *CHOICES)}
    for name in MODEL_FIELDS:
        chosen = getattr(route, name)
        texts[name] = chosen.slug if chosen else ""
    rows: list[RouteTarget] = (
        [] if route._state.adding else list(route.targets.select_related("model").order_by("position", "id"))
    )
    by_class: dict[str, list[str]] = {}
    for row in rows:
        if row.fallback:
            by_class.setdefault(row.failure_class, []).append(row.model.slug)
    return Typed(
        slug=route.slug,
        texts=texts,
        flags=frozenset(name for name in FLAGS if getattr(route, name)),
        targets=[(row.model.slug, str(row.weight)) for row in rows if not row.fallback],
        fallbacks=by_class.pop("", []),
        by_class=by_class,
        policies=list(route.policies),
    )


def of_form(data: QueryDict, *, slug: str = "") -> Typed:
    """What was sent. Rows in which nothing is chosen are none."""

    def named(text: str) -> str:
        # PostgreSQL takes no NUL, not even to say that nothing is called so.
        return text.replace("\0", "\ufffd")

    def rows(name: str, longest: int = 200) -> list[str]:
        return [named(one[:longest]) for one in data.getlist(name)[:MOST_ROWS]]

    def chosen(name: str) -> list[str]:
        return [one for one in rows(name) if one]

    models, weights = rows("targets-model"), rows("targets-weight", LONGEST_WEIGHT)
    weights += [""] * (len(models) - len(weights))
    texts = {name: data.get(name, "").strip() for name in (*NUMBERS, *CHOICES, "description")}
    texts |= {name: named(data.get(name, "").strip()) for name in MODEL_FIELDS}
    return Typed(
        slug=slug or named(data.get("slug", "").strip()),
        texts=texts | {"static_answer": data.get("static_answer", "").replace("\r\n", "\n")},
        flags=frozenset(name for name in FLAGS if data.get(name)),
        targets=[(model, weight) for model, weight in zip(models, weights, strict=False) if model],
        fallbacks=chosen("fallbacks-model"),
        by_class={name: found for name in CLASSES if (found := chosen(f"after-{name}-model"))},
        policies=chosen("policies-name"),
    )


class Meant:
    """What was typed, as a service takes it: ``changes``, ``targets``, ``fallbacks`` and ``fallbacks_for``; ``problems`` are by
    field, in sentences."""

    def __init__(self, typed: Typed) -> None:
        self.problems: dict[str, str] = {}
        self.numbers = {name: self._number(name, typed.texts.get(name, "")) for name in NUMBERS}
        self.weights = [(slug, self._weight(slug, text)) for slug, text in typed.targets]
        named = [slug for slug, _ in typed.targets] + typed.fallbacks
        named += [slug for chosen in typed.by_class.values() for slug in chosen]
        named += [typed.texts[name] for name in MODEL_FIELDS if typed.texts.get(name)]
        self._models: Mapping[str, Model] = Model.objects.in_bulk(set(named), field_name="slug")
        self._typed = typed
        for where, chosen in self._chains():
            for slug in chosen:
                if slug not in self._models:
                    self.problems.setdefault(where, f"There is no model {slug[:63]!r}.")
                elif chosen.count(slug) > 1:
                    self.problems.setdefault(where, f"The model {slug} is named twice.")
        for name in TEXTS:
            if problem := text_problem(typed.texts.get(name, ""), lines=name == "static_answer"):
                self.problems[name] = f"{problem[:1].upper()}{problem[1:]}."

    def _chains(self) -> list[tuple[str, Sequence[str]]]:
        typed = self._typed
        return [
            ("targets", [slug for slug, _ in typed.targets]),
            ("fallbacks", typed.fallbacks),
            *((f"after-{name}", chosen) for name, chosen in typed.by_class.items()),
            *((name, [typed.texts[name]]) for name in MODEL_FIELDS if typed.texts.get(name)),
        ]

    def changes(self) -> dict[str, Any]:
        """The fields of ``FIELDS``. Raises ``InvalidRequest`` when something of it means nothing."""
        if self.problems:
            name, problem = next(iter(self.problems.items()))
            raise InvalidRequest(f"{name}: {problem}", param=name, data={"problems": self.problems})
        texts = self._typed.texts
        return {
            **self.numbers,
            **{name: texts.get(name, "") for name in (*TEXTS, *CHOICES)},
            **{name: self._models.get(texts.get(name, "")) for name in MODEL_FIELDS},
            **{name: name in self._typed.flags for name in FLAGS},
            "policies": self._typed.policies,
        }

    def chains(self) -> dict[str, Any]:
        typed = self._typed
        return {
            "targets": [(self._models[slug], weight) for slug, weight in self.weights],
            "fallbacks": [self._models[slug] for slug in typed.fallbacks],
            "fallbacks_for": {
                name: [self._models[slug] for slug in chosen] for name, chosen in typed.by_class.items()
            },
        }

    def entry(self) -> RouteEntry:
        """What would be published of it; where a number means nothing the usual one stands."""
        typed = self._typed
        members: dict[str, Any] = {
            **{name: typed.texts.get(name, "") for name in (*CHOICES, *MODEL_FIELDS, "static_answer")},
            **{name: name in typed.flags for name in FLAGS},
            **self.numbers,
        }
        return RouteEntry(
            slug=typed.slug,
            targets=tuple(TargetEntry(slug, weight) for slug, weight in sorted(self.weights)),
            fallbacks=tuple(typed.fallbacks),
            fallbacks_for={name: tuple(chosen) for name, chosen in sorted(typed.by_class.items())},
            policies=tuple(typed.policies),
            **members,
        )

    def _weight(self, slug: str, text: str) -> int:
        text = text.strip() or "100"
        if not text.isascii() or not text.isdecimal() or len(text) >= LONGEST_WEIGHT or int(text) > 1_000_000:
            self.problems.setdefault("targets", f"The weight of {slug} is a whole number from 0 to 1000000.")
            return 0
        return int(text)

    def _number(self, name: str, text: str) -> int:
        found: Any = Route._meta.get_field(name)
        step = 1_000 if name.endswith("_ms") else 1
        usual = int(found.default)
        try:
            number = Decimal(text[:40].replace(",", ".")) * step
            exact = number.is_finite() and number == int(number)
        except ArithmeticError:
            exact = False
        if not exact:
            what = "a number of seconds, such as 90 or 0.5" if step > 1 else "a whole number"
            self.problems[name] = f"Write {what}."
            return usual
        least = max(
            (one.limit_value for one in found.validators if isinstance(one, MinValueValidator)), default=0
        )
        most = min(one.limit_value for one in found.validators if isinstance(one, MaxValueValidator))
        if not least <= number <= most:
            self.problems[name] = f"From {_plain(Decimal(least) / step)} to {_plain(Decimal(most) / step)}."
            return usual
        return int(number)


def _shown(route: Route, name: str) -> str:
    number = getattr(route, name)
    return _plain(Decimal(number) / 1_000) if name.endswith("_ms") else str(number)


def _plain(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
