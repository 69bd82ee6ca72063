"""Writing the declarative file of what is configured. Secrets are never in it: references, or placeholders for them.

Left out: what is archived or revoked (and what speaks only of such), keys that are being drained, and what is switched for the moment
(pauses, degradation, switches of the organisation): live state, not configuration.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import yaml
from django.db import transaction

from console.declarative.alert_steps import written
from console.declarative.alerting import CHANNEL, RULE, SLO
from console.declarative.definitions import TOOL_SECONDS
from console.declarative.present import Present
from console.declarative.schema import DEFAULT_ROUTE, PUBLISHING, budget_slug
from console.declarative.shape import FILE_DEFAULTS, VERSION
from console.declarative.state import Prices, State
from console.declarative.steps import placeholder
from llmops.audit.services import record
from llmops.budgets.scopes import KEY, ORGANISATION, PROJECT
from llmops.core.actors import Actor
from llmops.core.digests import sha256_hex
from llmops.core.money import format_usd
from llmops.prompts.content import inferred


def export_text(state: State) -> str:
    """YAML that ``schema.read`` reads, and that has nothing to do when it is applied to ``state``."""
    document: dict[str, Any] = {"version": VERSION}
    rule = state.objects[PUBLISHING]["rule"].values
    publishing = {
        "second_person": rule["always"],
        **{name: rule[name] for name in ("projects", "restore_alone")},
    }
    if changed := _without_defaults("publishing", publishing):
        document["publishing"] = changed
    for name, section in (
        ("projects", _projects),
        ("providers", _providers),
        ("models", _models),
        ("policies", _policies),
        ("routes", _routes),
        ("prompts", _prompts),
        ("tools", _tools),
        ("budgets", _budgets),
        ("service_keys", _service_keys),
        ("slos", partial(_alerts, kind=SLO, section="slo")),
        ("alert_rules", partial(_alerts, kind=RULE, section="alert rule")),
        ("alert_channels", partial(_alerts, kind=CHANNEL, section="alert channel")),
    ):
        if rows := list(section(state)):
            document[name] = rows
    return yaml.dump(
        document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110, default_flow_style=False
    )


@transaction.atomic
def note_export(actor: Actor, text: str) -> None:
    """That somebody took the configuration out as the file ``text``."""
    record(
        actor,
        action="configuration.exported",
        object_type="console.configuration",
        object_id="configuration",
        object_name="configuration",
        after={"digest": sha256_hex(text.encode())},
    )


class _Dumper(yaml.SafeDumper):
    """Without anchors, which the reader refuses; lists of plain values on one line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _list(dumper: yaml.SafeDumper, data: list[Any]) -> yaml.Node:
    plain = all(isinstance(item, str | int | float | bool) for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=plain)


_Dumper.add_representer(list, _list)


def _in_use(state: State, kind: str) -> Iterator[tuple[str, Present]]:
    for key, present in sorted(state.objects.get(kind, {}).items()):
        if not present.gone:
            yield key, present


def _usable(state: State, kind: str, key: str) -> bool:
    found = state.find(kind, key)
    if found is None or found.gone:
        return False
    return kind != "service key" or _usable(state, "project", found.values["project"])


def _without_defaults(section: str, row: dict[str, Any]) -> dict[str, Any]:
    defaults = FILE_DEFAULTS[section]
    return {
        name: value
        for name, value in row.items()
        if name not in defaults or not _equal(value, defaults[name])
    }


def _equal(left: Any, right: Any) -> bool:
    return type(left) is type(right) and bool(left == right)


def _projects(state: State) -> Iterator[dict[str, Any]]:
    for slug, present in _in_use(state, "project"):
        default = state.find(DEFAULT_ROUTE, slug)
        route = default.values["default_route"] or None if default else None
        yield _without_defaults("project", {"slug": slug, **present.values, "default_route": route})


def _providers(state: State) -> Iterator[dict[str, Any]]:
    keys: dict[str, list[dict[str, Any]]] = {}
    for _, present in _in_use(state, "credential"):
        values = present.values
        if values["state"] != "active":
            continue
        secret = (
            f"env:{placeholder(values['provider'], values['name'])}"
            if values["source"] == "sealed"
            else f"{values['source']}:{values['reference']}"
        )
        keys.setdefault(values["provider"], []).append({"name": values["name"], "secret": secret})
    for slug, present in _in_use(state, "provider"):
        values = present.values
        timeouts = {
            name: _seconds(values[f"{name}_timeout_ms"]) for name in ("connect", "read", "write", "pool")
        }
        row = {
            "slug": slug,
            "name": values["name"],
            "kind": values["kind"],
            "base_url": values["base_url"],
            "timeouts": _without_defaults("timeouts", timeouts),
            "max_connections": values["max_connections"],
            "proxy_url": values["proxy_url"],
            "organization": values["organization"],
            "project": values["provider_project"],
            "allow_private_network": values["allow_private_network"],
            "passthrough": values["passthrough"],
            "shared_objects": values["shared_objects"],
            "credentials": keys.get(slug, []),
        }
        yield _without_defaults("provider", row)


def _models(state: State) -> Iterator[dict[str, Any]]:
    for slug, present in _in_use(state, "model"):
        values = present.values
        row = {
            "slug": slug,
            "provider": values["provider"],
            "model": values["upstream_model"],
            "context_window": values["context_window"],
            "max_output_tokens": values["max_output_tokens"],
            "default_max_output_tokens": values["default_max_output_tokens"],
            "parameters": values["parameters"],
            "capabilities": values["capabilities"],
            "floats_reason": values["floats_reason"],
            "prices": {name: _price(prices) for name, prices in sorted(values["prices"].items())},
        }
        yield _without_defaults("model", row)


def _price(prices: Prices) -> str | list[dict[str, str]]:
    if prices.now is not None and not prices.later:
        return format_usd(prices.now)
    rows = [] if prices.now is None else [{"usd": format_usd(prices.now)}]
    return rows + [
        {"usd": format_usd(amount), "from": _time(since)} for since, amount in sorted(prices.later.items())
    ]


def _policies(state: State) -> Iterator[dict[str, Any]]:
    for slug, present in _in_use(state, "policy"):
        checks = [_without_defaults("check", dict(check)) for check in present.values["checks"]]
        yield _without_defaults("policy", {"slug": slug, **present.values, "checks": checks})


def _prompts(state: State) -> Iterator[dict[str, Any]]:
    for _, present in _in_use(state, "prompt"):
        values = present.values
        if not values["versions"] or (
            values["project"] is not None and not _usable(state, "project", values["project"])
        ):
            continue
        yield _without_defaults(
            "prompt", {**values, "versions": [_prompt_version(one) for one in values["versions"]]}
        )


def _tools(state: State) -> Iterator[dict[str, Any]]:
    for _, present in _in_use(state, "tool"):
        values = present.values
        if not _usable(state, "project", values["project"]):
            continue
        named = {there: here for here, there in TOOL_SECONDS.items()}
        row = {named.get(name, name): value for name, value in values["definition"].items()}
        row["settings"] = {
            name: value
            for name, value in row["settings"].items()
            if (name, value) != ("allow_private_network", False)
        }
        yield _without_defaults("tool", {"slug": values["slug"], "project": values["project"], **row})


def _prompt_version(version: dict[str, Any]) -> dict[str, Any]:
    content = version["content"]
    row = _without_defaults("prompt version", {"note": version["note"], **content})
    # Left out, they are what the layers name, as texts.
    if content["variables"] == inferred(content):
        row.pop("variables", None)
    return row


def _routes(state: State) -> Iterator[dict[str, Any]]:
    for slug, present in _in_use(state, "route"):
        values = present.values
        row = {
            "slug": slug,
            "description": values["description"],
            "targets": [
                {"model": model, "weight": weight} for model, weight in sorted(values["targets"].items())
            ],
            "fallbacks": values["fallbacks"],
            "fallbacks_for": dict(sorted(values["fallbacks_for"].items())),
            "context": _without_defaults(
                "context",
                {
                    "strategy": values["context_strategy"],
                    "larger_model": values["larger_model"],
                    "summary_model": values["summary_model"],
                },
            ),
            "last_resort": _without_defaults(
                "last_resort", {"kind": values["last_resort"], "answer": values["static_answer"]}
            ),
            "retry": _without_defaults(
                "retry",
                {"attempts": values["attempts"], "total_timeout": _seconds(values["total_timeout_ms"])},
            ),
            "breaker": _without_defaults(
                "breaker",
                {
                    "failure_rate": values["breaker_failure_percent"] / 100,
                    "window": values["breaker_window_s"],
                    "min_calls": values["breaker_min_calls"],
                    "cooldown": values["breaker_cooldown_s"],
                },
            ),
            "queue": _without_defaults(
                "queue",
                {
                    "max_concurrency": values["max_concurrency"],
                    "size": values["queue_size"],
                    "timeout": _seconds(values["queue_timeout_ms"]),
                },
            ),
            "stream": _without_defaults("stream", {"keep_alive": values["keep_alive_s"]}),
            "cache": _without_defaults(
                "cache", {"ttl": values["cache_ttl_s"], "tools": values["cache_tools"]}
            ),
            "clamp_output": values["clamp_output"],
            "policies": values["policies"],
        }
        yield _without_defaults("route", row)


def _budgets(state: State) -> Iterator[dict[str, Any]]:
    for slug, present in _in_use(state, "budget"):
        values = present.values
        kind, value = values["scope_kind"], values["scope_value"]
        about = {PROJECT: ("project", value), KEY: ("service key", value)}.get(kind)
        if about is not None and not _usable(state, *about):
            continue
        if values["project"] is not None and not _usable(state, "project", values["project"]):
            continue
        row = {
            "name": None if slug == budget_slug(kind, value, values["period"]) else slug,
            "scope": kind if kind == ORGANISATION else f"{kind}:{value}",
            "project": values["project"],
            "limit_usd": format_usd(values["limit_nano"]),
            "period": values["period"],
            "timezone": values["timezone"],
            "hard": values["hard"],
            "thresholds": values["thresholds"],
            "notify": values["notify"],
            "at_limit_route": values["at_limit_route"] or None,
            "carry_over_usd": format_usd(values["carry_over_nano"]) if values["carry_over_nano"] else None,
            "second_person": values["second_person"] or None,
        }
        yield _without_defaults("budget", row)


def _service_keys(state: State) -> Iterator[dict[str, Any]]:
    for key, present in _in_use(state, "service key"):
        values = present.values
        if not _usable(state, "service key", key):
            continue
        row = {
            "name": values["name"],
            "project": values["project"],
            "secret": f"env:{placeholder(values['project'], values['name'], 'service', 'key')}",
            "scopes": values["scopes"],
            "routes": values["allowed_routes"],
            "models": values["allowed_models"],
            "rpm": values["rpm"],
            "tpm": values["tpm"],
            "concurrency": values["concurrency"],
            "priority": values["priority"],
            "expires_at": _time(values["expires_at"]) if values["expires_at"] else None,
        }
        yield _without_defaults("service key", row)


def _alerts(state: State, *, kind: str, section: str) -> Iterator[dict[str, Any]]:
    for row in written(state, kind):
        yield _without_defaults(section, row)


def _seconds(milliseconds: int) -> int | float:
    whole, rest = divmod(milliseconds, 1000)
    return whole if not rest else milliseconds / 1000


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
