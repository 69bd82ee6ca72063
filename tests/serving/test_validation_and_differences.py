"""What is wrong with a document, and what changed between two: pure, by the table."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.serving.differences import describe
from llmops.serving.snapshot import (
    EMPTY_DOCUMENT,
    FORMAT,
    ModelEntry,
    PriceRow,
    ProviderEntry,
    RevisionDocument,
    RouteEntry,
    TargetEntry,
    decode_document,
    encode_document,
)
from llmops.serving.validation import ERROR, Facts, validate

PROVIDER = ProviderEntry("openai", "openai", "https://api.openai.com/v1", 1, 1, 1, 1, 1)
PRICES = (PriceRow("input", 10, 1), PriceRow("output", 10, 1))
MODEL = ModelEntry("large", 1, "openai", "large-1", 8_000, 1_000, 100, prices=PRICES, capabilities=("chat",))
ROUTE = RouteEntry("chat", (TargetEntry("large"),))
FACTS = Facts(now=100.0, providers_with_keys=frozenset({"openai"}))


def document(*, providers=(PROVIDER,), models=(MODEL,), routes=(ROUTE,)):
    return RevisionDocument(FORMAT, tuple(providers), tuple(models), tuple(routes))


def but(entry, **changes):
    return msgspec.structs.replace(entry, **changes)


def codes(problems):
    return [(problem.level, problem.code, problem.slug) for problem in problems]


def test_a_whole_document_has_no_problem():
    assert validate(document(), FACTS) == []
    assert validate(EMPTY_DOCUMENT, FACTS) == []


@pytest.mark.parametrize(
    ("found", "code", "slug"),
    [
        (document(routes=[but(ROUTE, targets=())]), "no_targets", "chat"),
        (document(routes=[but(ROUTE, targets=(TargetEntry("large", 0),))]), "no_weight", "chat"),
        (document(routes=[but(ROUTE, targets=(TargetEntry("gone"),))]), "model_gone", "chat"),
        (document(routes=[but(ROUTE, fallbacks=("gone",))]), "model_gone", "chat"),
        (document(routes=[but(ROUTE, fallbacks_for={"timeout": ("gone",)})]), "model_gone", "chat"),
        (document(routes=[but(ROUTE, larger_model="gone")]), "model_gone", "chat"),
        (document(routes=[but(ROUTE, summary_model="gone")]), "model_gone", "chat"),
        (document(routes=[but(ROUTE, fallbacks_for={"bad_mood": ("large",)})]), "class_unknown", "chat"),
        (document(routes=[but(ROUTE, context_strategy="hope")]), "strategy_unknown", "chat"),
        (document(routes=[but(ROUTE, context_strategy="larger_model")]), "no_larger_model", "chat"),
        (
            document(routes=[but(ROUTE, context_strategy="larger_model", larger_model="large")]),
            "larger_model_small",
            "chat",
        ),
        (document(routes=[but(ROUTE, context_strategy="summarize")]), "no_summary_model", "chat"),
        (
            document(
                models=[MODEL, but(MODEL, slug="vectors", capabilities=("embeddings",))],
                routes=[but(ROUTE, context_strategy="summarize", summary_model="vectors")],
            ),
            "summary_model_mute",
            "chat",
        ),
        (document(routes=[but(ROUTE, last_resort="prayer")]), "last_resort_unknown", "chat"),
        (document(routes=[but(ROUTE, last_resort="static")]), "no_static_answer", "chat"),
        (
            document(routes=[but(ROUTE, last_resort="static", static_answer="  ")]),
            "no_static_answer",
            "chat",
        ),
        (document(routes=[but(ROUTE, policies=("pii",))]), "policy_gone", "chat"),
        (document(providers=[but(PROVIDER, passthrough=("/files/*",))]), "passthrough", "openai"),
        (document(routes=[but(ROUTE, slug="large")]), "name_taken", "large"),
        (document(providers=[]), "provider_gone", "large"),
        (document(models=[but(MODEL, context_window=10)]), "context_window", "large"),
        (
            document(models=[but(MODEL, max_output_tokens=0, default_max_output_tokens=0)]),
            "no_output",
            "large",
        ),
        (document(models=[but(MODEL, default_max_output_tokens=0)]), "no_default_output", "large"),
        (document(providers=[but(PROVIDER, base_url="http://api.openai.com/v1")]), "base_url", "openai"),
        (document(providers=[but(PROVIDER, base_url="https://127.0.0.1/v1")]), "base_url", "openai"),
    ],
)
def test_what_keeps_a_document_from_being_published(found, code, slug):
    problems = validate(found, FACTS)
    assert (ERROR, code, slug) in codes(problems)
    assert slug in next(problem.message for problem in problems if problem.code == code)


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"archived_models": frozenset({"gone"})}, "model_archived"),
        ({"versionless_models": frozenset({"gone"})}, "model_versionless"),
        ({}, "model_gone"),
    ],
)
def test_why_a_model_is_missing_is_said(facts, code):
    found = document(routes=[but(ROUTE, targets=(TargetEntry("gone"),))])
    problems = validate(found, replace(FACTS, **facts))
    assert (ERROR, code, "chat") in codes(problems)


@pytest.mark.parametrize(
    ("found", "facts", "code", "slug"),
    [
        (document(models=[but(MODEL, prices=())]), {}, "unpriced", "large"),
        (document(models=[but(MODEL, prices=PRICES[:1])]), {}, "unpriced", "large"),
        (
            document(models=[but(MODEL, prices=(PriceRow("input", 10, 1), PriceRow("output", 101, 1)))]),
            {},
            "unpriced",
            "large",
        ),
        (document(), {"providers_with_keys": frozenset()}, "no_key", "openai"),
        (document(), {"paused_providers": {"openai": "broken"}}, "paused", "openai"),
        (document(), {"paused_routes": {"chat": "broken"}}, "paused", "chat"),
        (document(), {"degraded_routes": {"chat": "slow"}}, "degraded", "chat"),
        (document(), {"degraded_routes": {"chat": "slow"}}, "nothing_left", "chat"),
        (document(), {"default_routes": {"support": "gone"}}, "default_route_gone", "support"),
        (document(routes=[but(ROUTE, last_resort="cached")]), {}, "cache_off", "chat"),
        (document(routes=[but(ROUTE, cache_tools=True)]), {}, "cache_tools_off", "chat"),
        (document(routes=[but(ROUTE, static_answer="Later.")]), {}, "static_answer_unused", "chat"),
        (document(routes=[but(ROUTE, larger_model="large")]), {}, "larger_model_unused", "chat"),
        (document(routes=[but(ROUTE, summary_model="large")]), {}, "summary_model_unused", "chat"),
        (document(routes=[but(ROUTE, queue_timeout_ms=90_000)]), {}, "queue_outlasts", "chat"),
        (
            document(routes=[but(ROUTE, fallbacks_for={"context_length": ("large",)})]),
            {},
            "no_larger_fallback",
            "chat",
        ),
        (
            document(routes=[but(ROUTE, fallbacks_for={"timeout": ("large",)}, attempts=1)]),
            {},
            "fallbacks_unreached",
            "chat",
        ),
        (
            document(
                models=[but(MODEL, capabilities=("embeddings",))],
                routes=[but(ROUTE, last_resort="static", static_answer="Later.")],
            ),
            {},
            "static_not_text",
            "chat",
        ),
        (
            document(
                models=[but(MODEL, capabilities=("embeddings",))],
                routes=[but(ROUTE, context_strategy="drop_oldest")],
            ),
            {},
            "no_turns",
            "chat",
        ),
        (document(routes=[but(ROUTE, fallbacks=("large",))]), {}, "repeated", "chat"),
        (document(routes=[but(ROUTE, fallbacks=("large",), attempts=1)]), {}, "fallbacks_unreached", "chat"),
        (
            document(
                models=[MODEL, but(MODEL, slug="tiny", context_window=2_000)],
                routes=[but(ROUTE, fallbacks=("tiny",))],
            ),
            {},
            "smaller_fallback",
            "chat",
        ),
        (
            document(
                models=[MODEL, but(MODEL, slug="vectors", capabilities=("embeddings",))],
                routes=[but(ROUTE, fallbacks=("vectors",))],
            ),
            {},
            "mixed_kinds",
            "chat",
        ),
        (document(), {"versionless_models": frozenset({"half"})}, "no_version", "half"),
    ],
)
def test_what_is_worth_knowing_does_not_keep_it_back(found, facts, code, slug):
    problems = validate(found, replace(FACTS, **facts))
    assert ("warning", code, slug) in codes(problems)
    assert all(problem.level != ERROR for problem in problems)


def test_a_model_that_is_larger_than_every_target_takes_long_inputs():
    larger = but(MODEL, slug="larger", context_window=8_001)
    fits = but(ROUTE, context_strategy="larger_model", larger_model="larger")
    assert validate(document(models=[MODEL, larger], routes=[fits]), FACTS) == []
    degraded = replace(FACTS, degraded_routes={"chat": "slow"})
    kept = but(ROUTE, last_resort="static", static_answer="Later.")
    assert [code for _, code, _ in codes(validate(document(routes=[kept]), degraded))] == ["degraded"]


def test_a_policy_that_was_put_away_is_told_from_one_that_never_was():
    named = document(routes=[but(ROUTE, policies=("pii",))])
    facts = replace(FACTS, archived_policies=frozenset({"pii"}))
    assert codes(validate(named, facts)) == [(ERROR, "policy_archived", "chat")]


def test_embeddings_need_no_price_for_output():
    vectors = but(
        MODEL,
        max_output_tokens=0,
        default_max_output_tokens=0,
        capabilities=("embeddings",),
        prices=PRICES[:1],
    )
    assert validate(document(models=[vectors]), FACTS) == []


def test_an_unpriced_model_says_that_there_are_hard_budgets():
    found = document(models=[but(MODEL, prices=())])
    [problem] = validate(found, replace(FACTS, hard_budgets=True))
    assert "there are hard budgets" in problem.message


def test_errors_come_first():
    found = document(
        providers=[but(PROVIDER, base_url="x")],
        models=[but(MODEL, prices=())],
        routes=[but(ROUTE, targets=())],
    )
    levels = [problem.level for problem in validate(found, FACTS)]
    assert levels == sorted(levels)
    assert levels[0] == ERROR


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        (document(), document(), []),
        (
            EMPTY_DOCUMENT,
            document(),
            [
                "provider openai added: https://api.openai.com/v1",
                "model large added: large-1 at openai",
                "route chat added: large (100)",
            ],
        ),
        (
            document(),
            document(
                routes=[
                    ROUTE,
                    but(
                        ROUTE,
                        slug="guarded",
                        fallbacks=("tiny",),
                        fallbacks_for={"timeout": ("a", "b")},
                        policies=("no-personal",),
                        cache_ttl_s=60,
                    ),
                ]
            ),
            [
                "route guarded added: large (100); then tiny; after timeout a, b; policies no-personal; cache (s) 60",
            ],
        ),
        (
            document(),
            EMPTY_DOCUMENT,
            ["provider openai removed", "model large removed", "route chat removed"],
        ),
        (
            document(),
            document(providers=[but(PROVIDER, read_timeout_ms=5, proxy_url="http://p")]),
            ["provider openai: read time-out (ms) 1 → 5", "provider openai: proxy none → http://p"],
        ),
        (
            document(),
            document(models=[but(MODEL, version=2, parameters={"temperature": 0.5})]),
            ["model large: version 1 → 2", "model large: parameter temperature added (0.5)"],
        ),
        (
            document(),
            document(models=[but(MODEL, prices=(*PRICES, PriceRow("output", 1_800_000_000, 2_500_000_000)))]),
            ["model large: price of output added: 2.50 USD per million tokens from 2027-01-15 08:00 UTC"],
        ),
        (
            document(),
            document(
                routes=[
                    but(
                        ROUTE, targets=(TargetEntry("large", 80), TargetEntry("tiny", 20)), clamp_output=False
                    )
                ]
            ),
            [
                "route chat: target large weight 100 → weight 80",
                "route chat: target tiny added (weight 20)",
                "route chat: lowers the output cap to the budget yes → no",
            ],
        ),
        (
            document(routes=[but(ROUTE, fallbacks=("a", "b"))]),
            document(routes=[but(ROUTE, fallbacks=("b", "a"))]),
            ["route chat: fallbacks a, b → b, a"],
        ),
        (
            document(routes=[but(ROUTE, fallbacks_for={"timeout": ("a",), "rate_limit": ("a",)})]),
            document(
                routes=[but(ROUTE, fallbacks_for={"timeout": ("a", "b"), "credential": ("c",)})],
                providers=[but(PROVIDER, passthrough=("/vector_stores/*",))],
            ),
            [
                "provider openai: paths passed through none → /vector_stores/*",
                "route chat: fallbacks after credential added (c)",
                "route chat: fallbacks after rate_limit removed",
                "route chat: fallbacks after timeout a → a, b",
            ],
        ),
        (
            document(),
            document(
                routes=[
                    but(
                        ROUTE,
                        context_strategy="larger_model",
                        larger_model="huge",
                        last_resort="static",
                        static_answer="x" * 200,
                    )
                ]
            ),
            [
                "route chat: when the input is too long refuse → larger_model",
                "route chat: model with a larger window none → huge",
                "route chat: last resort none → static",
                f"route chat: fixed answer none → {'x' * 120}…",
            ],
        ),
    ],
)
def test_changes_in_words(old, new, lines):
    assert describe(old, new) == lines


slugs = st.text("abc", min_size=1, max_size=3)
prices = st.builds(
    PriceRow, st.sampled_from(["input", "output"]), st.integers(0, 2**33), st.integers(0, 2**62)
)
models = st.builds(
    ModelEntry,
    slug=slugs,
    version=st.integers(1, 5),
    provider=slugs,
    upstream_model=st.text(max_size=5),
    context_window=st.integers(0, 10),
    max_output_tokens=st.integers(0, 10),
    default_max_output_tokens=st.integers(0, 10),
    parameters=st.dictionaries(
        slugs, st.one_of(st.integers(-5, 5), st.booleans(), st.text(max_size=3), st.none())
    ),
    prices=st.lists(prices, max_size=3, unique_by=lambda row: (row.token_class, row.since))
    .map(sorted)
    .map(tuple),
)
routes = st.builds(
    RouteEntry,
    slug=slugs,
    targets=st.dictionaries(slugs, st.integers(0, 3), max_size=3).map(
        lambda chosen: tuple(TargetEntry(model, chosen[model]) for model in sorted(chosen))
    ),
    fallbacks=st.lists(slugs, max_size=3).map(tuple),
    fallbacks_for=st.dictionaries(
        st.sampled_from(["timeout", "rate_limit", "context_length", "unknown"]),
        st.lists(slugs, max_size=2).map(tuple),
        max_size=2,
    ),
    context_strategy=st.sampled_from(["refuse", "larger_model", "summarize", "unknown"]),
    larger_model=st.one_of(st.just(""), slugs),
    summary_model=st.one_of(st.just(""), slugs),
    last_resort=st.sampled_from(["none", "cached", "static"]),
    static_answer=st.sampled_from(["", "later", "x" * 119 + "a", "x" * 119 + "b", "x" * 130 + "a"]),
    policies=st.lists(slugs, max_size=2).map(tuple),
    attempts=st.integers(0, 3),
)
documents = st.builds(
    RevisionDocument,
    st.just(FORMAT),
    st.lists(st.builds(but, st.just(PROVIDER), slug=slugs), max_size=2).map(tuple),
    st.lists(models, max_size=3, unique_by=lambda entry: entry.slug).map(tuple),
    st.lists(routes, max_size=3, unique_by=lambda entry: entry.slug).map(tuple),
)


@given(documents)
def test_a_document_reads_back_as_it_was_written_and_any_can_be_judged(found):
    encoded = encode_document(found)
    assert decode_document(encoded) == found
    assert encode_document(decode_document(encoded)) == encoded
    validate(found, FACTS)


@given(documents, documents)
def test_documents_differ_exactly_where_words_say_so(old, new):
    same = all(
        {entry.slug: entry for entry in getattr(old, name)}
        == {entry.slug: entry for entry in getattr(new, name)}
        for name in ("providers", "models", "routes")
    )
    assert bool(describe(old, new)) is not same
    assert describe(old, old) == []
