"""What the Quality page shows. What only a policy sees is told of as such: without one there is nothing to count."""

from __future__ import annotations

from typing import Any

from llmops.dashboards import formats
from llmops.dashboards.boards import drawing
from llmops.dashboards.boards.gather import Gathered, named
from llmops.dashboards.boards.shapes import Board, Cell, Chart, Column, Table, Verdict
from llmops.dashboards.overview.shapes import Tile
from llmops.dashboards.verdict import ENOUGH_CALLS, QUALITY, noted, quality
from llmops.usage.selectors.boards import Counted, counted_by, outcomes_of, prompts_by
from llmops.usage.signals import SIGNALS

#: signal -> its short word
WORDS = {
    "truncated": "Cut off",
    "filtered": "Filtered",
    "declined": "Declined",
    "schema_failed": "Schema",
    "lazy": "Lazy",
    "repaired": "Repaired",
    "flagged": "Marked",
    "redacted": "Redacted",
    "blocked": "Blocked",
    "capped": "Cut off at the caller's cap",
}
_LIMITS = {name: (warn, bad) for name, (_, warn, bad) in QUALITY.items()}
_MOST_ROWS = 40


def build(of: Gathered, board: Board) -> None:
    board.verdict = _verdict(of)
    board.tiles = _tiles(of)
    board.charts = [
        _chart(of, "ends", "How answers end", "cut off or filtered", ("truncated", "--gold"), ("filtered", "--bad")),
        _chart(
            of, "answers", "What answers lack", "breaking their schema, declining or lazy", ("schema_failed", "--bad"),
            ("declined", "--odd"), ("lazy", "--gold"), ("repaired", "--ok"),
        ),
        _chart(
            of, "verdicts", "What policies did", "that a policy acted on", ("flagged", "--accent"), ("redacted", "--odd"),
            ("blocked", "--bad"),
        ),
    ]  # fmt: skip
    groups = counted_by(of.narrowed, *of.whole, ("route", "model"), ("calls", *SIGNALS))
    board.tables = [
        _prompts(of),
        _table(of, groups, 0, "route", "By route"),
        _table(of, groups, 1, "model", "By model"),
        _outcomes(of),
    ]


def _verdict(of: Gathered) -> Verdict:
    total = of.total
    calls = total["calls"]
    if not calls:
        return Verdict("quiet", f"No calls in {of.words}")
    counted = {name: total[name] for name in SIGNALS}
    found = quality(calls, counted)
    findings = [
        (one.text, of.calls(signal=one.query.partition("=")[2])) for one in (*found, *noted(calls, counted))
    ]
    if not found:
        said = "Answers look as they should"
        return Verdict(
            "ok",
            f"{said}: of {formats.count(calls)} calls, few were cut off, declined or broken.",
            tuple(findings),
        )
    number = len(found)
    headline = "One thing needs a look" if number == 1 else f"{number} things need a look"
    wrong = any(one.level == "bad" for one in found)
    return Verdict("bad" if wrong else "warn", headline, tuple(findings))


def _tiles(of: Gathered) -> list[Tile]:
    return [
        drawing.share_tile(
            of,
            {"truncated": "Cut off at the cap", "filtered": "Content filter", "declined": "Declined by the model",
             "schema_failed": "Broke their schema", "lazy": "Lazy answers", "repaired": "Repaired"}[name],
            drawing.sum_of(name),
            lambda tally: tally["calls"],
            of.calls(signal=name),
            bad=_LIMITS.get(name),
        )
        for name in ("truncated", "filtered", "declined", "schema_failed", "lazy", "repaired")
    ]  # fmt: skip


def _chart(of: Gathered, name: str, title: str, what: str, *drawn: tuple[str, str]) -> Chart:
    told = ", ".join(f"{WORDS[signal].lower()} {formats.count(of.total[signal])}" for signal, _ in drawn)
    first = drawn[0][0]
    return drawing.chart(
        of, name, title, "share", "line",
        f"Line chart of the share of calls {what}, {of.per} in {of.words}: {told}.",
        [
            *(
                drawing.series(of, WORDS[signal], colour, drawing.share(signal), narrowed=f"signal={signal}")
                for signal, colour in drawn
            ),
            *drawing.week_before(of, WORDS[first], drawing.share(first)),
        ],
    )  # fmt: skip


_SHOWN = ("truncated", "filtered", "declined", "schema_failed", "lazy", "repaired", "blocked")
_NARROW = frozenset(("truncated", "schema_failed", "declined"))
_COLUMNS = tuple(Column(WORDS[name], True, "" if name in _NARROW else "wide-only") for name in _SHOWN)


def _cells(of: Gathered, counted: Any, narrowed: dict[str, Any]) -> list[Cell]:
    calls = counted["calls"]
    cells = []
    for name in _SHOWN:
        limits = _LIMITS.get(name)
        rate = counted[name] / calls if calls else 0
        tone = ""
        if limits and calls >= ENOUGH_CALLS:
            tone = "bad" if rate >= limits[1] else "warn" if rate >= limits[0] else ""
        cells.append(drawing.percent(counted[name], calls, of.calls(**narrowed, signal=name), tone=tone))
    return cells


def _table(of: Gathered, groups: dict[tuple[Any, ...], Counted], place: int, what: str, title: str) -> Table:
    summed: dict[str, Counted] = {}
    for key, counted in groups.items():
        known = summed.setdefault(key[place], Counted({}))
        for one, added in counted.sums.items():
            known.sums[one] = known[one] + added
    ranked = sorted(summed.items(), key=lambda item: (not item[0], -item[1]["calls"], item[0]))
    rows = []
    for value, counted in ranked[:_MOST_ROWS]:
        name, wanted = named(value, what)
        narrowed = {what: wanted}
        rows.append(
            (
                Cell(name, of.calls(**narrowed), number=value),
                drawing.number(counted["calls"], of.calls(**narrowed)),
                *_cells(of, counted, narrowed),
            )
        )
    return Table(
        f"by-{what}",
        title,
        (Column(what.capitalize(), False), Column("Calls"), *_COLUMNS),
        tuple(rows),
        f"No calls in {of.words}. Choose a longer time or clear a filter.",
        wide=True,
    )


def _prompts(of: Gathered) -> Table:
    found = prompts_by(of.narrowed, *of.whole)
    ranked = sorted(found.items(), key=lambda item: (item[0][0], -item[0][1]))
    rows = []
    for (prompt, version), counted in ranked[:_MOST_ROWS]:
        narrowed = {"prompt": prompt, "version": version}
        rows.append(
            (
                Cell(
                    f"{prompt} v{version}" if version else prompt,
                    of.calls(**narrowed),
                    number=f"{prompt} v{version}",
                ),
                drawing.number(counted["calls"], of.calls(**narrowed)),
                *_cells(of, counted, narrowed),
            )
        )
    return Table(
        "by-prompt",
        "By prompt version",
        (Column("Prompt", False), Column("Calls"), *_COLUMNS),
        tuple(rows),
        f"No call in {of.words} named a prompt. Services name one as the model (prompt:NAME).",
        wide=True,
    )


def _outcomes(of: Gathered) -> Table:
    found = outcomes_of(of.narrowed, of.start, of.end, "route")
    rows = []
    for (route, kind), (outcomes, value) in sorted(found.items(), key=lambda item: (item[0][0], -item[1][0])):
        name, wanted = named(route, "route")
        rows.append(
            (
                Cell(name, of.calls(route=wanted), number=route),
                Cell(kind.replace("_", "\u00a0"), of.calls(route=wanted, brought=kind), number=kind),
                drawing.number(outcomes, of.calls(route=wanted, brought=kind)),
                drawing.usd(value) if value else Cell(formats.NONE, number=0),
            )
        )
    return Table(
        "outcomes",
        "What answers brought",
        (
            Column("Route", False),
            Column("Outcome", False),
            Column("Calls"),
            Column("Worth", True, "wide-only"),
        ),
        tuple(rows[:_MOST_ROWS]),
        "No service told what its calls brought. They do so by POST /api/v1/outcomes/.",
        "By whole days (UTC), as services told it.",
    )
