"""Whole configurations, drawn."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.apply.drawn.around import alert_channel, alert_rule, budgets, service_key, slo
from tests.apply.drawn.calls import model, policy, prompt, provider, route, tool, writing
from tests.apply.drawn.values import kept_texts, limits, names, slugs, words


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
