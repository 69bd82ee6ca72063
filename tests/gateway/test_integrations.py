"""The files for Prometheus and Grafana name what a data plane exports, and pages that are there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmops.core import errors
from llmops.gateway.telemetry.exposition import PlaneCollector
from tests.gateway.rig import Rig, a_budget, a_route, answers, streams

pytestmark = pytest.mark.any_engine

DOCS = Path(__file__).parents[2] / "docs"
RULES = yaml.safe_load((DOCS / "integrations/prometheus-rules.yml").read_text())
BOARD = json.loads((DOCS / "integrations/grafana-dashboard.json").read_text())
PANELS = [one for one in BOARD["panels"] if one["type"] != "row"]
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
#: given by Prometheus and Grafana themselves
_THEIRS = {"le", "instance", "job"}
#: label -> what it can be, where that is known
_VALUES = {
    "status": {"ok", "error", "refused", "client_closed", "interrupted"},
    "code": {
        one.code
        for one in vars(errors).values()
        if isinstance(one, type) and issubclass(one, errors.ConsoleError)
    },
}
_METRIC = re.compile(r"\bllmops_[a-z_]+")
_LABELS = re.compile(r"by \(([a-z_, ]*)\)")
_MATCH = re.compile(r"(llmops_[a-z_]+)\{([^}]*)\}")
_SHOWN = re.compile(r"\{\{ *(?:\$labels\.)?([a-z_]+) *\}\}")


def exported(rig: Rig) -> dict[str, set[str]]:
    """Samples by name, with the labels that they may bear."""
    found: dict[str, set[str]] = {}
    for family in PlaneCollector(rig.plane).collect():
        ends = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        labels = set(family._labelnames) if hasattr(family, "_labelnames") else set()
        for end in ends:
            found[family.name + end] = labels
    return found


def check(expr: str, shown: str, known: dict[str, set[str]]) -> None:
    names = _METRIC.findall(expr)
    assert names, expr
    for name in names:
        assert name in known, f"{name} is not exported"
    possible = set().union(*(known[name] for name in names)) | _THEIRS
    for group in _LABELS.findall(expr):
        assert {one.strip() for one in group.split(",") if one.strip()} <= possible, expr
    for name, inside in _MATCH.findall(expr):
        for matched, value in re.findall(r'([a-z_]+) *(?:=~|!=|!~|=) *"([^"]*)"', inside):
            assert matched in known[name], f"{name} has no label {matched}"
            assert set(value.split("|")) <= _VALUES.get(matched, {value}), f"{matched} is never {value}"
    grouped = {one.strip() for group in _LABELS.findall(expr) for one in group.split(",")}
    for label in _SHOWN.findall(shown):
        assert label in (grouped or possible) | _THEIRS, f"{label} is not there: {expr}"
    for opening, closing in ("()", "{}", "[]"):
        assert expr.count(opening) == expr.count(closing), expr


@pytest.fixture
async def known(rig: Rig) -> dict[str, set[str]]:
    rig.configure(routes=[a_route()], budgets=[a_budget()])
    rig.upstream.does(answers(), streams())
    await rig.chat(model="chat")
    return exported(rig)


def test_a_rule_is_whole() -> None:
    names = [rule["alert"] for rule in ALERTS]
    assert len(set(names)) == len(names) > 10
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert (DOCS / rule["annotations"]["runbook"]).is_file(), rule["alert"]
        assert rule["annotations"]["summary"]


async def test_rules_name_what_is_exported(known: dict[str, set[str]]) -> None:
    for rule in ALERTS:
        check(rule["expr"], rule["annotations"]["summary"], known)


async def test_the_dashboard_names_what_is_exported(known: dict[str, set[str]]) -> None:
    targets: list[dict[str, Any]] = [target for panel in PANELS for target in panel["targets"]]
    assert len(targets) > 20
    for target in targets:
        check(target["expr"], target["legendFormat"], known)
    for one in BOARD["annotations"]["list"]:
        assert set(_METRIC.findall(one["expr"])) <= set(known)
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    places = [(one["gridPos"]["x"], one["gridPos"]["y"]) for one in BOARD["panels"]]
    assert len(set(places)) == len(places)
