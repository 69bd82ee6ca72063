"""What is around calls, drawn: keys, budgets, objectives, alerts and whom they are told."""

from __future__ import annotations

from hypothesis import strategies as st

from console.declarative.alerting import OBJECTIVES, SEVERITIES
from llmops.access.rules import SCOPES
from tests.apply.drawn.values import amounts, instants, limits, slugs


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
