"""Every kind of rule keeps the contract, and finds what it says it finds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from llmops.alerts import runbooks, services
from llmops.alerts.figures import Figures, Scope
from llmops.alerts.kinds import KINDS, Asked, kind_named, kinds
from llmops.alerts.models import Rule, Slo
from llmops.alerts.services.evaluating import look
from llmops.alerts.shipped import SHIPPED
from llmops.core.ids import uuid7
from llmops.providers.models import Credential, HealthEvent, OpenBreaker, Provider
from llmops.usage.models import DriftAlert, Journal, ProviderImport
from tests.alerts.scene import NOON, Scene
from tests.cast import COMMAND

pytestmark = [pytest.mark.django_db, pytest.mark.any_engine]
PARTS = ("**Signal.**", "**First action", "**Verification.**", "**Roll-back trigger.**", "**Tell.**")


@pytest.mark.parametrize("name", KINDS)
def test_the_contract(scene: Scene, name: str) -> None:
    kind = kind_named(name)
    assert kind.name == name and kind.title and kind.says
    assert set(kind.narrows) <= {"project", "route", "model", "feature"}
    for setting in kind.settings:
        assert setting.least <= setting.default <= setting.most and setting.label
    assert runbooks.exists(kind.runbook), f"docs/runbooks/{kind.runbook}.md"
    # An installation in which nothing ever happened is well, in few queries.
    rule = Rule(slug="r", kind=name)
    assert look(rule, kind, Figures(NOON)) == []


def test_each_kind_is_shipped_once_with_numbers_that_fit(scene: Scene) -> None:
    services.ensure_shipped()
    assert services.ensure_shipped() == 0
    assert {one.kind for one in SHIPPED} == set(KINDS) and len(SHIPPED) == len(KINDS)
    for rule in Rule.objects.all():
        assert services.update_rule(COMMAND, rule=rule, severity=rule.severity).settings.keys() == {
            setting.name for setting in kind_named(rule.kind).settings
        }


@pytest.mark.parametrize("name", runbooks.names())
def test_every_runbook_says_what_it_has_to(settings: Any, name: str) -> None:
    text = runbooks.text_of(name) or ""
    assert [part for part in PARTS if part not in text] == []
    assert f"({name}.md)" in (Path(settings.RUNBOOK_DIR) / "README.md").read_text()
    shown = str(runbooks.rendered(name))
    assert "**" not in shown and "<script" not in shown


@dataclass
class Case:
    """What makes a kind fire, and the subject that it then has."""

    happen: Any
    subject: str


def _usual_week(scene: Scene, **given: Any) -> None:
    for hours in range(24, 24 + 14):
        scene.calls(25, ago_s=hours * 3600, **given)


def _a_slo(scene: Scene) -> None:
    services.create_slo(
        COMMAND, slug="chat-answers", objective=Slo.AVAILABILITY, target_ppm=990_000, route="chat"
    )
    scene.calls(60)
    scene.failing(40)


def _a_breaker(scene: Scene) -> None:
    OpenBreaker.objects.create(
        process=uuid7(), host="h", route="chat", model="sim", provider="openai", since=NOON,
        until=NOON + timedelta(seconds=30), why="5 of 6 failed",
    )  # fmt: skip


def _a_key(**given: Any) -> Credential:
    provider = Provider.objects.create(
        slug="openai", name="OpenAI", kind="openai", base_url="https://api.openai.com/v1"
    )
    return Credential.objects.create(
        provider=provider, name="primary", source="env", reference="KEY", state="active", origin="https://api.openai.com", **given
    )  # fmt: skip


def _an_old_key(scene: Scene) -> None:
    _a_key(set_at=NOON - timedelta(days=120))


def _a_refused_key(scene: Scene) -> None:
    key = _a_key(set_at=NOON - timedelta(days=2))
    HealthEvent.objects.create(
        kind="credential_refused", credential=key.pk, process=uuid7(), at=NOON, text="401"
    )


def _a_journal(scene: Scene) -> None:
    Journal.objects.create(
        id=uuid7(),
        host="h",
        path="/j",
        opened_at=NOON - timedelta(hours=1),
        seen_at=NOON - timedelta(minutes=9),
    )


def _a_drift(scene: Scene) -> None:
    statement = ProviderImport.objects.create(
        provider="openai", source="csv", digest="0" * 64, has_tokens=True, has_cost=False, first_day=NOON.date(),
        last_day=NOON.date(), imported_at=NOON, imported_by="root",
    )  # fmt: skip
    DriftAlert.objects.create(
        statement=statement,
        provider="openai",
        day=NOON.date(),
        what="tokens",
        ledger=1,
        stated=2,
        raised_at=NOON,
    )


def _a_limited_key(scene: Scene) -> None:
    key = scene.cast.keys["support"]
    key.rpm = 20
    key.save()
    scene.calls(19, ago_s=30)


def _a_broken_trail(scene: Scene) -> None:
    from llmops.audit.models import Verification

    Verification.objects.create(
        state="broken", total=9, head_hash="0" * 64, hash="0" * 64, sequence=4, problems=["event 2 was altered"],
        started_by="root", started_at=NOON, heartbeat_at=NOON,
    )  # fmt: skip


def _a_budget(settled: str, *, refusing: bool = False) -> Any:
    def happen(scene: Scene) -> None:
        from llmops.budgets.models import ThresholdCrossing
        from tests.dashboards.seed import budget

        window = budget("month", "10", settled, value="support", project=scene.cast.support)
        if refusing:
            ThresholdCrossing.objects.create(
                window=window, percent=100, settled_nano=window.limit_nano, limit_nano=window.limit_nano,
                refusing=True, crossed_at=NOON,
            )  # fmt: skip

    return happen


KEYED = "key:{support}"
FIRES: dict[str, Case] = {
    "slo_burn": Case(_a_slo, "slo:chat-answers"),
    "error_rate": Case(lambda s: (s.calls(20), s.failing(4)), "route:chat"),
    "latency": Case(lambda s: s.calls(25, total_us=40_000_000), "route:chat"),
    "ttft": Case(lambda s: s.calls(25, ttft_us=12_000_000), "route:chat"),
    "fallback_rate": Case(lambda s: s.calls(25, fallback_count=1), "route:chat"),
    "retry_storm": Case(lambda s: s.calls(25, attempt_count=3, retry_count=2), "route:chat"),
    "queue_congestion": Case(
        lambda s: (s.calls(25), s.calls(2, status="refused", error_code="queue_full", attempt_count=0)), "route:chat"
    ),
    "schema_breakage": Case(
        lambda s: (s.calls(25), s.calls(3, status="refused", error_code="policy_blocked")), "route:chat"
    ),
    "partial_failure": Case(
        lambda s: (s.calls(25), s.failing(2, status="interrupted", error_code="stream_interrupted")), "route:chat"
    ),
    "unknown_outcome": Case(lambda s: s.failing(1, status="unknown", error_code="outcome_unknown"), "route:chat"),
    "breaker_open": Case(_a_breaker, "target:chat/sim"),
    "rate_limit": Case(_a_limited_key, KEYED),
    "spend": Case(lambda s: s.calls(2, cost_nano=60 * 10**9), "all"),
    "spend_forecast": Case(_a_budget("9"), "budget:month"),
    "budget_exhausted": Case(_a_budget("9.99", refusing=True), "budget:month"),
    "last_week": Case(
        lambda s: (s.calls(25, ago_s=7 * 86_400, cost_nano=10), s.calls(25, cost_nano=50)), "all:cost"
    ),
    "output_anomaly": Case(
        lambda s: (_usual_week(s, output_tokens=100), s.calls(25, output_tokens=900)), "route:chat"
    ),
    "key_age": Case(_an_old_key, "credential:"),
    "key_refused": Case(_a_refused_key, "credential:"),
    "key_unusual": Case(lambda s: (s.calls(10, ago_s=30 * 3600), s.calls(250)), KEYED),
    "journal_lag": Case(_a_journal, "journal:"),
    "provider_drift": Case(_a_drift, "provider:openai"),
    "audit_broken": Case(_a_broken_trail, "verification"),
}  # fmt: skip


def test_every_kind_is_seen_to_fire() -> None:
    assert set(FIRES) == set(KINDS) == {kind.name for kind in kinds()}


@pytest.mark.parametrize("name", FIRES)
def test_it_fires(scene: Scene, name: str) -> None:
    case = FIRES[name]
    case.happen(scene)
    found = [one for one in look(Rule(slug="r", kind=name), kind_named(name), Figures(NOON)) if one.holds]
    assert len(found) == 1
    subject = case.subject.format(support=scene.cast.keys["support"].pk)
    assert found[0].subject == subject or (subject.endswith(":") and found[0].subject.startswith(subject))
    assert found[0].title and found[0].says and len(found[0].says) <= 500
    assert found[0].value >= found[0].bound


@pytest.mark.parametrize("name", ["error_rate", "latency", "fallback_rate", "retry_storm"])
def test_too_few_calls_say_nothing(scene: Scene, name: str) -> None:
    scene.failing(3, total_us=99_000_000, fallback_count=1, attempt_count=9)
    assert look(Rule(slug="r", kind=name), kind_named(name), Figures(NOON)) == []


def test_routes_are_told_apart_and_rules_can_be_narrowed(scene: Scene) -> None:
    scene.calls(20)
    scene.failing(20, route="summarise", project=scene.cast.search, feature="digest")
    kind = kind_named("error_rate")

    def subjects(**narrowed: Any) -> list[str]:
        return [
            one.subject for one in look(Rule(slug="r", kind="error_rate", **narrowed), kind, Figures(NOON))
        ]

    assert subjects() == ["route:summarise"]
    assert subjects(project=scene.cast.search) == ["route:summarise"]
    assert subjects(project=scene.cast.support) == [] and subjects(route="chat") == []
    assert subjects(feature="digest") == ["feature:digest"]


def test_what_differs_in_money_is_told_in_money(scene: Scene) -> None:
    _a_drift(scene)
    DriftAlert.objects.update(what=DriftAlert.COST, ledger=273_530_000, stated=251_730_000)
    asked = Asked({"hours": 24.0}, Scope(), "drift")
    (found,) = kind_named("provider_drift").look(asked, Figures(scene.now))
    assert "cost of all models" in found.says and "$0.27353 here and $0.25173 there." in found.says
