"""Reliability, Traffic and Quality: what they tell is what the calls are, and nobody sees another's."""

from __future__ import annotations

import csv
import io
import json
import math
import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from urllib.parse import parse_qsl, urlsplit

import pytest
from django.test import Client

from llmops.dashboards.boards import live, making
from llmops.dashboards.boards.making import Asked, build
from llmops.dashboards.boards.scope import Scope
from llmops.dashboards.boards.shapes import Board, Chart, Table
from llmops.dashboards.filters import FAILED, parse
from llmops.usage.models import Call
from llmops.usage.signals import BIT, SIGNALS
from tests.dashboards import seed

NOW = datetime(2026, 11, 21, 14, 37, 22, tzinfo=UTC)
KINDS = ("reliability", "traffic", "quality")


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    making.forget()
    live.forget()
    yield
    making.forget()
    live.forget()


def several(stage: SimpleNamespace, number: int, *, chance: random.Random, until: datetime) -> list[Call]:
    """Calls of every sort within five hours, and as many a week before."""
    found = []
    for place in range(number):
        at = until - timedelta(seconds=chance.random() * 5 * 3_600) - timedelta(days=7) * (place % 2)
        given = {
            "endpoint": "chat.completions",
            "project": chance.choice((stage.support, stage.search)),
            "route": chance.choice(("chat", "summarise", "")),
            "model": chance.choice(("gpt-4o-2024-08-06", "sim-large")),
            "feature": chance.choice(("", "faq", "draft")),
            "queue_us": chance.choice((0, 0, 400, 7_000)),
            "prompt_name": chance.choice(("", "triage")),
            "signals": chance.choice((0, 0, BIT["truncated"], BIT["schema_failed"] | BIT["repaired"], BIT["blocked"])),
            "retry_count": chance.choice((0, 0, 1)),
            "fallback_count": chance.choice((0, 0, 0, 1)),
            "cache": chance.choice(("", "hit")),
        }  # fmt: skip
        given["prompt_version"] = chance.choice((1, 2)) if given["prompt_name"] else None
        total = int(chance.lognormvariate(13, 0.7))
        kind = chance.random()
        if kind < 0.1:
            found.append(seed.failed(stage, at, total_us=total, upstream_us=total - 90, **given))
        elif kind < 0.15:
            found.append(
                seed.refused(
                    stage,
                    at,
                    **{k: v for k, v in given.items() if k in ("endpoint", "project", "route", "feature")},
                )
            )
        else:
            found.append(
                seed.make_call(
                    stage, at, total_us=total, upstream_us=total - 9_000, ttft_us=total // 3, **given
                )
            )
    return found


def asked(stage: SimpleNamespace, kind: str, address: str = "range=24h", who: object = None) -> Asked:
    filters = parse(dict(parse_qsl(address)), now=NOW)
    return Asked(kind, Scope.of(who or stage.alice), filters, True)


def within(calls: list[Call], board: Board, *, weeks: int = 0) -> list[Call]:
    ago = timedelta(days=7 * weeks)
    return [call for call in calls if board.start - ago <= call.started_at < board.end - ago]


def tile(board: Board, label: str) -> str:
    return next(one for one in board.tiles if one.label == label).figures[0].text


def chart(board: Board, name: str) -> Chart:
    found = board.panel(name)
    assert isinstance(found, Chart)
    return found


def table(board: Board, name: str) -> Table:
    found = board.panel(name)
    assert isinstance(found, Table)
    return found


def rank(values: list[int], q: float) -> int:
    return sorted(values)[max(1, math.ceil(q * len(values))) - 1]


def summed(board: Board, name: str, label: str) -> float:
    return sum(value or 0 for one in chart(board, name).series if one.label == label for value in one.values)


@pytest.mark.parametrize("narrowing", ["", "&route=chat", "&model=sim-large", "&route=chat&model=sim-large", "&feature=faq", "&project={support}", "&key={key}"])  # fmt: skip
def test_boards_tell_what_the_calls_are(stage: SimpleNamespace, still: None, narrowing: str) -> None:
    every = seed.store(several(stage, 160, chance=random.Random(narrowing), until=NOW))
    address = "range=24h" + narrowing.format(support=stage.support.pk, key=stage.keys["search"].pk)
    wanted = dict(parse_qsl(address))
    calls = [
        call for call in every
        if all(call_has(call, name, value) for name, value in wanted.items())
    ]  # fmt: skip
    board = build(asked(stage, "reliability", address))
    now, before = within(calls, board), within(calls, board, weeks=1)
    assert now and before
    failed = [call for call in now if call.status in FAILED]
    codes = Counter((call.error_code, call.route, call.model) for call in now if call.error_code)
    rows = table(board, "error-table").rows
    assert (
        Counter(
            {
                (str(row[0].number), str(row[1].number), str(row[2].number)): int(row[3].number or 0)
                for row in rows
            }
        )
        == codes
    )
    assert sum(summed(board, "errors", label) for label in chart(board, "errors").columns) == sum(
        codes.values()
    )
    assert f"{100 * len(failed) / len(now):.1f}" in tile(board, "Error rate") or not failed
    carried = Counter((call.route, call.model) for call in now if call.fallback_count)
    assert {
        (str(row[0].number), str(row[1].number)): row[2].number for row in table(board, "carried").rows
    } == carried
    busy = sum(call.total_us for call in now)
    assert summed(board, "load", "At a time") == pytest.approx(
        busy / 1e6 / 3600, abs=0.001 * len(board.times)
    )
    timed = [call for call in now if call.status == Call.OK]
    if not ({"feature", "key"} & set(wanted)):
        for label, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            line = next(one for one in chart(board, "latency").series if one.label == label)
            for at, value in zip(board.times, line.values, strict=True):
                mine = [c.total_us for c in timed if at <= c.started_at < at + timedelta(hours=1)]
                assert (value is None) == (not mine)
                if mine:
                    assert value == pytest.approx(rank(mine, q), rel=0.01)
    else:
        assert "not kept" in chart(board, "latency").note
    board = build(asked(stage, "traffic", address))
    assert summed(board, "requests", "Calls") == len(now)
    assert summed(board, "requests", "Calls, week before") == len(before)
    assert summed(board, "tokens", "Input") + summed(board, "tokens", "Cached input") == sum(
        c.input_tokens for c in now
    )
    for what, at in (("feature", "feature"), ("route", "route"), ("model", "model")):
        told = {str(row[0].number): row[1].number for row in table(board, f"by-{what}").rows}
        assert told == Counter(getattr(call, at) for call in now)
    versions = {(row[0].number, row[1].number): row[2].number for row in table(board, "by-prompt").rows}
    assert versions == Counter((c.prompt_name, c.prompt_version) for c in now if c.prompt_name)
    board = build(asked(stage, "quality", address))
    for row in table(board, "by-prompt").rows:
        name, _, version = str(row[0].number).rpartition(" v")
        mine = [c for c in now if c.prompt_name == name and c.prompt_version == int(version)]
        cut = sum(1 for c in mine if c.signals & BIT["truncated"])
        assert row[1].number == len(mine) and row[2].number == pytest.approx(100 * cut / len(mine), abs=0.001)


def call_has(call: Call, name: str, value: str) -> bool:
    if name == "range":
        return True
    return str(getattr(call, {"project": "project_id", "key": "key_id"}.get(name, name))) == value


@pytest.mark.any_engine
def test_a_figure_leads_to_exactly_its_calls(stage: SimpleNamespace, alice: Client, still: None) -> None:
    calls = seed.store(several(stage, 120, chance=random.Random(3), until=NOW))
    for kind, name, at in (
        ("reliability", "error-table", 3),
        ("quality", "by-route", 2),
        ("traffic", "by-prompt", 2),
    ):
        board = build(asked(stage, kind))
        now = within(calls, board)
        for row in table(board, name).rows:
            if not row[at].href:
                continue
            query = dict(parse_qsl(urlsplit(row[at].href).query))
            page = alice.get(row[at].href)
            assert page.status_code == 200
            assert not page.context["problems"]
            shown = {found.id for found in page.context["rows"]}
            assert shown == {call.pk for call in now if matches(call, query)}, query
            assert shown


def matches(call: Call, query: dict[str, str]) -> bool:
    def same(name: str, value: str) -> bool:
        if name == "signal":
            return bool(call.signals & BIT[value])
        stored = getattr(
            call,
            {"error": "error_code", "prompt": "prompt_name", "version": "prompt_version"}.get(name, name),
        )
        return str(stored) == ("" if value == "(none)" else value)

    return all(same(name, value) for name, value in query.items() if name not in ("range", "from", "to"))


@pytest.mark.any_engine
@pytest.mark.parametrize("kind", KINDS)
def test_whoever_may_see_one_project_sees_nothing_of_another(
    stage: SimpleNamespace, bob: Client, still: None, kind: str
) -> None:
    secret = "sim-large"
    seed.store(
        [
            seed.failed(stage, NOW - timedelta(minutes=9), project=stage.search, model=secret, route="embed",
                        feature="theirs", prompt_name="unseen-prompt", prompt_version=3, signals=2**len(SIGNALS) - 1, fallback_count=1),
            seed.make_call(stage, NOW - timedelta(minutes=8), feature="ours"),
        ]
    )  # fmt: skip
    for address in (
        "range=24h",
        f"range=24h&project={stage.search.pk}",
        f"range=24h&key={stage.keys['search'].pk}",
    ):
        answers = [bob.get(f"/{kind}/?{address}")]
        board = build(asked(stage, kind, address, stage.bob))
        for one in (*board.charts, *board.tables):
            for form in ("", "&as=csv"):
                answers.append(bob.get(f"/{kind}/panel/?{address}&panel={one.name}{form}"))
        answers.append(bob.get(f"/{kind}/live/?{address}"))
        for answer in answers:
            assert answer.status_code == 200
            text = (
                b"".join(answer.streaming_content).decode() if answer.streaming else answer.content.decode()
            )
            text = (
                text.partition('id="f-route"')[0] + text.partition('id="part-verdict"')[2]
                if "f-route" in text
                else text
            )
            for word in ("theirs", "unseen-prompt", "ranker", "upstream_timeout"):
                assert word not in text, (answer.request["PATH_INFO"], word)
        wanted = 1 if address == "range=24h" else 0
        assert (
            sum(build(asked(stage, "traffic", address, stage.bob)).panel("requests").series[0].values)
            == wanted
        )


@pytest.mark.any_engine
@pytest.mark.parametrize("kind", KINDS)
def test_nobody_without_a_role_opens_a_board(stage: SimpleNamespace, charlie: Client, kind: str) -> None:
    for address in (f"/{kind}/", f"/{kind}/panel/?panel=latency", f"/{kind}/live/"):
        assert charlie.get(address).status_code == 403
        assert Client().get(address).status_code in (302, 401)


def told(client: Client, address: str) -> dict[str, object] | None:
    text = b"".join(client.get(address).streaming_content).decode()
    line = next((line for line in text.splitlines() if line.startswith("data: ")), None)
    return json.loads(line.removeprefix("data: ")) if line else None


@pytest.mark.any_engine
def test_an_open_board_is_told_what_changed_and_no_more(
    stage: SimpleNamespace, alice: Client, still: None
) -> None:
    seed.store([seed.make_call(stage, NOW - timedelta(minutes=5))])
    page = alice.get("/traffic/?range=1h")
    mark = page.context["marker"]
    assert told(alice, f"/traffic/live/?range=1h&marker={mark}") is None
    seed.store([seed.make_call(stage, NOW - timedelta(minutes=4), feature="new")])
    assert told(alice, f"/traffic/live/?range=1h&marker={mark}") is None, "nothing was booked by a journal"
    making.forget()
    live.forget()
    news = told(alice, f"/traffic/live/?range=1h&marker={mark}")
    assert news is not None and "new" in str(news["parts"]["by-feature"])  # type: ignore[index]
    assert told(alice, f"/traffic/live/?range=1h&marker={news['marker']}") is None


@pytest.mark.any_engine
def test_a_role_that_is_taken_ends_the_stream(stage: SimpleNamespace, bob: Client, still: None) -> None:
    seed.store([seed.make_call(stage, NOW - timedelta(minutes=5))])
    bob.get("/traffic/")
    session = str(bob.session.session_key)
    follower = live.Follower(asked(stage, "traffic", "range=1h", stage.bob), stage.bob.pk, session, "")
    assert b'data: {"marker"' in follower.look()
    stage.bob.memberships.all().delete()
    follower.marker = ""
    assert follower.look().startswith(b"event: gone")


@pytest.mark.any_engine
def test_many_who_look_at_one_board_have_it_made_once(
    stage: SimpleNamespace, still: None, django_assert_max_num_queries: object
) -> None:
    seed.store([seed.make_call(stage, NOW - timedelta(minutes=5))])
    one = asked(stage, "reliability", "range=1h")
    first = live.current(one)
    with django_assert_max_num_queries(0):  # type: ignore[operator]
        for _ in range(50):
            assert live.current(one) is first


@pytest.mark.any_engine
def test_files_hold_what_the_page_shows(stage: SimpleNamespace, alice: Client, still: None) -> None:
    calls = seed.store(
        [
            *several(stage, 60, chance=random.Random(5), until=NOW),
            seed.make_call(stage, NOW - timedelta(minutes=3), feature="=1+1"),
        ]
    )
    board = build(asked(stage, "traffic"))
    for name in ("requests", "by-feature"):
        answer = alice.get(f"/traffic/panel/?range=24h&panel={name}&as=csv")
        assert answer["Content-Type"].startswith("text/csv") and "attachment" in answer["Content-Disposition"]
        rows = list(csv.reader(io.StringIO(answer.content.decode())))
        if name == "requests":
            assert len(rows) == len(board.times) + 1
            assert sum(int(row[2]) for row in rows[1:]) == len(within(calls, board))
        else:
            assert "'=1+1" in [row[0] for row in rows]
    assert alice.get("/traffic/panel/?panel=none").status_code == 404


@pytest.mark.parametrize("kind", KINDS)
def test_a_filter_that_every_call_meets_changes_no_figure(
    stage: SimpleNamespace, still: None, kind: str
) -> None:
    """Filtered figures come of rollups, others of summaries: whatever a board shows is read either way."""
    calls = several(stage, 120, chance=random.Random(kind), until=NOW)
    for call in calls:
        call.feature = "only"
    seed.store(calls)
    plain, narrowed = (build(asked(stage, kind, f"range=24h{more}")) for more in ("", "&feature=only"))
    timed = ("latency", "ttft")
    assert [one.values for c in plain.charts if c.name not in timed for one in c.series] == [
        one.values for c in narrowed.charts if c.name not in timed for one in c.series
    ]
    figures = [[figure.text for figure in one.figures] for one in plain.tiles if len(one.figures) == 1]
    assert figures == [
        [figure.text for figure in one.figures] for one in narrowed.tiles if len(one.figures) == 1
    ]
    assert any(any(one.values) for c in plain.charts for one in c.series)


@pytest.mark.any_engine
@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_board_says_what_to_do(stage: SimpleNamespace, alice: Client, kind: str) -> None:
    page = alice.get(f"/{kind}/?range=1h&route=nowhere&feature={'x' * 200}&project=x").content.decode()
    assert "Choose a longer time or clear a filter" in page
    assert "This filter was left out" in page


@pytest.mark.any_engine
def test_comparing_with_last_week_can_be_switched_off(
    stage: SimpleNamespace, alice: Client, still: None
) -> None:
    seed.store(several(stage, 20, chance=random.Random(6), until=NOW))
    page = alice.get("/traffic/?range=24h&compare=none")
    assert "week before" not in json.dumps(page.context["board"].drawing())
    assert "compare=none" in page.context["ranges"][0]["query"]
    assert "compare" not in page.context["compare_url"]
