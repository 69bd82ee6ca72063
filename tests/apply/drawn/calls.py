"""What calls go through, drawn: providers, models, routes, policies, prompts, tools."""

from __future__ import annotations

from copy import deepcopy

from hypothesis import strategies as st

from llmops.policies.examples import EXAMPLES
from llmops.providers.rules import CAPABILITIES, FAILURE_CLASSES
from tests.apply.drawn.values import answers, json_values, milliseconds, names, prices, slugs, words

PASSED = ["/vector_stores", "/vector_stores/*", "/fine_tuning/jobs/*/events", "/~a.b/x_y-z"]


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
