"""What the declarative file may say. Every refusal names the line and the reason, and repeats no secret."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from console.declarative import schema
from console.declarative.checks import BadFile
from console.declarative.shape import PriceLine
from llmops.budgets.models import Budget
from llmops.providers.models import Provider, Route

MODEL = (
    "slug: m, provider: p, model: m, context_window: 10, max_output_tokens: 5, default_max_output_tokens: 1"
)

PII = "{kind: personal_data, stage: before, action: redact"


def file(section: str, *rows: str) -> str:
    return "\n".join(["version: 1", f"{section}:", *(f"  - {row}" for row in rows), ""])


def refusals(text: str) -> list[tuple[int, str]]:
    with pytest.raises(BadFile) as refused:
        schema.read(text)
    return [(found.line, f"{found.path}: {found.reason}") for found in refused.value.found]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "version: 1"),
        ("# only a comment\n", 1, "empty"),
        ("just text", 1, "members"),
        ("- a\n- b", 1, "members (name: value) here, not a list"),
        ("projects: []", 1, "'version' is missing"),
        ("version: 2", 1, "version 1 of the file, not 2"),
        ('version: "1"', 1, "whole number"),
        ("version: 1\nversion: 1", 2, "twice (first on line 1)"),
        ("version: 1\nrouts: []", 2, "did you mean 'routes'"),
        ("version: 1\nsomething: []", 2, "Members: version, projects"),
        ("version: 1\nprompts:\n  - slug: x", 3, "'versions' is missing"),
        (file("prompts", "{slug: p, versions: []}"), 3, "at least one version"),
        (file("prompts", '{slug: p, versions: [{task: "{{ a }}", variables: []}]}'), 3, "a is not declared"),
        (file("prompts", "{slug: p, versions: [{task: Hi,\n      parameters: {heat: 1}}]}"), 4, "no such parameter"),
        (file("prompts", "{slug: p, versions: [{tsk: Hi}]}"), 3, "'task'"),
        (file("prompts", "{slug: p, versions: [{task: Hi}], labels: {production: x}}"), 3, "whole number"),
        ("version: 1\nprojects: {slug: a}", 2, "write a list here"),
        ("version: 1\nprojects:", 2, "write a list here, not nothing"),
        ("version: 1\nprojects: [a]", 2, "projects[0]: write members"),
        ("version: 1\nx: [1", 2, "not valid YAML"),
        ("version: 1\n\tx: 1", 2, "not valid YAML"),
        ("version: 1\n---\nversion: 1", 2, "not valid YAML"),
        ("version: 1\nx: *nowhere", 2, "anchors and aliases"),
        ("version: 1\na: &a [1]\nb: *a", 3, "anchors and aliases"),
        ("version: 1\nx: \x07", 2, "character"),
        ("version: 1\nprojects: [{? [a] : b}]", 2, "plain text"),
        ("[" * 3000, 1, "nested too deeply"),
        ("version: 1\nmodels: [{parameters: {a: " + "[" * 200 + "]" * 200 + "}}]", 2, ""),
        (file("projects", "{slug: A B}"), 3, "lowercase"),
        (file("projects", "{name: only}"), 3, "'slug' is missing"),
        (file("projects", "{slug: yes}"), 3, "write text here, not true or false; put it in quotes"),
        (file("projects", "{slug: 2024-01-01}"), 3, "not a date; put it in quotes"),
        (file("projects", "{slug: 10}"), 3, "not a number; put it in quotes"),
        (file("projects", "{slug: a}", "{slug: b}", "{slug: a}"), 5, "twice (first on line 3)"),
        (file("projects", '{slug: a, name: "a\\nb"}'), 3, "line breaks"),
        (file("projects", '{slug: a, name: "a\\0b"}'), 3, "control characters"),
        (file("projects", '{slug: a, name: "\\ud800"}'), 3, "invalid Unicode character escape"),
        (file("projects", "{slug: a, cost_centre: x}"), 3, "did you mean 'cost_center'"),
        (file("providers", "{slug: p, kind: openia, base_url: x}"), 3, "did you mean 'openai'"),
        (file("providers", "{slug: p, kind: openai, base_url: x, timeouts: {connect: soon}}"), 3, "number of seconds"),
        (file("providers", "{slug: p, kind: openai, base_url: x, timeouts: {connect: 0}}"), 3, "from 0.1 to 3600"),
        (file("providers", "{slug: p, kind: openai, base_url: x, timeouts: {connect: 1.00001}}"), 3, "not kept"),
        (file("providers", "{slug: p, kind: openai, base_url: x, timeouts: {connect: .inf}}"), 3, "seconds"),
        (file("providers", "{slug: p, kind: openai, base_url: x, timeouts: {conect: 1}}"), 3, "did you mean 'connect'"),
        (file("providers", "{slug: p, kind: openai, base_url: x, allow_private_network: 1}"), 3, "true or false"),
        (file("providers", "{slug: p, kind: openai, base_url: x, max_connections: 1.5}"), 3, "whole number"),
        (file("models", "{slug: m}"), 3, "'provider' is missing"),
        (file("models", f"{{{MODEL}, prices: {{input: 2.50}}}}"), 3, "as text in quotes"),
        (file("models", f'{{{MODEL}, prices: {{input: "2,50"}}}}'), 3, "not an amount"),
        (file("models", f'{{{MODEL}, prices: {{input: "-1"}}}}'), 3, "zero or more"),
        (file("models", f'{{{MODEL}, prices: {{input: "0.0000000001"}}}}'), 3, "decimal places"),
        (file("models", f'{{{MODEL}, prices: {{imput: "1"}}}}'), 3, "did you mean 'input'"),
        (file("models", f'{{{MODEL}, prices: {{input: [{{usd: "1", from: "2027-01-01"}}]}}}}'), 3, "with its zone"),
        (file("models", f'{{{MODEL}, prices: {{input: [{{usd: "1"}}, {{usd: "2"}}]}}}}'), 3, "same moment"),
        (file("models", f"{{{MODEL}, parameters: {{a: .nan}}}}"), 3, "JSON cannot hold"),
        (file("models", f"{{{MODEL}, parameters: {{a: 2024-01-01}}}}"), 3, "JSON cannot hold"),
        (file("models", f"{{{MODEL}, parameters: []}}"), 3, "members"),
        (file("models", f"{{{MODEL}, capabilities: [chats]}}"), 3, "did you mean 'chat'"),
        (file("routes", "{slug: r}"), 3, "'targets' is missing"),
        (file("routes", "{slug: r, targets: [m]}"), 3, "targets[0]: write members"),
        (file("routes", "{slug: r, targets: [{model: m, weigth: 1}]}"), 3, "did you mean 'weight'"),
        (file("routes", "{slug: r, targets: [{model: m, weight: -1}]}"), 3, "from 0 to 1000000"),
        (file("routes", "{slug: r, targets: [{model: m}, {model: m}]}"), 3, "named twice"),
        (file("routes", "{slug: r, targets: [], fallbacks: [m, m]}"), 3, "named twice"),
        (file("routes", "{slug: r, targets: [], breaker: {failure_rate: 50}}"), 3, "from 0.01 to 1"),
        (file("routes", "{slug: r, targets: [], breaker: {failure_rate: 0.555}}"), 3, "not kept"),
        (file("routes", "{slug: r, targets: [], retry: {attempts: 11}}"), 3, "from 1 to 10"),
        (file("routes", "{slug: r, targets: [], fallbacks_for: {rate_limits: [m]}}"), 3, "did you mean 'rate_limit'"),
        (file("routes", "{slug: r, targets: [], fallbacks_for: {timeout: [m, m]}}"), 3, "named twice"),
        (file("routes", "{slug: r, targets: [], fallbacks_for: [m]}"), 3, "members"),
        (file("routes", "{slug: r, targets: [], context: {strategy: larger}}"), 3, "did you mean 'larger_model'"),
        (file("routes", "{slug: r, targets: [], last_resort: {kind: fixed}}"), 3, "none, cached, static"),
        (file("routes", '{slug: r, targets: [], last_resort: {answer: "a\\rb"}}'), 3, "control characters"),
        (file("routes", "{slug: r, targets: [], queue: {timeout: 0}}"), 3, "from 0.1 to 3600"),
        (file("routes", "{slug: r, targets: [], stream: {keep_alive: -1}}"), 3, "from 0 to 3600"),
        (file("routes", "{slug: r, targets: [], policies: pii}"), 3, "write a list here"),
        (file("projects", "{slug: a, default_route: Chat}"), 3, "lowercase"),
        (file("projects", "{slug: a, rpm: 0}"), 3, "from 1"),
        (file("providers", "{slug: p, kind: openai, base_url: x, passthrough: /files}"), 3, "write a list here"),
        (file("service_keys", '{name: a, project: p, secret: "env:A", priority: high}'), 3, "interactive, batch"),
        (file("policies", "{slug: p}"), 3, "'checks' is missing"),
        (file("policies", "{slug: p, checks: []}"), 3, "at least one check"),
        (file("policies", "{slug: p, checks: [{kind: vibes, stage: before, action: block}]}"), 3, "one of length, secrets"),
        (file("policies", "{slug: p, checks: [{kind: refusal, stage: before, action: block}]}"), 3, "runs after"),
        (file("policies", "{slug: p, checks: [{kind: refusal, stage: after, action: redact}]}"), 3, "Possible are"),
        (file("policies", "{slug: p, checks: [{kind: refusal, stage: after, action: block, setings: {}}]}"), 3, "'settings'"),
        (file("policies", f"{{slug: p, checks: [{PII},\n      settings: {{reversible: true,\n        kinds: [soul]}}}}]}}"), 5,
         "policies[0].checks[0].settings.kinds[0]"),
        (file("policies", f"{{slug: p, checks: [{PII},\n      settings: {{kind: [email]}}}}]}}"), 4, "no such setting"),
        (file("budgets", '{scope: "project", limit_usd: "1"}'), 3, "write project: and its name"),
        (file("budgets", '{scope: "projekt:a", limit_usd: "1"}'), 3, "did you mean 'project'"),
        (file("budgets", '{scope: "organisation:a", limit_usd: "1"}'), 3, "nothing follows"),
        (file("budgets", '{scope: "key:a", limit_usd: "1"}'), 3, "key:project/name"),
        (file("budgets", "{scope: organisation, limit_usd: 1.5}"), 3, "floating point"),
        (file("budgets", "{scope: organisation}"), 3, "'limit_usd' is missing"),
        (file("budgets", '{scope: organisation, limit_usd: "1", period: monthly}'), 3, "did you mean 'month'"),
        (file("budgets", '{scope: organisation, limit_usd: "1", thresholds: [0]}'), 3, "from 1 to 1000"),
        (file("budgets", '{scope: organisation, limit_usd: "1", project: a}'), 3, "says itself"),
        (file("budgets", '{scope: organisation, limit_usd: "1"}', '{scope: organisation, limit_usd: "2"}'), 4, "twice"),
        (file("service_keys", '{name: a, project: p, secret: "env:A", rpm: 0}'), 3, "from 1"),
        (file("service_keys", '{name: a, project: p, secret: "env:A", scopes: [inferences]}'), 3, "did you mean"),
        (file("service_keys", '{name: a, project: p, secret: "env:A", expires_at: soon}'), 3, "with its zone"),
        (file("service_keys", "{name: a, project: p}"), 3, "'secret' is missing"),
    ],
)  # fmt: skip
def test_every_fault_has_its_line_and_its_reason(text, line, words):
    found = refusals(text)
    assert any(at == line and words in reason for at, reason in found), found


def test_all_faults_are_told_at_once_in_the_order_of_lines():
    found = refusals("version: 1\nprojects: [{slug: A}]\nroutes: [{slug: r}]\nbudgts: []\n")
    assert [line for line, _ in found] == [2, 3, 4]


SECRET = "sk-proj-PLANTED0123456789abcdef"


@pytest.mark.parametrize(
    "row",
    [
        f"{{name: a, secret: {SECRET}}}",
        f'{{name: a, secret: "pla in:{SECRET}"}}',
        f'{{name: a, secret: ["plain:{SECRET}"]}}',
        f'{{name: a, secret: {{plain: "{SECRET}"}}}}',
        f'{{name: a, secret: "plain:{SECRET}\\n"}}',
        f'{{name: a, secret: "plain:{SECRET * 400}"}}',
        f'{{name: a, secret: "plain:{SECRET}", x: 1}}',
        f'{{name: a, secret: "plain:{SECRET}" x}}',
        f'{{name: a, secret: "plain:{SECRET}',
        f"{{name: a, secret: 'plain:{SECRET}' : 'x'}}",
        f'{{name: a, secret: !!python/object:os.system "{SECRET}"}}',
    ],
)
def test_no_refusal_repeats_a_secret(row):
    text = f"version: 1\nproviders:\n  - {{slug: p, kind: openai, base_url: x, credentials: [{row}]}}\n"
    for _, reason in refusals(text):
        assert SECRET not in reason
        assert SECRET[8:20] not in reason


def test_a_plain_secret_shows_in_no_text_of_an_entry():
    text = f'version: 1\nproviders: [{{slug: p, kind: openai, base_url: x, credentials: [{{name: a, secret: "plain:{SECRET}"}}]}}]'
    entries = schema.read(text)
    assert entries[1].values["secret"].value == SECRET
    assert SECRET not in repr(entries)
    assert SECRET not in str(entries[1].values["secret"])


def test_what_a_whole_file_says():
    entries = schema.read(
        """
version: 1
projects: [{slug: support, owner: ops@example.com, default_route: chat, tpm: 1000}]
providers:
  - {slug: p, kind: openai, base_url: https://h.example/v1/, timeouts: {connect: 0.5, read: 90}}
models:
  - slug: m
    provider: p
    model: m-1
    context_window: 128_000
    max_output_tokens: 10
    default_max_output_tokens: 5
    prices: {input: "2.50", output: [{usd: 10}, {usd: "12.00", from: "2027-01-01T01:00:00+01:00"}]}
routes:
  - slug: chat
    targets: [{model: m}, {model: n, weight: 0}]
    retry: {total_timeout: 12.5}
    breaker: {failure_rate: 0.29}
    fallbacks_for: {rate_limit: [n, m], timeout: []}
    context: {strategy: larger_model, larger_model: n}
    last_resort: {kind: static, answer: "Come back\\n\\tlater."}
    queue: {timeout: 0.25}
budgets:
  - {scope: "tag:Team A/B", limit_usd: "50.00", period: week, thresholds: [100, 50, 100], project: support}
service_keys:
  - {name: ci, project: support, secret: "env:CI", models: ["*"], expires_at: "2030-01-01T00:00:00Z"}
"""
    )
    found = {(entry.kind, entry.key): entry for entry in entries}
    assert found["project", "support"].values == {
        "name": "support",
        "owner": "ops@example.com",
        "cost_center": "",
        "rpm": None,
        "tpm": 1000,
        "concurrency": None,
        "keep_texts_percent": 0,
        "keep_texts_days": 7,
        "keep_texts_readable": False,
    }
    assert found["default route of", "support"].values == {"default_route": "chat"}
    provider = found["provider", "p"].values
    assert (provider["base_url"], provider["connect_timeout_ms"], provider["read_timeout_ms"]) == (
        "https://h.example/v1",
        500,
        90_000,
    )
    prices = found["model", "m"].values["prices"]
    assert prices["input"] == [PriceLine(2_500_000_000)]
    assert prices["output"][1] == PriceLine(12_000_000_000, datetime(2027, 1, 1, tzinfo=UTC))
    route = found["route", "chat"]
    assert route.values["targets"] == {"m": 100, "n": 0}
    assert (route.values["total_timeout_ms"], route.values["breaker_failure_percent"]) == (12_500, 29)
    assert (route.line, route.line_of("targets"), route.line_of("larger_model")) == (15, 16, 20)
    assert route.values["fallbacks_for"] == {"rate_limit": ["n", "m"]}
    assert (route.values["context_strategy"], route.values["larger_model"]) == ("larger_model", "n")
    assert (route.values["last_resort"], route.values["static_answer"]) == ("static", "Come back\n\tlater.")
    assert (route.values["queue_size"], route.values["queue_timeout_ms"]) == (200, 250)
    budget = found["budget", "tag-team-a-b-week"].values
    assert (budget["scope_kind"], budget["scope_value"], budget["thresholds"]) == (
        "tag",
        "Team A/B",
        [50, 100],
    )
    assert found["service key", "support/ci"].values["expires_at"] == datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("model", [Provider, Route, Budget])
def test_what_the_file_leaves_out_is_what_the_console_would_set(model):
    texts = {
        Provider: file("providers", "{slug: p, kind: openai, base_url: x}"),
        Route: file("routes", "{slug: r, targets: []}"),
        Budget: file("budgets", '{scope: organisation, limit_usd: "1"}'),
    }
    [entry] = schema.read(texts[model])
    compared = 0
    for field in model._meta.concrete_fields:
        if field.has_default() and field.name in entry.values:
            assert entry.values[field.name] == field.get_default(), field.name
            compared += 1
    assert compared >= 4


@given(st.text(max_size=200))
@example("version: 1\nprojects: [{slug: !!binary aGk=}]")
@example("version: 1\nprojects: [{slug: !!set {a}}]")
@example("version: 1\nprojects: [{<<: {slug: a}}]")
@example("%YAML 9.9\n---\nversion: 1")
@example("version: 0x1\nprojects: [{slug: '\\ud800'}]")
@example('version: 1\nprojects: [{slug: a, name: "\\ud800"}]')
@example("version: " + "9" * 5000)
@example("version: 1_0:99\n")
@example("version: 1\nmodels: [{parameters: {a: 1e999}}]")
def test_any_text_is_read_or_refused_with_a_line(text):
    try:
        schema.read(text)
    except BadFile as refused:
        assert all(found.line >= 1 and found.reason for found in refused.found)
