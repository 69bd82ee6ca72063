"""Price lists out of YAML, with the line of all that is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import yaml

from llmops.core.errors import InvalidRequest
from llmops.core.money import parse_usd
from llmops.providers.catalogue import BadPriceList, Listed, PriceList
from llmops.providers.rules import PROVIDER_KINDS, TOKEN_CLASSES

_CLASSES = frozenset(name for name, _ in TOKEN_CLASSES)
_KINDS = frozenset(name for name, _ in PROVIDER_KINDS)


def read(text: str) -> PriceList:
    """Raises ``BadPriceList`` with every problem found, each with its line."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise BadPriceList(
            [(mark.line + 1 if mark else 1, f"not valid YAML: {_first_line(error)}")]
        ) from None
    except RecursionError:
        raise BadPriceList([(1, "not valid YAML: nested too deeply")]) from None
    if root is None:
        raise BadPriceList([(1, "the file is empty")])
    reader = _Reader()
    found = reader.file(root)
    if reader.problems or found is None:
        raise BadPriceList(reader.problems)
    return found


def _first_line(error: Exception) -> str:
    return " ".join(str(getattr(error, "problem", None) or error).split())[:200]


class _Reader:
    def __init__(self) -> None:
        self.problems: list[tuple[int, str]] = []
        self._seen: dict[tuple[str, str, datetime | None], int] = {}

    def file(self, root: yaml.Node) -> PriceList | None:
        members = self._members(
            root, "the file", {"version", "provider", "date", "sources", "prices"}, optional={"sources"}
        )
        if members is None:
            return None
        if self._text(members.get("version"), "version") not in ("1", None):
            self._wrong(members["version"], "version: this console reads version 1")
        provider = self._text(members.get("provider"), "provider")
        if provider is not None and provider not in _KINDS:
            self._wrong(
                members["provider"], f"provider: {provider!r} is not one of {', '.join(sorted(_KINDS))}"
            )
        dated = self._date(members.get("date"), "date")
        sources = {
            self._text(key, "sources") or "": self._text(value, "sources") or ""
            for key, value in self._pairs(members.get("sources"), "sources")
        }
        prices = [
            price
            for node in self._items(members.get("prices"), "prices")
            for price in self._entry(node, sources)
        ]
        if provider is None or dated is None:
            return None
        return PriceList(provider, dated, tuple(prices))

    def _entry(self, node: yaml.Node, sources: dict[str, str]) -> Iterator[Listed]:
        members = self._members(
            node, "a price", {"models", "source", "usd", "from"}, optional={"source", "from"}
        )
        if members is None:
            return
        models = [
            (name, item)
            for item in self._items(members.get("models"), "models")
            if (name := self._text(item, "models"))
        ]
        given = self._text(members.get("source"), "source") or ""
        source = sources.get(given, given)[:200]
        since = self._moment(members["from"]) if "from" in members else None
        for key, value in self._pairs(members.get("usd"), "usd"):
            token_class = self._text(key, "usd")
            if token_class not in _CLASSES:
                self._wrong(
                    key,
                    f"usd: {token_class!r} is not a class of tokens; there are {', '.join(sorted(_CLASSES))}",
                )
                continue
            nano = self._amount(value, token_class)
            if nano is None:
                continue
            for model, item in models:
                line = value.start_mark.line + 1
                twin = self._seen.setdefault((model, token_class, since), line)
                if twin != line:
                    self._wrong(item, f"models: {token_class} of {model} stands in line {twin} already")
                    continue
                yield Listed(model, token_class, nano, source, since, line)

    def _amount(self, node: yaml.Node, token_class: str) -> int | None:
        text = self._text(node, token_class)
        if text is None:
            return None
        try:
            return parse_usd(text, field=token_class)
        except InvalidRequest as refusal:
            self._wrong(node, refusal.message.rstrip("."))
            return None

    def _date(self, node: yaml.Node | None, what: str) -> date | None:
        text = self._text(node, what)
        if text is None or node is None:
            return None
        try:
            return date.fromisoformat(text)
        except ValueError:
            self._wrong(node, f"{what}: {text[:40]!r} is not a day such as 2026-11-26")
            return None

    def _moment(self, node: yaml.Node) -> datetime | None:
        day = self._date(node, "from")
        return datetime(day.year, day.month, day.day, tzinfo=UTC) if day else None

    def _members(
        self, node: yaml.Node, what: str, known: set[str], *, optional: set[str]
    ) -> dict[str, yaml.Node] | None:
        if not isinstance(node, yaml.MappingNode):
            self._wrong(node, f"{what} must be a mapping with {', '.join(sorted(known))}")
            return None
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if name not in known:
                self._wrong(
                    key, f"{str(name)[:60]!r} is not known here; there are {', '.join(sorted(known))}"
                )
            elif name in found:
                self._wrong(key, f"{name} stands here twice")
            else:
                found[name] = value
        for name in sorted(known - optional - set(found)):
            self._wrong(node, f"{name} is missing")
        return found

    def _pairs(self, node: yaml.Node | None, what: str) -> list[tuple[yaml.Node, yaml.Node]]:
        if node is None:
            return []
        if not isinstance(node, yaml.MappingNode):
            self._wrong(node, f"{what} must be a mapping")
            return []
        return list(node.value)

    def _items(self, node: yaml.Node | None, what: str) -> list[yaml.Node]:
        if node is None:
            return []
        if not isinstance(node, yaml.SequenceNode):
            self._wrong(node, f"{what} must be a list")
            return []
        return list(node.value)

    def _text(self, node: yaml.Node | None, what: str) -> str | None:
        if node is None:
            return None
        if not isinstance(node, yaml.ScalarNode) or not node.value.strip():
            self._wrong(node, f"{what} must be a plain value")
            return None
        return str(node.value).strip()

    def _wrong(self, node: Any, reason: str) -> None:
        self.problems.append((node.start_mark.line + 1, reason))
