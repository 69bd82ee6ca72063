"""What changed between two documents, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from llmops.core.money import format_usd
from llmops.policies import wording
from llmops.providers.rules import unit_of
from llmops.serving.snapshot import (
    CheckEntry,
    ModelEntry,
    PolicyEntry,
    PriceRow,
    PromptEntry,
    RevisionDocument,
    RouteEntry,
)
from llmops.serving.validation.prompts import full_name

_LONGEST = 120
LABELS = {
    "base_url": "base URL",
    "connect_timeout_ms": "connect time-out (ms)",
    "read_timeout_ms": "read time-out (ms)",
    "write_timeout_ms": "write time-out (ms)",
    "pool_timeout_ms": "pool time-out (ms)",
    "total_timeout_ms": "total time-out (ms)",
    "max_connections": "connections",
    "proxy_url": "proxy",
    "provider_project": "project at the provider",
    "allow_private_network": "private networks allowed",
    "passthrough": "paths passed through",
    "shared_objects": "objects for every project",
    "upstream_model": "model at the provider",
    "context_window": "context window",
    "max_output_tokens": "maximum output",
    "default_max_output_tokens": "default output",
    "breaker_failure_percent": "breaker failure rate (%)",
    "breaker_window_s": "breaker window (s)",
    "breaker_min_calls": "breaker minimum of calls",
    "breaker_cooldown_s": "breaker cool-down (s)",
    "cache_ttl_s": "cache (s)",
    "cache_tools": "caches requests with tools",
    "context_strategy": "when the input is too long",
    "larger_model": "model with a larger window",
    "summary_model": "model that summarises",
    "static_answer": "fixed answer",
    "max_concurrency": "calls at once to a target",
    "queue_size": "places in the queue",
    "queue_timeout_ms": "wait in the queue (ms)",
    "everywhere": "holds everywhere",
    "keep_alive_s": "comment on silent streams every (s)",
    "clamp_output": "lowers the output cap to the budget",
}


ADDED, REMOVED, CHANGED = "added", "removed", "changed"


@dataclass(frozen=True, slots=True)
class Change:
    """What differs about one object: ``words`` are whole lines. ``before`` and ``after`` are its entries; None: not there."""

    kind: str
    name: str
    words: tuple[str, ...]
    before: Any
    after: Any

    @property
    def state(self) -> str:
        return ADDED if self.before is None else REMOVED if self.after is None else CHANGED


def describe(old: RevisionDocument, new: RevisionDocument) -> list[str]:
    """One line for each difference, in a stable order: providers, models, routes, policies, prompts, each by slug."""
    return [line for change in changes(old, new) for line in change.words]


def changes(old: RevisionDocument, new: RevisionDocument) -> Iterator[Change]:
    """One for each object that differs, in the order of ``describe``."""
    yield from _of_kind("provider", old.providers, new.providers)
    yield from _of_kind("model", old.models, new.models)
    yield from _of_kind("route", old.routes, new.routes)
    yield from _of_kind("policy", old.policies, new.policies)
    yield from _prompts(old.prompts, new.prompts)


def _of_kind(kind: str, old: Sequence[Any], new: Sequence[Any]) -> Iterator[Change]:
    before, after = {entry.slug: entry for entry in old}, {entry.slug: entry for entry in new}
    for slug in sorted(before.keys() | after.keys()):
        was, now = before.get(slug), after.get(slug)
        if was == now:
            continue
        if was is None:
            words = [f"{kind} {slug} added{_summary(now)}"]
        elif now is None:
            words = [f"{kind} {slug} removed"]
        else:
            words = [f"{kind} {slug}: {line}" for line in _within(was, now)]
        yield Change(kind, slug, tuple(words), was, now)


def _prompts(old: Sequence[PromptEntry], new: Sequence[PromptEntry]) -> Iterator[Change]:
    before, after = {full_name(entry): entry for entry in old}, {full_name(entry): entry for entry in new}
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name), after.get(name)
        if was == now:
            continue
        if now is None:
            words = [f"prompt {name} removed: services that name it are refused"]
        elif was is None:
            labels = ", ".join(f"{label} → version {number}" for label, number in sorted(now.labels.items()))
            words = [f"prompt {name} added: {_numbers(now)}{f'; {labels}' if labels else ''}"]
        else:
            words = [f"prompt {name}: {line}" for line in _within_prompt(was, now)]
        yield Change("prompt", name, tuple(words), was, now)


def _within_prompt(was: PromptEntry, now: PromptEntry) -> Iterator[str]:
    for label in sorted(was.labels.keys() | now.labels.keys()):
        old, new = was.labels.get(label), now.labels.get(label)
        if old == new:
            continue
        if new is None:
            yield f"label {label} removed (it meant version {old}): services that name it are refused"
        elif old is None:
            yield f"label {label} added: version {new}"
        else:
            yield f"{label} version {old} → version {new}"
    kept = {version.number: version for version in was.versions}
    here = {version.number for version in now.versions}
    if added := [version.number for version in now.versions if version.number not in kept]:
        yield f"version{'s' if len(added) > 1 else ''} {', '.join(map(str, added))} can be named by number"
    if gone := sorted(kept.keys() - here):
        yield f"version{'s' if len(gone) > 1 else ''} {', '.join(map(str, gone))} no longer served"
    for version in now.versions:
        if version.number in kept and kept[version.number] != version:
            yield f"version {version.number} differs: it comes from elsewhere"


def _numbers(entry: PromptEntry) -> str:
    numbers = [version.number for version in entry.versions]
    return (
        f"version {numbers[0]}"
        if len(numbers) == 1
        else f"{len(numbers)} versions, the newest {max(numbers)}"
    )


def _summary(entry: Any) -> str:
    if isinstance(entry, ModelEntry):
        return f": {entry.upstream_model} at {entry.provider}"
    if isinstance(entry, RouteEntry):
        return ": " + "; ".join(_route(entry))
    if isinstance(entry, PolicyEntry):
        where = ", holds everywhere" if entry.everywhere else ""
        return f": {'; '.join(wording.summary(check) for check in checks_of(entry.checks))}{where}"
    return f": {entry.base_url}"


def _route(entry: RouteEntry) -> Iterator[str]:
    """Where a new route leads, and whatever it has set that routes do not have by themselves."""
    yield ", ".join(f"{target.model} ({target.weight})" for target in entry.targets) or "no target"
    if entry.fallbacks:
        yield f"then {', '.join(entry.fallbacks)}"
    for failure, models in sorted(entry.fallbacks_for.items()):
        yield f"after {failure} {_text(models)}"
    usual = RouteEntry(entry.slug, entry.targets, entry.fallbacks, entry.fallbacks_for)
    for name in entry.__struct_fields__:
        if (value := getattr(entry, name)) != getattr(usual, name):
            yield f"{LABELS.get(name, name.replace('_', ' '))} {_text(value)}"


def _within(old: Any, new: Any) -> Iterator[str]:
    for name in new.__struct_fields__:
        before, after = getattr(old, name), getattr(new, name)
        if before == after:
            continue
        if name == "prices":
            yield from _prices(before, after)
        elif name == "targets":
            yield from _members(
                "target",
                {target.model: f"weight {target.weight}" for target in before},
                {target.model: f"weight {target.weight}" for target in after},
            )
        elif name == "checks":
            changed = list(wording.differences(checks_of(before), checks_of(after)))
            # Whatever the words leave out, that something differs is said.
            yield from changed or ["checks changed"]
        elif name == "fallbacks_for":
            yield from _members("fallbacks after", _texts(before), _texts(after))
        elif name == "parameters":
            yield from _members("parameter", _texts(before), _texts(after))
        else:
            yield f"{LABELS.get(name, name.replace('_', ' '))} {_text(before)} → {_text(after)}"


def checks_of(entries: Sequence[CheckEntry]) -> list[dict[str, Any]]:
    return [msgspec.structs.asdict(entry) for entry in entries]


def _members(what: str, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(before.keys() | after.keys()):
        if name not in before:
            yield f"{what} {name} added ({after[name]})"
        elif name not in after:
            yield f"{what} {name} removed"
        elif before[name] != after[name]:
            yield f"{what} {name} {before[name]} → {after[name]}"


def _prices(before: Sequence[PriceRow], after: Sequence[PriceRow]) -> Iterator[str]:
    for row in sorted(set(before) | set(after)):
        if (row in before) == (row in after):
            continue
        since = datetime.fromtimestamp(row.since, UTC)
        yield (
            f"price of {row.token_class.replace('_', ' ')} {'added' if row in after else 'removed'}: "
            f"{format_usd(row.nano_per_million)} USD per million {unit_of(row.token_class)} from {since:%Y-%m-%d %H:%M} UTC"
        )


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    return {name: _text(value) for name, value in values.items()}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str) and len(value) > _LONGEST:
        return f"{value[:_LONGEST]}…"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    if value == "":
        return "none"
    return str(value) if isinstance(value, str | int) else msgspec.json.encode(value).decode()
