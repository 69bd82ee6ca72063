"""SLOs, alert rules and alert channels: what the file may say of them, and the entries made of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from console.declarative.checks import (
    BAD,
    BadFile,
    Found,
    Item,
    Member,
    Report,
    choice,
    json_value,
    list_of,
    mapping_of,
    scaled,
    slug,
    text,
    usd,
    whole,
    yes_or_no,
)
from llmops.alerts.burn import CRITICAL, INFO, WARNING

SLO, RULE, CHANNEL = "SLO", "alert rule", "alert channel"
SEVERITIES = (CRITICAL, WARNING, INFO)
#: As ``Slo.OBJECTIVES`` has them, with the member that says how much at most.
OBJECTIVES = {"availability": "", "latency": "within", "ttft": "within", "cost": "cost_usd", "schema": ""}
_CLOCK = r"([01]\d|2[0-3]):([0-5]\d)"


def _number(node: yaml.Node, path: str, report: Report) -> Any:
    value = json_value(node, path, report)
    if value is BAD or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    return report.bad(node, path, "write a number here")


def _quiet(node: yaml.Node, path: str, report: Report) -> Any:
    value = text(most=20)(node, path, report)
    if value is BAD:
        return BAD
    found = re.fullmatch(f"{_CLOCK}-{_CLOCK}", value.replace(" ", ""))
    if found is None:
        return report.bad(node, path, 'write the beginning and the end in quotes, such as "22:00-07:00"')
    hours, minutes, until, rest = map(int, found.groups())
    return hours * 60 + minutes, until * 60 + rest


def _window(node: yaml.Node, path: str, report: Report) -> Any:
    value = whole(1, 365)(node, path, report)
    return value if value in (BAD, 28, 30) else report.bad(node, path, "an objective is over 28 or 30 days")


_PLACE = {"project": Member(slug), "route": Member(text(most=63), ""), "feature": Member(text(most=100), "")}
SLO_MEMBERS = {
    "slug": Member(slug, required=True),
    "objective": Member(choice(*OBJECTIVES), "availability"),
    "target": Member(scaled(10_000, 1, 999_999, unit="percent"), required=True),
    "within": Member(scaled(1_000_000, 1, 3_600_000_000, unit="seconds")),
    "cost_usd": Member(usd),
    "window_days": Member(_window, 30),
    **_PLACE,
}
RULE_MEMBERS = {
    "slug": Member(slug, required=True),
    "kind": Member(text(most=40, blank=False), required=True),
    "numbers": Member(mapping_of(_number, most=20), dict),
    "severity": Member(choice(*SEVERITIES), WARNING),
    "runbook": Member(text(most=63)),
    "resolve_after": Member(whole(0, 86_400), 300),
    "enabled": Member(yes_or_no, True),
    "model": Member(text(most=63), ""),
    **_PLACE,
}


def channel_members(secret: Callable[[yaml.Node, str, Report], Any]) -> dict[str, Member]:
    """``secret`` reads where one comes from, as a provider's key says it."""
    return {
        "slug": Member(slug, required=True),
        "kind": Member(text(most=12, blank=False), required=True),
        "project": Member(slug),
        "severities": Member(list_of(choice(*SEVERITIES), most=3), lambda: list(SEVERITIES)),
        "addresses": Member(list_of(text(most=254, blank=False), most=50), list),
        "url": Member(text(most=1_000), ""),
        "secret": Member(secret),
        "allow_private_network": Member(yes_or_no, False),
        "after_minutes": Member(whole(0, 7 * 24 * 60), 0),
        "quiet": Member(_quiet),
        "timezone": Member(text(most=60, blank=False), "UTC"),
        "enabled": Member(yes_or_no, True),
    }


#: (kind, key, values, lines) of an entry; ``schema`` makes it one.
Raw = tuple[str, str, Item, dict[str, Any], dict[str, int]]


def raw_entries(file: Item) -> Iterator[Raw]:
    for item in file["slos"]:
        yield SLO, item["slug"], item, _slo(item), {
            "target_ppm": item.line_of("target"), "threshold": item.line_of(OBJECTIVES[item["objective"]]),
        }  # fmt: skip
    for item in file["alert_rules"]:
        values = {
            name: value
            for name, value in item.values.items()
            if name not in ("slug", "numbers", "resolve_after")
        }
        values |= {"settings": item["numbers"], "resolve_after_s": item["resolve_after"]}
        yield RULE, item["slug"], item, values, {
            "settings": item.line_of("numbers"), "resolve_after_s": item.line_of("resolve_after"),
        }  # fmt: skip
    for item in file["alert_channels"]:
        start, end = item["quiet"] or (None, None)
        values = {name: value for name, value in item.values.items() if name not in ("slug", "quiet")}
        values |= {"quiet_from": start, "quiet_to": end}
        values["severities"] = [name for name in SEVERITIES if name in item["severities"]]
        lines = dict.fromkeys(("quiet_from", "quiet_to"), item.line_of("quiet"))
        yield CHANNEL, item["slug"], item, values, lines


def _slo(item: Item) -> dict[str, Any]:
    wanted = OBJECTIVES[item["objective"]]
    for name in ("within", "cost_usd"):
        if (item[name] is not None) != (name == wanted):
            reason = (
                f"an objective of {item['objective']} says {name}: how much at most"
                if name == wanted
                else f"an objective of {item['objective']} has no {name}"
            )
            raise BadFile([Found(item.line_of(name), f"slos.{item['slug']}", reason)])
    return {
        "objective": item["objective"],
        "target_ppm": item["target"],
        "threshold": item[wanted] if wanted else 0,
        **{name: item[name] for name in ("window_days", "project", "route", "feature")},
    }
