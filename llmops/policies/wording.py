"""Checks and their differences in words. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llmops.core.verdicts import ACTIONS, AFTER, ALLOW, BEFORE, BLOCK, REDACT, REQUIRE_APPROVAL, RETRY
from llmops.policies.checks import CHECKS, check_class

STAGE_WORDS = {BEFORE: "before the call", AFTER: "after the call"}
ACTION_WORDS = {
    ALLOW: "mark",
    REDACT: "redact",
    RETRY: "ask again",
    REQUIRE_APPROVAL: "require approval",
    BLOCK: "block",
}
assert set(ACTION_WORDS) == set(ACTIONS)
_LONGEST = 120
_MOST_NAMES = 6

#: ``kind``, ``stage``, ``action``, ``settings``
CheckFields = Mapping[str, Any]


def title(check: CheckFields) -> str:
    """``Personal data before the call``."""
    kind = str(check["kind"])
    name = check_class(kind).title if kind in CHECKS else kind
    return f"{name} {STAGE_WORDS.get(str(check['stage']), check['stage'])}"


def check_words(kind: str, action: str) -> str:
    """``Personal data: redact``, for a verdict's kind and action."""
    name = check_class(kind).title if kind in CHECKS else kind
    return f"{name}: {ACTION_WORDS.get(action, action)}"


def summary(check: CheckFields) -> str:
    """``Personal data before the call: redact``."""
    return f"{title(check)}: {ACTION_WORDS.get(str(check['action']), check['action'])}"


def differences(before: Sequence[CheckFields], after: Sequence[CheckFields]) -> list[str]:
    """One line for each difference between two lists of checks; empty when they are equal."""
    old, new = _named(before), _named(after)
    lines = [f"{summary(old[name])}: removed" for name in old if name not in new]
    for name, check in new.items():
        if name not in old:
            lines.append(f"{summary(check)}: added{_said(check['settings'])}")
            continue
        lines += [f"{_label(name, check)}: {line}" for line in _within(old[name], check)]
    common_old, common_new = [name for name in old if name in new], [name for name in new if name in old]
    if common_old != common_new:
        lines.append(f"order: {', '.join(title(new[name]) for name in common_new)}")
    return lines


def _named(checks: Sequence[CheckFields]) -> dict[tuple[str, str, int], CheckFields]:
    """Checks by kind, stage, and which of its like each is: the second of a kind stays the second."""
    found: dict[tuple[str, str, int], CheckFields] = {}
    for check in checks:
        nth = 1
        while (str(check["kind"]), str(check["stage"]), nth) in found:
            nth += 1
        found[str(check["kind"]), str(check["stage"]), nth] = check
    return found


def _label(name: tuple[str, str, int], check: CheckFields) -> str:
    return title(check) if name[2] == 1 else f"{title(check)} ({name[2]})"


def _within(old: CheckFields, new: CheckFields) -> Iterator[str]:
    if old["action"] != new["action"]:
        yield f"{ACTION_WORDS.get(str(old['action']), old['action'])} → {ACTION_WORDS.get(str(new['action']), new['action'])}"
    yield from _members(old["settings"], new["settings"], "")


def _members(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name in [*old, *(name for name in new if name not in old)]:
        if name not in new:
            yield f"{prefix}{name} {_shown(old[name])} → default"
        elif name not in old:
            yield f"{prefix}{name} default → {_shown(new[name])}"
        elif old[name] != new[name] or type(old[name]) is not type(new[name]):
            yield from _value(f"{prefix}{name}", old[name], new[name])


def _value(name: str, old: Any, new: Any) -> Iterator[str]:
    if _rules(old) and _rules(new):
        before, after = ({rule["name"]: rule for rule in rules} for rules in (old, new))
        if len(before) == len(old) and len(after) == len(new):
            yield from _rule_lines(name, before, after)
            return
    if isinstance(old, list) and isinstance(new, list) and _plain(old) and _plain(new):
        gone, come = ([item for item in one if item not in other] for one, other in ((old, new), (new, old)))
        if come:
            yield f"{name} added {_listed(come)}"
        if gone:
            yield f"{name} removed {_listed(gone)}"
        if not come and not gone:
            yield f"{name} in another order or number"
        return
    yield f"{name} {_shown(old)} → {_shown(new)}"


def _rule_lines(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for rule in [*before, *(rule for rule in after if rule not in before)]:
        if rule not in after:
            yield f"{name} “{rule}” removed"
        elif rule not in before:
            yield f"{name} “{rule}” added"
        elif before[rule] != after[rule]:
            yield from _members(before[rule], after[rule], f"{name} “{rule}”: ")
    if list(before) != list(after) and set(before) == set(after):
        yield f"{name} in another order"


def _rules(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, dict) and isinstance(item.get("name"), str) for item in value
    )


def _plain(values: list[Any]) -> bool:
    return not any(isinstance(item, dict | list) for item in values)


def _listed(values: list[Any]) -> str:
    named = ", ".join(_shown(item) for item in values[:_MOST_NAMES])
    return named + (f" and {len(values) - _MOST_NAMES} more" if len(values) > _MOST_NAMES else "")


def _said(settings: Mapping[str, Any]) -> str:
    return (
        f" ({'; '.join(f'{name} {_shown(value)}' for name, value in settings.items())})" if settings else ""
    )


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value == [] or value == "" or value == {}:
        return "none"
    if isinstance(value, list) and _plain(value):
        return _listed(value)
    if _rules(value):
        return ", ".join(f"“{rule['name']}”" for rule in value[:_MOST_NAMES])
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
