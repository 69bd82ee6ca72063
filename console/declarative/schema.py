"""Reading the declarative file. Pure: text in, checked entries with their lines out, or ``BadFile``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from console.declarative.alerting import raw_entries
from console.declarative.checks import BadFile, Found, Item, Report, parse
from console.declarative.definitions import TOOL_SECONDS
from console.declarative.shape import FILE, TIMEOUTS
from llmops.budgets.scopes import KEY, ORGANISATION, PROJECT

#: The kind of the one member of a project that waits for the routes.
DEFAULT_ROUTE = "default route of"
#: The kind of the one rule that says when publishing takes a second person.
PUBLISHING = "publishing"


@dataclass(frozen=True)
class Entry:
    """One object of the file. ``key`` identifies it within ``kind``; ``values`` are in the words of ``state``."""

    kind: str
    key: str
    line: int
    values: dict[str, Any]
    lines: dict[str, int] = field(default_factory=dict)

    def line_of(self, name: str) -> int:
        return self.lines.get(name, self.line)


def read(source: str) -> list[Entry]:
    """Every object of the file, in the order in which they can be made. Raises ``BadFile`` with every problem found."""
    report = Report()
    try:
        file = FILE(parse(source), "", report)
    except RecursionError:
        raise BadFile([Found(1, "", "not valid YAML: nested too deeply")]) from None
    report.raise_if_any()
    entries = [entry for section in _SECTIONS for entry in section(file)]
    _refuse_twins(entries, report)
    report.raise_if_any()
    return entries


def budget_slug(kind: str, value: str, period: str) -> str:
    """The name of a budget that the file gives none."""
    plain = (
        re.sub(r"[^a-z0-9._-]+", "-", f"{kind}-{value}" if value else kind, flags=re.IGNORECASE)
        .lower()
        .strip("-")
    )
    return f"{plain[: 62 - len(period)]}-{period}"


def _projects(file: Item) -> Iterator[Entry]:
    for item in file["projects"]:
        yield Entry(
            "project",
            item["slug"],
            item.line,
            {
                "name": item["name"] or item["slug"],
                "owner": item["owner"],
                "cost_center": item["cost_center"],
                "rpm": item["rpm"],
                "tpm": item["tpm"],
                "concurrency": item["concurrency"],
                "keep_texts_percent": item["keep_texts_percent"],
                "keep_texts_days": item["keep_texts_days"],
                "keep_texts_readable": item["keep_texts_readable"],
            },
            item.lines,
        )


def _default_routes(file: Item) -> Iterator[Entry]:
    """Apart from the projects: a route comes after the models, and those after the projects."""
    for item in file["projects"]:
        yield Entry(
            DEFAULT_ROUTE,
            item["slug"],
            item.line,
            {"default_route": item["default_route"] or ""},
            item.lines,
        )


def _providers(file: Item) -> Iterator[Entry]:
    for item in file["providers"]:
        timeouts = item["timeouts"]
        yield Entry(
            "provider",
            item["slug"],
            item.line,
            {
                "name": item["name"],
                "kind": item["kind"],
                "base_url": item["base_url"].rstrip("/"),
                **{f"{name}_timeout_ms": timeouts[name] for name in TIMEOUTS},
                "max_connections": item["max_connections"],
                "proxy_url": item["proxy_url"],
                "organization": item["organization"],
                "provider_project": item["project"],
                "allow_private_network": item["allow_private_network"],
                "passthrough": item["passthrough"],
                "shared_objects": item["shared_objects"],
            },
            {**item.lines, "provider_project": item.line_of("project")},
        )
    for item in file["providers"]:
        for key in item["credentials"]:
            yield Entry(
                "credential",
                f"{item['slug']}/{key['name']}",
                key.line,
                {"provider": item["slug"], "name": key["name"], "secret": key["secret"]},
                key.lines,
            )


def _models(file: Item) -> Iterator[Entry]:
    for item in file["models"]:
        yield Entry(
            "model",
            item["slug"],
            item.line,
            {
                "provider": item["provider"],
                "upstream_model": item["model"],
                "context_window": item["context_window"],
                "max_output_tokens": item["max_output_tokens"],
                "default_max_output_tokens": item["default_max_output_tokens"],
                "parameters": item["parameters"],
                "capabilities": sorted(set(item["capabilities"])),
                "floats_reason": item["floats_reason"].strip(),
                "prices": item["prices"],
            },
            {**item.lines, "upstream_model": item.line_of("model")},
        )


def _policies(file: Item) -> Iterator[Entry]:
    for item in file["policies"]:
        if not item["checks"]:
            raise BadFile(
                [Found(item.line_of("checks"), f"policies.{item['slug']}", "a policy has at least one check")]
            )
        yield Entry(
            "policy",
            item["slug"],
            item.line,
            {
                "description": item["description"],
                "everywhere": item["everywhere"],
                "checks": item["checks"],
            },
            item.lines,
        )


def _routes(file: Item) -> Iterator[Entry]:
    for item in file["routes"]:
        retry, breaker = item["retry"], item["breaker"]
        context, last_resort, queue = item["context"], item["last_resort"], item["queue"]
        chains = [item["fallbacks"], *item["fallbacks_for"].values()]
        for names in ([target["model"] for target in item["targets"]], *chains):
            if twin := _first_twin(names):
                raise BadFile(
                    [Found(item.line, f"routes.{item['slug']}", f"the model {twin} is named twice")]
                )
        yield Entry(
            "route",
            item["slug"],
            item.line,
            {
                "description": item["description"],
                "attempts": retry["attempts"],
                "total_timeout_ms": retry["total_timeout"],
                "breaker_failure_percent": breaker["failure_rate"],
                "breaker_window_s": breaker["window"],
                "breaker_min_calls": breaker["min_calls"],
                "breaker_cooldown_s": breaker["cooldown"],
                "cache_ttl_s": item["cache"]["ttl"],
                "cache_tools": item["cache"]["tools"],
                "clamp_output": item["clamp_output"],
                "targets": {target["model"]: target["weight"] for target in item["targets"]},
                "fallbacks": item["fallbacks"],
                "fallbacks_for": {name: chosen for name, chosen in item["fallbacks_for"].items() if chosen},
                "context_strategy": context["strategy"],
                "larger_model": context["larger_model"],
                "summary_model": context["summary_model"],
                "last_resort": last_resort["kind"],
                "static_answer": last_resort["answer"],
                "max_concurrency": queue["max_concurrency"],
                "queue_size": queue["size"],
                "queue_timeout_ms": queue["timeout"],
                "keep_alive_s": item["stream"]["keep_alive"],
                "policies": item["policies"],
            },
            {
                **item.lines,
                **{name: context.line_of(name) for name in ("larger_model", "summary_model") if context.line},
            },
        )


def _service_keys(file: Item) -> Iterator[Entry]:
    for item in file["service_keys"]:
        yield Entry(
            "service key",
            f"{item['project']}/{item['name']}",
            item.line,
            {
                "project": item["project"],
                "name": item["name"],
                "secret": item["secret"],
                "scopes": sorted(set(item["scopes"])),
                "allowed_routes": sorted(set(item["routes"])),
                "allowed_models": sorted(set(item["models"])),
                "rpm": item["rpm"],
                "tpm": item["tpm"],
                "concurrency": item["concurrency"],
                "priority": item["priority"],
                "expires_at": item["expires_at"],
            },
            {
                **item.lines,
                "allowed_routes": item.line_of("routes"),
                "allowed_models": item.line_of("models"),
            },
        )


def _budgets(file: Item) -> Iterator[Entry]:
    for item in file["budgets"]:
        kind, value = item["scope"]
        if item["project"] is not None and kind in (ORGANISATION, PROJECT, KEY):
            raise BadFile(
                [
                    Found(
                        item.line_of("project"),
                        "budgets.project",
                        f"the scope {kind} says itself whose budget this is",
                    )
                ]
            )
        yield Entry(
            "budget",
            item["name"] or budget_slug(kind, value, item["period"]),
            item.line,
            {
                "scope_kind": kind,
                "scope_value": value,
                "project": item["project"],
                "period": item["period"],
                "timezone": item["timezone"],
                "limit_nano": item["limit_usd"],
                "hard": item["hard"],
                "thresholds": sorted(set(item["thresholds"])),
                "notify": list(dict.fromkeys(item["notify"])),
                "at_limit_route": item["at_limit_route"] or "",
                "carry_over_nano": item["carry_over_usd"] or 0,
                # A file that does not speak of it leaves it as it is.
                **({} if item["second_person"] is None else {"second_person": item["second_person"]}),
            },
            {
                **item.lines,
                "scope_kind": item.line_of("scope"),
                "scope_value": item.line_of("scope"),
                "limit_nano": item.line_of("limit_usd"),
                "carry_over_nano": item.line_of("carry_over_usd"),
            },
        )


def prompt_key(project: str | None, slug: str) -> str:
    """``support/triage``, or ``triage`` for a shared one."""
    return f"{project}/{slug}" if project else slug


def _prompts(file: Item) -> Iterator[Entry]:
    for item in file["prompts"]:
        path = f"prompts.{item['slug']}"
        if not item["versions"]:
            raise BadFile([Found(item.line_of("versions"), path, "a prompt has at least one version")])
        yield Entry(
            "prompt",
            prompt_key(item["project"], item["slug"]),
            item.line,
            {
                "slug": item["slug"],
                "project": item["project"],
                "description": item["description"],
                "versions": item["versions"],
                "labels": item["labels"],
            },
            item.lines,
        )


def tool_key(project: str, slug: str) -> str:
    return f"{project}/{slug}"


def _tools(file: Item) -> Iterator[Entry]:
    for item in file["tools"]:
        # A service names members of the definition by their path.
        lines = {f"definition.{TOOL_SECONDS.get(name, name)}": line for name, line in item.lines.items()}
        settings = item["definition"]["settings"]
        lines |= {f"definition.settings.{name}": item.line_of("settings") for name in settings}
        yield Entry(
            "tool",
            tool_key(item["project"], item["slug"]),
            item.line,
            dict(item.values),
            {**item.lines, **lines},
        )


def _publishing(file: Item) -> Iterator[Entry]:
    rule = file["publishing"]
    if rule is not None:
        yield Entry(
            PUBLISHING,
            "rule",
            rule.line,
            {
                "always": rule["second_person"],
                "projects": sorted(set(rule["projects"])),
                "restore_alone": rule["restore_alone"],
            },
            {**rule.lines, "always": rule.line_of("second_person")},
        )


def _alerts(file: Item) -> Iterator[Entry]:
    for kind, key, item, values, lines in raw_entries(file):
        yield Entry(kind, key, item.line, values, {**item.lines, **lines})


_SECTIONS = (
    _projects,
    _publishing,
    _providers,
    _models,
    _policies,
    _routes,
    _prompts,
    _tools,
    _default_routes,
    _service_keys,
    _budgets,
    _alerts,
)


def _first_twin(names: list[str]) -> str | None:
    return next((name for index, name in enumerate(names) if name in names[:index]), None)


def _refuse_twins(entries: list[Entry], report: Report) -> None:
    seen: dict[tuple[str, str], int] = {}
    for entry in entries:
        if (entry.kind, entry.key) in seen:
            first = seen[entry.kind, entry.key]
            report.bad(
                entry.line,
                f"{entry.kind} {entry.key}",
                f"this stands in the file twice (first on line {first})",
            )
        seen.setdefault((entry.kind, entry.key), entry.line)
