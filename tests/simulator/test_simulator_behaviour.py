"""Model names and the header are understood or refused by name; faults come when they are due."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmops.simulator.behaviour import MODIFIERS, NO_FAULT, Behaviour, Fault, UnknownModifier, parse

README = Path(__file__).resolve().parents[2] / "llmops/simulator/README.md"


@pytest.mark.parametrize(
    ("model", "header", "expected"),
    [
        ("sim-small", "", Behaviour("sim-small")),
        ("sim-small+latency=50+tps=20", "", Behaviour("sim-small", latency=50, tps=20)),
        ("sim-small+instant+tokens=0", "", Behaviour("sim-small", instant=True, tokens=0)),
        ("sim-small+error=429:2.5", "", Behaviour("sim-small", fault=Fault(error=429, retry_after=2.5))),
        ("sim-small+error", "", Behaviour("sim-small", fault=Fault(error=500))),
        ("sim-small+drop", "", Behaviour("sim-small", fault=Fault(drop=3))),
        ("sim-small+drop=0+half_event", "", Behaviour("sim-small", fault=Fault(drop=0, half_event=True))),
        ("sim-small+toolcall", "", Behaviour("sim-small", toolcall=1)),
        ("sim-small+toolcall=3", "", Behaviour("sim-small", toolcall=3)),
        ("sim-small+toolcall=get_weather", "", Behaviour("sim-small", toolcall="get_weather")),
        ("sim-small+toolturns=3", "", Behaviour("sim-small", toolturns=3)),
        ("sim-small+toolturns=0+toolcall=2", "", Behaviour("sim-small", toolcall=2, toolturns=0)),
        ("sim-small+html=502", "", Behaviour("sim-small", fault=Fault(html=502))),
        ("sim-small+latency=900", "latency=5", Behaviour("sim-small", latency=5)),
        ("sim-small", " latency=5, tps=9 +empty", Behaviour("sim-small", 5, 9, fault=Fault(empty=True))),
    ],
)
def test_understood(model: str, header: str, expected: Behaviour) -> None:
    assert parse(model, header) == expected


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ("sim-small+latencey=50", "latencey"),
        ("sim-small+", "''"),
        ("sim-small+latency", "latency"),
        ("sim-small+latency=soon", "latency=soon"),
        ("sim-small+latency=-1", "latency=-1"),
        ("sim-small+latency=nan", "latency=nan"),
        ("sim-small+tps=0", "tps=0"),
        ("sim-small+tps=inf", "tps=inf"),
        ("sim-small+instant=yes", "instant=yes"),
        ("sim-small+error=200", "error=200"),
        ("sim-small+error=429:", "error=429:"),
        ("sim-small+error=429:never", "error=429:never"),
        ("sim-small+html=418", "html=418"),
        ("sim-small+drop=-1", "drop=-1"),
        ("sim-small+fail_rate=2", "fail_rate=2"),
        ("sim-small+wrong_usage", "wrong_usage"),
        ("sim-small+wrong_usage=odd", "wrong_usage=odd"),
        ("sim-small+toolcall=a b", "toolcall=a b"),
        ("sim-small+toolcall=0", "toolcall=0"),
        ("sim-small+toolturns", "toolturns"),
        ("sim-small+toolturns=101", "toolturns=101"),
        ("sim-small+toolturns=x", "toolturns=x"),
        ("", "''"),
        ("sim small", "sim small"),
        ("sim-small\n", "sim-small"),
    ],
)
def test_refused_by_name(model: str, named: str) -> None:
    with pytest.raises(UnknownModifier, match=re.escape(named)):
        parse(model)


@given(model=st.text(max_size=60), header=st.text(max_size=60))
@example(model="sim+fail=" + "9" * 5000, header="")
@example(model="sim+toolcall=²", header="")
@example(model="sim+error=²", header="")
@example(model="sim+tokens=१", header="")
def test_any_text_is_understood_or_refused(model: str, header: str) -> None:
    try:
        assert parse(model, header).base
    except UnknownModifier as error:
        assert len(str(error)) < 2_000


def test_every_modifier_has_its_row_in_the_readme_and_every_row_a_modifier() -> None:
    table = README.read_text().split("| modifier |")[1]
    rows = {
        name
        for line in table.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(\w+)", line.split("|")[1])
    }
    assert rows == set(MODIFIERS)


def test_first_calls_fail_and_later_ones_do_not() -> None:
    behaviour = parse("sim-small+fail=2+error=429:1")
    faults = [behaviour.at(count, "x").fault for count in range(4)]
    assert faults == [Fault(error=429, retry_after=1), Fault(error=429, retry_after=1), NO_FAULT, NO_FAULT]
    assert parse("sim-small+fail=1").at(0, "x").fault == Fault(error=500)
    assert parse("sim-small+fail=0+drop=1").at(0, "x").fault == NO_FAULT


def test_a_share_of_calls_fails_the_same_ones_every_time() -> None:
    behaviour = parse("sim-small+fail_rate=0.3+drop=2")
    failing = [behaviour.at(count, "x").fault == Fault(drop=2) for count in range(2_000)]
    assert 500 < sum(failing) < 700
    assert failing == [behaviour.at(count, "x").fault == Fault(drop=2) for count in range(2_000)]
    assert not any(parse("sim-small+fail_rate=0").at(n, "x").fault.error for n in range(100))
    assert all(parse("sim-small+fail_rate=1").at(n, "x").fault.error for n in range(100))
