"""Whatever can be configured can be exported, and its file has nothing to do where it came from."""

from __future__ import annotations

import re
from copy import deepcopy
from datetime import UTC, datetime

import pytest
import yaml
from django.db import transaction
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from console.declarative import schema
from console.declarative.alerting import CHANNEL, OBJECTIVES, SEVERITIES
from console.declarative.apply import apply_text
from console.declarative.export import export_text
from console.declarative.state import read_state
from llmops.access.rules import SCOPES
from llmops.policies.examples import EXAMPLES
from llmops.providers.rules import CAPABILITIES, FAILURE_CLASSES, TOKEN_CLASSES
from tests.cast import last_sequence
from tests.configuring import OPERATOR
from tests.trying import tries

pytestmark = pytest.mark.django_db
CHAT = "https://chat.example.com/services/T0/B0"

slugs = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,10}", fullmatch=True)
#: Words that YAML reads as something else when nobody quotes them, and texts that need care.
words = st.one_of(
    st.sampled_from(
        [
            "yes",
            "no",
            "null",
            "~",
            "1e3",
            "0x1f",
            "2024-01-01",
            "1:30",
            "=",
            "<<",
            "*a",
            "&a",
            "- a",
            "#x",
            "'",
            '"',
            "a: b",
        ]
    ),
    st.text(
        st.characters(exclude_categories=["Cs", "Cc"], include_characters="äß日😀\u0085\u2028\ufeff"),
        max_size=20,
    ),
)
names = words.filter(str.strip)
amounts = st.integers(0, 10**15).map(lambda nano: f"{nano // 10**9}.{nano % 10**9:09d}")
_CENTURY = [datetime.fromisoformat(f"{year}-01-01") for year in (2100, 2200)]
instants = st.datetimes(*_CENTURY).map(lambda at: at.replace(tzinfo=UTC).isoformat())
# The largest that every class may have: 100 USD for one image, second or character, 10,000 for a million tokens.
price_amounts = st.integers(0, 100 * 10**9).map(lambda nano: f"{nano // 10**9}.{nano % 10**9:09d}")
prices = st.dictionaries(
    st.sampled_from([name for name, _ in TOKEN_CLASSES]),
    st.one_of(
        price_amounts,
        st.lists(
            st.fixed_dictionaries({"usd": price_amounts, "from": instants}),
            max_size=2,
            unique_by=lambda row: row["from"],
        ),
        st.tuples(price_amounts, price_amounts, instants).map(
            lambda row: [{"usd": row[0]}, {"usd": row[1], "from": row[2]}]
        ),
    ),
    max_size=3,
)
json_values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**40), 2**40), words,
        st.floats(-(10**6), 10**6, allow_nan=False).map(lambda number: round(number, 4) + 0.0),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(words, inner, max_size=2)),
    max_leaves=4,
)  # fmt: skip
PASSED = ["/vector_stores", "/vector_stores/*", "/fine_tuning/jobs/*/events", "/~a.b/x_y-z"]
limits = st.fixed_dictionaries(
    {},
    optional={name: st.integers(1, 10**6) for name in ("rpm", "tpm", "concurrency")},
)
kept_texts = st.fixed_dictionaries(
    {},
    optional={
        "keep_texts_percent": st.integers(0, 100),
        "keep_texts_days": st.integers(1, 90),
        "keep_texts_readable": st.booleans(),
    },
)
answers = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\täß日😀\u0085\u2028\ufeff"),
    max_size=20,
)
milliseconds = st.integers(100, 3_600_000).map(lambda ms: ms / 1000)


@st.composite
def configurations(draw):
    projects = draw(st.lists(slugs, max_size=2, unique=True))
    providers = draw(st.lists(slugs, max_size=2, unique=True))
    models = draw(st.lists(slugs, max_size=3, unique=True)) if providers else []
    pinned = [draw(model(slug, providers)) for slug in models]
    named = [draw(policy(slug)) for slug in draw(st.lists(slugs, max_size=2, unique=True))]
    routes = (
        draw(st.lists(slugs.filter(lambda slug: slug not in models), max_size=2, unique=True))
        if models
        else []
    )
    keys = (
        draw(st.lists(st.tuples(st.sampled_from(projects), names), max_size=2, unique=True))
        if projects
        else []
    )
    routed = [draw(route(slug, pinned, [row["slug"] for row in named])) for slug in routes]
    return {
        "version": 1,
        "projects": [
            {
                "slug": slug, "name": draw(words), "cost_center": draw(words),
                "owner": draw(st.sampled_from(["", "a@b.example"])),
                **({"default_route": draw(st.sampled_from(routes))} if routes and draw(st.booleans()) else {}),
                **draw(limits),
                **draw(kept_texts),
            }
            for slug in projects
        ],
        "providers": [draw(provider(slug)) for slug in providers],
        "models": pinned,
        "policies": named,
        "routes": routed,
        "prompts": draw(
            st.lists(prompt(projects, writing(routed, pinned)), max_size=2, unique_by=lambda row: row["slug"])
        ),
        "tools": draw(st.lists(tool(projects), max_size=2, unique_by=lambda row: row["slug"])) if projects else [],
        "service_keys": [draw(service_key(number, *key)) for number, key in enumerate(keys)],
        "budgets": draw(budgets(projects, keys, routes)),
        "slos": draw(st.lists(slo(projects, routes), max_size=2, unique_by=lambda row: row["slug"])),
        "alert_rules": draw(st.lists(alert_rule(projects, routes), max_size=2, unique_by=lambda row: row["slug"])),
        "alert_channels": draw(st.lists(alert_channel(projects), max_size=2, unique_by=lambda row: row["slug"])),
    }  # fmt: skip


def placed(draw, projects, routes):
    found = {"route": draw(st.sampled_from(["", *routes]))}
    if projects and draw(st.booleans()):
        found["project"] = draw(st.sampled_from(projects))
    return found


@st.composite
def slo(draw, projects, routes):
    objective = draw(st.sampled_from(list(OBJECTIVES)))
    most = {
        "within": st.integers(1, 3_600_000_000).map(lambda us: us / 1e6),
        "cost_usd": amounts.filter(lambda text: set(text) > set("0.")),
    }
    wanted = OBJECTIVES[objective]
    return {
        "slug": draw(slugs), "objective": objective, "target": draw(st.integers(1, 999_999)) / 10_000,
        "window_days": draw(st.sampled_from([28, 30])), **placed(draw, projects, routes),
        **({wanted: draw(most[wanted])} if wanted else {}),
    }  # fmt: skip


@st.composite
def alert_rule(draw, projects, routes):
    numbers = {
        "percent": st.integers(1, 10_000).map(lambda part: part / 100),
        "min_calls": st.integers(1, 1000),
    }
    return {
        "slug": draw(slugs), "kind": draw(st.sampled_from(["error_rate", "fallback_rate"])),
        "numbers": draw(st.fixed_dictionaries({}, optional=numbers)), "severity": draw(st.sampled_from(SEVERITIES)),
        "resolve_after": draw(st.integers(0, 86_400)), "enabled": draw(st.booleans()),
        **draw(st.fixed_dictionaries({}, optional={"runbook": st.just("slow-answers"), "model": slugs})),
        **placed(draw, projects, routes),
    }  # fmt: skip


@st.composite
def alert_channel(draw, projects):
    kinds = {
        "mail": {"addresses": ["a@b.example", "c@d.example"]},
        "webhook": {"url": "https://hook.example.com/a?b=c"},
        "slack": {"secret": "env:SOME_CHAT"},
    }
    kind = draw(st.sampled_from(sorted(kinds)))
    clock = st.tuples(st.integers(0, 23), st.integers(0, 59)).map(lambda at: f"{at[0]:02}:{at[1]:02}")
    return {
        "slug": draw(slugs), "kind": kind, **kinds[kind],
        "severities": draw(st.lists(st.sampled_from(SEVERITIES), min_size=1, unique=True)),
        "after_minutes": draw(st.integers(0, 10_080)), "enabled": draw(st.booleans()),
        **draw(st.fixed_dictionaries({}, optional={"quiet": st.tuples(clock, clock).map("-".join), "timezone": st.just("Asia/Kolkata")})),
        **({"project": draw(st.sampled_from(projects))} if projects and draw(st.booleans()) else {}),
    }  # fmt: skip


@st.composite
def provider(draw, slug):
    private = draw(st.booleans())
    return {
        "slug": slug,
        "name": draw(words),
        "kind": draw(st.sampled_from(["compatible", "simulator"])),
        "base_url": "http://10.0.0.1:8000/v1" if private else "https://h.example/v1",
        "allow_private_network": private,
        "timeouts": draw(
            st.dictionaries(st.sampled_from(["connect", "read", "write", "pool"]), milliseconds)
        ),
        "max_connections": draw(st.integers(1, 100_000)),
        "proxy_url": draw(st.sampled_from(["", "http://proxy.example:3128"])),
        "passthrough": draw(st.lists(st.sampled_from(PASSED), max_size=3, unique=True)),
        "shared_objects": draw(
            st.lists(st.sampled_from(["vs_abc123", "pmpt_*", "voice_1"]), max_size=3, unique=True)
        ),
        "organization": draw(words),
        "project": draw(words),
        "credentials": [
            {
                "name": name,
                "secret": draw(st.sampled_from([f"plain:sk-of-{slug}-0123456789", "env:SOME_KEY"])),
            }
            for name in draw(st.lists(names, max_size=2, unique=True))
        ],
    }


@st.composite
def model(draw, slug, providers):
    window = draw(st.integers(1, 10**6))
    most = draw(st.integers(1, window))
    return {
        "slug": slug,
        "provider": draw(st.sampled_from(providers)),
        "model": draw(st.sampled_from(["m-1", "sim-x+fail_rate=0.5", "org/model:latest"])),
        "context_window": window,
        "max_output_tokens": most,
        "default_max_output_tokens": draw(st.integers(1, most)),
        "parameters": draw(
            st.dictionaries(st.sampled_from(["temperature", "stop", "seed", "yes"]), json_values)
        ),
        "capabilities": draw(st.lists(st.sampled_from(CAPABILITIES), max_size=3)),
        "prices": draw(prices),
    }


@st.composite
def tool(draw, projects):
    risk = draw(st.sampled_from(["read", "write"]))
    how = draw(
        st.sampled_from(
            [
                {"execution": "service"},
                {"executor": "webhook", "settings": {"url": "https://h.example/hook"}},
                {
                    "executor": "webhook",
                    "settings": {"url": "http://10.0.0.1/x", "allow_private_network": True},
                },
            ]
        )
    )
    return {
        "slug": draw(slugs),
        "project": draw(st.sampled_from(projects)),
        "description": draw(st.sampled_from(["Does it.", "Does\nit: ja, 日"])),
        "parameters": {
            "type": "object",
            "properties": draw(st.sampled_from([{}, {"n": {"type": "number", "maximum": 1.5}}])),
        },
        "risk": risk,
        **deepcopy(how),
        **draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "rules": st.just([{"when": "n > 1", "risk": "destructive"}]),
                    "approvals": st.dictionaries(
                        st.sampled_from(["destructive", "irreversible"]), st.integers(1, 5)
                    ),
                    "says": st.sampled_from(["", "Do {n}"]),
                    "approve_within": st.integers(60, 1000),
                    "timeout": st.integers(1, 600),
                    "concurrency": st.integers(1, 100),
                    "callers": st.lists(names, max_size=2, unique=True),
                    "dry_run": st.booleans(),
                },
            )
        ),
    }


@st.composite
def policy(draw, slug):
    # A moderation asks a model that there need not be.
    checks = st.sampled_from([check for kind, check in EXAMPLES.items() if kind != "moderation"]).map(
        deepcopy
    )
    said = st.fixed_dictionaries(
        {
            "kind": st.just("deny"), "stage": st.just("after"), "action": st.just("block"),
            "settings": st.lists(answers.filter(lambda text: len(text.strip()) >= 2), min_size=1, max_size=2)
            .map(lambda words: {"rules": [{"name": "x", "words": words}]}),
        }
    )  # fmt: skip
    return {
        "slug": slug,
        "description": draw(words),
        "everywhere": draw(st.booleans()),
        "checks": draw(st.lists(st.one_of(checks, said), min_size=1, max_size=3)),
    }


@st.composite
def prompt(draw, projects, routes):
    versions = draw(st.lists(prompt_version(routes), min_size=1, max_size=3, unique_by=str))
    labels = st.dictionaries(
        slugs.map(lambda slug: f"l{slug}"[:63]), st.integers(1, len(versions)), max_size=2
    )
    return {
        "slug": draw(slugs),
        "description": draw(words),
        "versions": versions,
        "labels": draw(labels),
        **({"project": draw(st.sampled_from(projects))} if projects and draw(st.booleans()) else {}),
    }


@st.composite
def prompt_version(draw, routes):
    declared = st.fixed_dictionaries(
        {"name": st.just("ticket")},
        optional={"max_length": st.integers(100, 200), "description": words, "trusted": st.booleans()},
    )
    plain = answers.filter(lambda text: not {"{", "<", "["} & set(text))
    found = {
        "system": "Triage: " + draw(plain),
        "user": "{{ ticket }}",
        "note": draw(words).strip(),
        **({"variables": [draw(declared)]} if draw(st.booleans()) else {}),
        **({"route": draw(st.sampled_from(routes))} if routes and draw(st.booleans()) else {}),
        "parameters": draw(
            st.fixed_dictionaries(
                {}, optional={"temperature": st.sampled_from([0, 0.5, 1]), "stop": st.just(["a\nb"])}
            )
        ),
        "samples": draw(st.sampled_from([[], [{"name": "one", "variables": {"ticket": "It\nburns: yes"}}]])),
    }
    if draw(st.booleans()):
        found["output_schema"] = {"type": "object", "properties": {"a": {"type": "string"}}}
    return found


@st.composite
def route(draw, slug, pinned, policies):
    models = [row["slug"] for row in pinned]
    some = st.lists(st.sampled_from(models), unique=True)
    targets = draw(st.lists(st.sampled_from(models), min_size=1, unique=True))
    return {
        "slug": slug,
        "description": draw(words),
        "targets": [{"model": name, "weight": draw(st.integers(1, 1000))} for name in targets],
        "fallbacks": draw(some),
        "fallbacks_for": draw(
            st.dictionaries(st.sampled_from([name for name, _ in FAILURE_CLASSES]), some, max_size=3)
        ),
        "context": draw(context(targets, pinned)),
        "last_resort": draw(
            st.one_of(
                st.fixed_dictionaries(
                    {}, optional={"kind": st.sampled_from(["none", "cached"]), "answer": answers}
                ),
                st.fixed_dictionaries({"kind": st.just("static"), "answer": answers.filter(str.strip)}),
            )
        ),
        "queue": draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "max_concurrency": st.integers(0, 100_000),
                    "size": st.integers(0, 100_000),
                    "timeout": milliseconds,
                },
            )
        ),
        "stream": {"keep_alive": draw(st.integers(0, 3600))},
        "retry": {"attempts": draw(st.integers(1, 10)), "total_timeout": draw(milliseconds)},
        "breaker": {"failure_rate": draw(st.integers(1, 100)) / 100, "window": draw(st.integers(1, 3600))},
        "cache": {"ttl": draw(st.integers(0, 2_592_000)), "tools": draw(st.booleans())},
        "clamp_output": draw(st.booleans()),
        "policies": draw(st.lists(st.sampled_from(policies), unique=True)) if policies else [],
    }


def writers_of(pinned):
    """Slugs of the models that surely answer with text: what declares anything else may be for that alone."""
    others = {"embeddings", "images", "moderation", "speech", "transcription"}
    return [row["slug"] for row in pinned if others.isdisjoint(row["capabilities"])]


def writing(routed, pinned):
    """Slugs of the routes that a prompt may go."""
    writers = set(writers_of(pinned))
    return [
        row["slug"]
        for row in routed
        if writers.issuperset([*(one["model"] for one in row["targets"]), *row["fallbacks"]])
    ]


@st.composite
def context(draw, targets, pinned):
    """Strategies that can be published: a larger model is larger, and what summarises can write."""
    windows = {row["slug"]: row["context_window"] for row in pinned}
    larger = [slug for slug in windows if windows[slug] > max(windows[name] for name in targets)]
    writers = writers_of(pinned)
    models = st.sampled_from(list(windows))
    choices = [
        st.fixed_dictionaries(
            {"strategy": st.sampled_from(["refuse", "drop_oldest"])},
            optional={"larger_model": models, "summary_model": models},
        )
    ]
    if larger:
        choices.append(
            st.fixed_dictionaries(
                {"strategy": st.just("larger_model"), "larger_model": st.sampled_from(larger)}
            )
        )
    if writers:
        choices.append(
            st.fixed_dictionaries(
                {"strategy": st.just("summarize"), "summary_model": st.sampled_from(writers)}
            )
        )
    return draw(st.one_of(choices))


@st.composite
def service_key(draw, number, project, name):
    scopes = draw(
        st.lists(
            st.sampled_from([scope for scope in SCOPES if scope != "organisation"]), min_size=1, max_size=3
        )
    )
    return {
        "project": project,
        "name": name,
        "secret": f"plain:service-key-{number}-0123456789abcdef",
        "scopes": scopes,
        "routes": draw(st.lists(st.one_of(st.just("*"), slugs), max_size=2)),
        "models": draw(st.lists(st.one_of(st.just("*"), slugs), max_size=2)),
        **draw(limits),
        **draw(st.fixed_dictionaries({}, optional={"priority": st.sampled_from(["interactive", "batch"])})),
        **draw(st.fixed_dictionaries({}, optional={"expires_at": instants})),
    }


@st.composite
def budgets(draw, projects, keys, known):
    scopes = ["organisation", "feature:Über x", "tag:a:b", "user:42", "route:chat"]
    scopes += [f"project:{slug}" for slug in projects]
    scopes += [
        f"key:{project}/{name}" for project, name in keys if name == name.strip() and name.isprintable()
    ]
    rows = []
    for scope in draw(st.lists(st.sampled_from(scopes), max_size=3, unique=True)):
        row = {
            "name": f"b-{len(rows)}",
            "scope": scope,
            "limit_usd": draw(amounts),
            "period": draw(st.sampled_from(["day", "week", "month", "quarter", "once"])),
            "timezone": draw(st.sampled_from(["UTC", "Europe/Berlin"])),
            "hard": draw(st.booleans()),
            "thresholds": draw(st.lists(st.integers(1, 1000), max_size=3)),
        }
        row["notify"] = draw(st.lists(st.sampled_from(["a@example.com", "b.c+d@example.org"]), max_size=2))
        if row["hard"] and known and draw(st.booleans()):
            row["at_limit_route"] = draw(st.sampled_from(known))
        if row["hard"] and row["period"] != "once":
            row["carry_over_usd"] = draw(amounts)
        if projects and scope.split(":")[0] in ("feature", "tag", "user", "route"):
            row["project"] = draw(st.sampled_from(projects))
        rows.append(row)
    return rows


class _Undone(Exception):
    pass


@given(configurations())
@pytest.mark.timeout(600)
@tries(25, at_least=6, suppress_health_check=list(HealthCheck))
def test_an_exported_file_has_nothing_to_do_and_makes_the_same_elsewhere(configuration):
    text = yaml.safe_dump(configuration, allow_unicode=True, sort_keys=False)
    environment = {"SOME_KEY": "sk-some-key-0123456789", "SOME_CHAT": CHAT}
    with pytest.raises(_Undone), transaction.atomic():
        apply_text(OPERATOR, text, environment=environment)
        exported, before = export_text(read_state()), last_sequence()
        assert apply_text(OPERATOR, text, environment=environment).nothing_to_do
        assert apply_text(OPERATOR, exported, environment={}).nothing_to_do
        assert last_sequence() == before
        assert export_text(read_state()) == exported
        raise _Undone
    # On an installation that has none of it, with a secret for each service key.
    variables = {
        entry.values["secret"].value: f"another-service-key-{number}-0123456789"
        for number, entry in enumerate(schema.read(exported))
        if entry.kind == "service key"
    }
    chats = [
        one.values["secret"].value
        for one in schema.read(exported)
        if one.kind == CHANNEL and one.values["secret"]
    ]
    variables |= dict.fromkeys(chats, CHAT)
    expected = len([entry for entry in schema.read(exported) if entry.kind == "service key"])
    if len(variables) < expected + len(set(chats)):
        # Two names that differ only where a variable's name cannot: one variable, one key.
        return
    with pytest.raises(_Undone), transaction.atomic():
        apply_text(OPERATOR, exported, environment=variables)
        assert export_text(read_state()) == exported
        raise _Undone


@given(configurations())
@tries(20, at_least=6, suppress_health_check=list(HealthCheck))
def test_what_is_written_is_read_as_the_same(configuration):
    text = yaml.safe_dump(configuration, allow_unicode=True, sort_keys=False)
    entries = schema.read(text)
    assert len({(entry.kind, entry.key) for entry in entries}) == len(entries)
    lines = text.splitlines()
    for entry in entries:
        assert re.match(r"\s*(- |\{|[a-z_]+:)", lines[entry.line - 1]), lines[entry.line - 1]
