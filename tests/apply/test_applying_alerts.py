"""SLOs, alert rules and channels in the declarative file: made, changed, and with no secret in it or in what is said of it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from console.declarative import alerting
from console.declarative.apply import apply_text
from console.declarative.checks import BadFile
from console.declarative.export import export_text
from console.declarative.state import read_state
from llmops.alerts import services
from llmops.alerts.models import Channel, Rule, Slo
from llmops.alerts.sealed import secret_of
from tests.cast import no_event, one_event
from tests.configuring import OPERATOR

pytestmark = [pytest.mark.django_db, pytest.mark.any_engine]

FILE = """
version: 1
projects:
  - {slug: support, name: Support}
slos:
  - {slug: chat-answers, target: 99.5, route: chat}
  - {slug: chat-quick, objective: latency, within: 2.5, target: 95, window_days: 28, project: support}
  - {slug: chat-cheap, objective: cost, cost_usd: "0.02", target: 99}
alert_rules:
  - {slug: support-fails, kind: error_rate, numbers: {percent: 2}, severity: critical, project: support, route: chat}
  - {slug: calls-fail, kind: error_rate, severity: critical, enabled: false}
alert_channels:
  - {slug: on-call, kind: mail, addresses: [on-call@example.com]}
  - slug: pager
    kind: webhook
    url: "https://pager.example.com/hook"
    secret: "env:PAGER_SECRET"
    severities: [critical]
    after_minutes: 15
  - {slug: chat, kind: slack, secret: "env:CHAT_ADDRESS", quiet: "22:00-07:00", timezone: Europe/Berlin}
"""
PAGER, OTHER = "whsec_" + "cGxhbnRlZC1pbi1hLXRlc3Qtb25seS0x", "whsec_" + "cGxhbnRlZC1pbi1hLXRlc3Qtb25seS0y"
ADDRESS = "https://chat.example.com/services/T0/planted-in-a-path"
SECRETS = {"PAGER_SECRET": PAGER, "CHAT_ADDRESS": ADDRESS}


def apply(text: str = FILE, environment: dict[str, str] | None = None, **how: Any) -> Any:
    given = SECRETS if environment is None else environment
    return apply_text(OPERATOR, text, with_publish=False, environment=given, **how)


def test_from_the_file_to_what_watches_and_back() -> None:
    planned = apply(dry_run=True)
    assert not Rule.objects.exists() and not Channel.objects.exists() and not Slo.objects.exists()
    assert {
        "+ SLO chat-quick",
        "+ alert rule support-fails",
        "+ alert channel pager\n    env:PAGER_SECRET",
    } <= {str(step) for step in planned.plan.steps}
    apply()
    quick, cheap = Slo.objects.get(slug="chat-quick"), Slo.objects.get(slug="chat-cheap")
    assert (quick.target_ppm, quick.threshold, quick.window_days) == (950_000, 2_500_000, 28)
    assert quick.project is not None and quick.project.slug == "support" and cheap.threshold == 20_000_000
    rule = Rule.objects.get(slug="support-fails")
    assert (
        rule.settings == {"percent": 2, "window_s": 300, "min_calls": 20}
        and rule.runbook == "degraded-provider"
    )
    chat, pager = Channel.objects.get(slug="chat"), Channel.objects.get(slug="pager")
    assert (chat.url, chat.quiet_from, chat.quiet_to, chat.timezone) == (
        "chat.example.com",
        1320,
        420,
        "Europe/Berlin",
    )
    assert secret_of(chat) == ADDRESS and secret_of(pager) == PAGER and pager.severities == ["critical"]
    with no_event():
        assert apply().nothing_to_do
    exported = export_text(read_state())
    written = yaml.safe_load(exported)
    assert [row["slug"] for row in written["alert_channels"]] == ["chat", "on-call", "pager"]
    assert {"slug": "chat-answers", "target": 99.5, "route": "chat"} in written["slos"]
    with no_event():
        assert apply(exported, {}).nothing_to_do, "an export has nothing to do where it came from"


def test_no_secret_leaves_in_the_file_the_plan_or_the_trail() -> None:
    done = apply()
    said = "\n".join(
        [*map(str, done.plan.steps), *done.plan.notes, repr(done.plan), export_text(read_state())]
    )
    assert "planted" not in said and "cGxhbnRlZ" not in said
    from llmops.audit.models import Event

    trail = "\n".join(str(event.__dict__) for event in Event.objects.all())
    assert "planted" not in trail and "cGxhbnRlZ" not in trail


def test_a_secret_stays_where_it_cannot_be_read_and_is_replaced_where_it_differs() -> None:
    apply()
    kept = apply(environment={})
    [note] = [note for note in kept.plan.notes if "cannot be read" in note]
    assert kept.nothing_to_do and "so the present one" in note
    with one_event("alert_channel.secret_replaced"):
        done = apply(environment={**SECRETS, "PAGER_SECRET": OTHER})
    assert [str(step) for step in done.plan.steps] == [
        "~ alert channel pager: replace\n    its secret → env:PAGER_SECRET"
    ]
    assert secret_of(Channel.objects.get(slug="pager")) == OTHER


def test_one_difference_is_one_step() -> None:
    apply()
    with one_event("alert_rule.changed"):
        done = apply(FILE.replace("percent: 2", "percent: 3"))
    assert len(done.plan.steps) == 1 and "percent" in str(done.plan.steps[0])
    with one_event("slo.changed"):
        apply(FILE.replace("percent: 2", "percent: 3").replace("within: 2.5", "within: 3"))


def test_what_was_put_away_and_is_named_comes_back() -> None:
    apply()
    services.archive_channel(OPERATOR, channel=Channel.objects.get(slug="pager"))
    services.archive_rule(OPERATOR, rule=Rule.objects.get(slug="support-fails"))
    services.archive_slo(OPERATOR, slo=Slo.objects.get(slug="chat-cheap"))
    exported = export_text(read_state())
    assert all(name not in exported for name in ("pager", "support-fails", "chat-cheap"))
    assert {step.action for step in apply().plan.steps} == {"bring back"}
    assert Channel.objects.get(slug="pager").archived_at is None and apply().nothing_to_do


def test_shipped_rules_are_in_no_export_until_they_are_changed() -> None:
    services.ensure_shipped()
    assert "alert_rules" not in yaml.safe_load(export_text(read_state()))
    services.update_rule(OPERATOR, rule=Rule.objects.get(slug="spend-is-high"), settings={"usd": 5})
    exported = export_text(read_state())
    (row,) = yaml.safe_load(exported)["alert_rules"]
    assert row == {"slug": "spend-is-high", "kind": "spend", "numbers": {"usd": 5}}
    assert apply(exported).nothing_to_do


@pytest.mark.parametrize(
    ("instead", "by", "line", "reason"),
    [
        ("target: 99.5,", "target: 100,", 6, "0.0001 to 99.9999 percent"),
        ("within: 2.5, ", "", 7, "says within: how much at most"),
        ('objective: cost, cost_usd: "0.02"', 'cost_usd: "0.02"', 8, "has no cost_usd"),
        ("window_days: 28", "window_days: 29", 7, "28 or 30"),
        ("kind: error_rate, numbers", "kind: eror_rate, numbers", 10, "there is no kind 'eror_rate'"),
        ("{percent: 2}", "{percents: 2}", 10, "has no such number"),
        ("{percent: 2}", "{percent: yes}", 10, "write a number"),
        ("project: support, route: chat}", "project: other, route: chat}", 10, "no project 'other'"),
        ("enabled: false}", "runbook: nope}", 11, "no runbook 'nope'"),
        ("[on-call@example.com]", "[nobody]", 13, "no e-mail address"),
        ("https://pager", "http://pager", 16, "use https"),
        ('"env:PAGER_SECRET"', '"plain:whsec_abc"', 17, "so that no file holds it"),
        ('"env:PAGER_SECRET"', '"env:NOT_HERE"', 17, "cannot be read by this process"),
        ('secret: "env:CHAT_ADDRESS"', 'url: "https://chat.example.com/x"', 20, "may write there"),
        ("22:00-07:00", "22-7", 20, "22:00-07:00"),
        ("Europe/Berlin", "Europe/Nowhere", 20, "Europe/Berlin is needed"),
        ("kind: mail,", 'kind: mail, secret: "env:PAGER_SECRET",', 13, "has no secret"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(instead: str, by: str, line: int, reason: str) -> None:
    assert instead in FILE
    with no_event(), pytest.raises(BadFile) as refused:
        apply(FILE.replace(instead, by))
    told = [(one.line, str(one)) for one in refused.value.found]
    assert told[0][0] == line and reason in told[0][1], told
    assert "planted" not in str(told) and not Channel.objects.exists()


def test_what_a_thing_is_does_not_change() -> None:
    apply()
    for instead, by in (
        ("kind: error_rate, severity", "kind: latency, severity"),
        (
            "slug: on-call, kind: mail, addresses: [on-call@example.com]",
            'slug: on-call, kind: slack, secret: "env:CHAT_ADDRESS"',
        ),
    ):
        with pytest.raises(BadFile, match="stays so"):
            apply(FILE.replace(instead, by))


def test_objectives_of_the_file_are_those_there_are() -> None:
    assert set(alerting.OBJECTIVES) == {name for name, _ in Slo.OBJECTIVES}
