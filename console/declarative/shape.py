"""The shape of the declarative file as tables: which members there are, what each may hold, and its default. Pure.

A member that is left out means its default, not "as it is". Durations are written in seconds and kept in milliseconds;
amounts are written as text in USD and kept in nanodollars.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import yaml

from console.declarative.alerting import RULE_MEMBERS, SLO_MEMBERS, channel_members
from console.declarative.checks import (
    BAD,
    Check,
    Item,
    Member,
    Report,
    choice,
    json_value,
    list_of,
    mapping_of,
    moment,
    record,
    scaled,
    slug,
    text,
    unknown,
    usd,
    whole,
    yes_or_no,
)
from console.declarative.definitions import CHECK, POLICY, PROMPT, PROMPT_VERSION, TOOL, tool
from llmops.access.rules import INTERACTIVE, PRIORITIES, SCOPES
from llmops.budgets.periods import PERIODS
from llmops.budgets.scopes import KEY, ORGANISATION, SCOPE_KINDS
from llmops.providers.rules import (
    CAPABILITIES,
    CONTEXT_STRATEGIES,
    FAILURE_CLASSES,
    LAST_RESORTS,
    LONGEST_ANSWER,
    MOST_PASSTHROUGH,
    MOST_POLICIES,
    MOST_SHARED_OBJECTS,
    NO_LAST_RESORT,
    PROVIDER_KINDS,
    REFUSE,
    TOKEN_CLASSES,
)

VERSION = 1
SECRET_SCHEMES = ("env", "file", "vault", "aws", "plain")
_SCOPES = [kind for kind, _ in SCOPE_KINDS]


@dataclass(frozen=True)
class Secret:
    """Where a secret comes from. For ``plain`` the value is the secret itself, which no text of this object shows."""

    scheme: str
    value: str = field(repr=False)

    def __str__(self) -> str:
        return "plain:…" if self.scheme == "plain" else f"{self.scheme}:{self.value}"


@dataclass(frozen=True)
class PriceLine:
    """``since`` None: from now on, or earlier."""

    nano_per_million: int
    since: datetime | None = None


def secret(node: yaml.Node, path: str, report: Report) -> Any:
    value = text(most=8_100)(node, path, report)
    if value is BAD:
        return BAD
    scheme, separator, rest = value.partition(":")
    # The value itself is never repeated: somebody may have written the key where the scheme belongs.
    if not separator or scheme not in SECRET_SCHEMES:
        schemes = ", ".join(f"{name}:" for name in SECRET_SCHEMES)
        return report.bad(
            node,
            path,
            f'say where the secret is, such as "env:OPENAI_API_KEY"; it starts with one of {schemes}',
        )
    if not rest.strip():
        return report.bad(node, path, f"nothing follows {scheme}:")
    return Secret(scheme, rest.strip())


def _prices(node: yaml.Node, path: str, report: Report) -> Any:
    if isinstance(node, yaml.SequenceNode):
        rows = list_of(record({"usd": Member(usd, required=True), "from": Member(moment)}), most=1_000)(
            node, path, report
        )
        if rows is BAD:
            return BAD
        if len({row["from"] for row in rows}) < len(rows):
            return report.bad(node, path, "two prices hold from the same moment")
        return [PriceLine(row["usd"], row["from"]) for row in rows]
    amount = usd(node, path, report)
    return BAD if amount is BAD else [PriceLine(amount)]


def _scope(node: yaml.Node, path: str, report: Report) -> Any:
    value = text(most=260)(node, path, report)
    if value is BAD:
        return BAD
    kind, separator, name = value.partition(":")
    if kind not in _SCOPES:
        return report.bad(node, path, unknown(kind, dict.fromkeys(_SCOPES)).replace("member", "scope", 1))
    if kind == ORGANISATION:
        return report.bad(node, path, "nothing follows organisation") if separator else (kind, "")
    if not name.strip():
        return report.bad(node, path, f"write {kind}: and its name, such as {kind}:support")
    if kind == KEY and not re.fullmatch(r"[^/]+/.+", name):
        return report.bad(node, path, "write key:project/name")
    return kind, name.strip()


_ms = scaled(1000, 100, 3_600_000, unit="seconds")
_tokens = whole(0, 100_000_000)
_limit = whole(1, 2_147_483_647)
_names = list_of(text(most=63, blank=False), most=1_000)

TIMEOUTS = {
    "connect": Member(_ms, 5_000),
    "read": Member(_ms, 60_000),
    "write": Member(_ms, 10_000),
    "pool": Member(_ms, 10_000),
}
_RETRY = {"attempts": Member(whole(1, 10), 3), "total_timeout": Member(_ms, 90_000)}
_BREAKER = {
    "failure_rate": Member(scaled(100, 1, 100, unit="(a rate, 1 is all calls)"), 50),
    "window": Member(whole(1, 3_600), 60),
    "min_calls": Member(whole(1, 1_000_000), 20),
    "cooldown": Member(whole(1, 3_600), 30),
}
_CACHE = {"ttl": Member(whole(0, 2_592_000), 0), "tools": Member(yes_or_no, False)}
_CONTEXT = {
    "strategy": Member(choice(*(name for name, _ in CONTEXT_STRATEGIES)), REFUSE),
    "larger_model": Member(slug),
    "summary_model": Member(slug),
}
_LAST_RESORT = {
    "kind": Member(choice(*(name for name, _ in LAST_RESORTS)), NO_LAST_RESORT),
    "answer": Member(text(most=LONGEST_ANSWER, lines=True), ""),
}
_QUEUE = {
    "max_concurrency": Member(whole(0, 100_000), 0),
    "size": Member(whole(0, 100_000), 200),
    "timeout": Member(_ms, 5_000),
}
_STREAM = {"keep_alive": Member(whole(0, 3_600), 15)}


def _defaults(members: dict[str, Member]) -> Any:
    return lambda: Item(0, {name: member.default for name, member in members.items()}, {})


_PROJECT = {
    "slug": Member(slug, required=True),
    "name": Member(text(most=120)),
    "owner": Member(text(most=254), ""),
    "cost_center": Member(text(most=40), ""),
    "default_route": Member(slug),
    "rpm": Member(_limit),
    "tpm": Member(_limit),
    "concurrency": Member(_limit),
    "keep_texts_percent": Member(whole(0, 100), 0),
    "keep_texts_days": Member(whole(1, 90), 7),
    "keep_texts_readable": Member(yes_or_no, False),
}
_CREDENTIAL = {
    "name": Member(text(most=80, blank=False), required=True),
    "secret": Member(secret, required=True),
}
_PROVIDER = {
    "slug": Member(slug, required=True),
    "name": Member(text(most=120), ""),
    "kind": Member(choice(*(kind for kind, _ in PROVIDER_KINDS)), required=True),
    "base_url": Member(text(most=300, blank=False), required=True),
    "timeouts": Member(record(TIMEOUTS), _defaults(TIMEOUTS)),
    "max_connections": Member(whole(1, 100_000), 1_000),
    "proxy_url": Member(text(most=300), ""),
    "organization": Member(text(most=120), ""),
    "project": Member(text(most=120), ""),
    "allow_private_network": Member(yes_or_no, False),
    "passthrough": Member(list_of(text(most=600, blank=False), most=MOST_PASSTHROUGH), list),
    "shared_objects": Member(list_of(text(most=201, blank=False), most=MOST_SHARED_OBJECTS), list),
    "credentials": Member(list_of(record(_CREDENTIAL)), list),
}
_MODEL = {
    "slug": Member(slug, required=True),
    "provider": Member(slug, required=True),
    "model": Member(text(most=120, blank=False), required=True),
    "context_window": Member(whole(1, 100_000_000), required=True),
    "max_output_tokens": Member(_tokens, required=True),
    "default_max_output_tokens": Member(_tokens, required=True),
    "parameters": Member(mapping_of(json_value), dict),
    "capabilities": Member(list_of(choice(*CAPABILITIES)), list),
    "floats_reason": Member(text(most=300), ""),
    "prices": Member(mapping_of(_prices, allowed=tuple(name for name, _ in TOKEN_CLASSES)), dict),
}
_ROUTE = {
    "slug": Member(slug, required=True),
    "description": Member(text(most=300), ""),
    "targets": Member(
        list_of(record({"model": Member(slug, required=True), "weight": Member(whole(0, 1_000_000), 100)})),
        required=True,
    ),
    "fallbacks": Member(list_of(slug), list),
    "fallbacks_for": Member(
        mapping_of(list_of(slug), allowed=tuple(name for name, _ in FAILURE_CLASSES)), dict
    ),
    "context": Member(record(_CONTEXT), _defaults(_CONTEXT)),
    "last_resort": Member(record(_LAST_RESORT), _defaults(_LAST_RESORT)),
    "retry": Member(record(_RETRY), _defaults(_RETRY)),
    "breaker": Member(record(_BREAKER), _defaults(_BREAKER)),
    "queue": Member(record(_QUEUE), _defaults(_QUEUE)),
    "stream": Member(record(_STREAM), _defaults(_STREAM)),
    "cache": Member(record(_CACHE), _defaults(_CACHE)),
    "clamp_output": Member(yes_or_no, True),
    "policies": Member(list_of(slug, most=MOST_POLICIES), list),
}
_BUDGET = {
    "name": Member(slug),
    "scope": Member(_scope, required=True),
    "project": Member(slug),
    "period": Member(choice(*(name for name, _ in PERIODS)), "month"),
    "timezone": Member(text(most=60, blank=False), "UTC"),
    "limit_usd": Member(usd, required=True),
    "hard": Member(yes_or_no, True),
    "thresholds": Member(list_of(whole(1, 1_000), most=20), list),
    "notify": Member(list_of(text(most=254, blank=False), most=20), list),
    "at_limit_route": Member(slug),
    "carry_over_usd": Member(usd),
    "second_person": Member(yes_or_no),
}
_PUBLISHING = {
    "second_person": Member(yes_or_no, False),
    "projects": Member(list_of(slug), list),
    "restore_alone": Member(yes_or_no, True),
}
_SERVICE_KEY = {
    "name": Member(text(most=80, blank=False), required=True),
    "project": Member(slug, required=True),
    "secret": Member(secret, required=True),
    "scopes": Member(list_of(choice(*SCOPES)), lambda: ["inference"]),
    "routes": Member(_names, lambda: ["*"]),
    "models": Member(_names, list),
    "rpm": Member(_limit),
    "tpm": Member(_limit),
    "concurrency": Member(_limit),
    "priority": Member(choice(*(name for name, _ in PRIORITIES)), INTERACTIVE),
    "expires_at": Member(moment),
}


_CHANNEL = channel_members(secret)


def _version(node: yaml.Node, path: str, report: Report) -> Any:
    value = whole(0, 1_000_000)(node, path, report)
    if value is not BAD and value != VERSION:
        return report.bad(node, path, f"this console reads version {VERSION} of the file, not {value}")
    return value


def _as_written(members: dict[str, Member], scale: dict[str, int] | None = None) -> dict[str, Any]:
    """Defaults in the units of the file; of a nested mapping: all its members left out."""
    found: dict[str, Any] = {}
    for name, member in members.items():
        if member.required:
            continue
        default = member.default() if callable(member.default) else member.default
        found[name] = {} if isinstance(default, Item) else default
    for name, factor in (scale or {}).items():
        whole_part, rest = divmod(found[name], factor)
        found[name] = found[name] / factor if rest else whole_part
    return found


#: What an export leaves out, by the name of the mapping.
FILE_DEFAULTS: dict[str, dict[str, Any]] = {
    "project": _as_written(_PROJECT),
    "provider": _as_written(_PROVIDER),
    "timeouts": _as_written(TIMEOUTS, dict.fromkeys(TIMEOUTS, 1000)),
    "model": _as_written(_MODEL),
    "route": _as_written(_ROUTE),
    "retry": _as_written(_RETRY, {"total_timeout": 1000}),
    "breaker": _as_written(_BREAKER, {"failure_rate": 100}),
    "cache": _as_written(_CACHE),
    "context": _as_written(_CONTEXT),
    "last_resort": _as_written(_LAST_RESORT),
    "queue": _as_written(_QUEUE, {"timeout": 1000}),
    "stream": _as_written(_STREAM),
    "policy": _as_written(POLICY),
    "prompt": _as_written(PROMPT),
    "tool": _as_written(TOOL),
    "prompt version": {**_as_written(PROMPT_VERSION), "route": ""},
    "check": _as_written(CHECK),
    "budget": _as_written(_BUDGET),
    "service key": _as_written(_SERVICE_KEY),
    "publishing": _as_written(_PUBLISHING),
    "slo": _as_written(SLO_MEMBERS),
    "alert rule": _as_written(RULE_MEMBERS),
    "alert channel": _as_written(_CHANNEL),
}


def _section(members: dict[str, Member]) -> Member:
    return Member(list_of(record(members)), list)


FILE: Check = record(
    {
        "version": Member(_version, required=True),
        "projects": _section(_PROJECT),
        "providers": _section(_PROVIDER),
        "models": _section(_MODEL),
        "policies": _section(POLICY),
        "routes": _section(_ROUTE),
        "budgets": _section(_BUDGET),
        "service_keys": _section(_SERVICE_KEY),
        "prompts": _section(PROMPT),
        # Left out, the rule stays as it is.
        "publishing": Member(record(_PUBLISHING)),
        "tools": Member(list_of(tool), list),
        "slos": _section(SLO_MEMBERS),
        "alert_rules": _section(RULE_MEMBERS),
        "alert_channels": _section(_CHANNEL),
    }
)
