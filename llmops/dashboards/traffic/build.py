"""What the Traffic page shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llmops.dashboards import formats
from llmops.dashboards.boards import drawing
from llmops.dashboards.boards.gather import WEEK, Gathered, Tally, named
from llmops.dashboards.boards.shapes import Board, Cell, Chart, Column, Table, Verdict
from llmops.dashboards.overview.shapes import Tile
from llmops.usage.selectors.boards import Counted, counted_by, prompts_by

_SUMS = (
    "calls", "streamed", "cache_hits", "input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens",
    "cost_nano",
)  # fmt: skip
_MOST_ROWS = 40
#: So much more or less than a week before is worth saying.
_MUCH = 1.5
_ENOUGH = 100


def build(of: Gathered, board: Board) -> None:
    board.verdict = _verdict(of)
    board.tiles = _tiles(of)
    board.charts = [_requests(of), _tokens(of), _shares(of)]
    groups = counted_by(of.narrowed, *of.whole, ("route", "model", "feature"), _SUMS)
    before: dict[tuple[Any, ...], Counted] = {}
    if of.compared:
        before = counted_by(
            of.narrowed, of.start - WEEK, of.end - WEEK, of.granularity, ("route", "model", "feature"), ("calls",)
        )  # fmt: skip
    board.tables = [
        _table(of, groups, before, 2, "feature", "Features"),
        _table(of, groups, before, 0, "route", "Routes"),
        _table(of, groups, before, 1, "model", "Models"),
        _prompts(of),
    ]


def _verdict(of: Gathered) -> Verdict:
    now, before = of.total["calls"], of.total_before["calls"]
    if not now:
        return Verdict("quiet", f"No calls in {of.words}")
    said = f"{formats.count(now)} {'call' if now == 1 else 'calls'} in {of.words}"
    said += f", {formats.short_count(of.total['input_tokens'])} tokens in and {formats.short_count(of.total['output_tokens'])} out"
    if min(now, before) >= _ENOUGH and not 1 / _MUCH < now / before < _MUCH:
        change, _ = formats.change(now, before)
        return Verdict(
            "warn", f"{said}: {change} calls against the week before", ((f"A week before there were {formats.count(before)} calls", of.calls()),)
        )  # fmt: skip
    change, _ = formats.change(now, before)
    return Verdict("ok", said + (f"; {change} against the week before" if change else "") + ".")


def _tiles(of: Gathered) -> list[Tile]:
    def of_(name: str) -> Callable[[Tally], int]:
        return lambda tally: tally[name]

    return [
        drawing.count_tile(of, "Calls", "calls", of.calls()),
        drawing.count_tile(of, "Tokens in", "input_tokens", of.calls()),
        drawing.count_tile(of, "Tokens out", "output_tokens", of.calls()),
        drawing.share_tile(
            of, "Input from the provider's cache", of_("cached_input_tokens"), of_("input_tokens"), good=True
        ),
        drawing.share_tile(of, "Output spent on reasoning", of_("reasoning_tokens"), of_("output_tokens")),
        drawing.share_tile(of, "Streamed", of_("streamed"), of_("calls")),
        drawing.share_tile(of, "Answered from our cache", of_("cache_hits"), of_("calls"), good=True),
    ]


def _requests(of: Gathered) -> Chart:
    peak = max((tally["calls"] for tally in of.series), default=0)
    return drawing.chart(
        of, "requests", "Calls", "count", "bar",
        f"Bar chart of calls {of.per} in {of.words}: {formats.count(of.total['calls'])} in all, at most {formats.count(peak)} in a bar.",
        [
            drawing.series(of, "Calls", "--accent", drawing.count("calls")),
            *drawing.week_before(of, "Calls", drawing.count("calls")),
        ],
    )  # fmt: skip


def _tokens(of: Gathered) -> Chart:
    """Cached and reasoning tokens are parts of input and output, so that the stack adds up to what was billed."""

    def rest(whole: str, part: str) -> Callable[[Tally], float]:
        return lambda tally: max(0, tally[whole] - tally[part])

    total = of.total
    return drawing.chart(
        of, "tokens", "Tokens", "count", "stack",
        f"Stacked bars of tokens {of.per} in {of.words}: {formats.count(total['input_tokens'])} in, "
        f"{formats.count(total['cached_input_tokens'])} of them cached, {formats.count(total['output_tokens'])} out, "
        f"{formats.count(total['reasoning_tokens'])} of them reasoning.",
        [
            drawing.series(of, "Input", "--accent", rest("input_tokens", "cached_input_tokens")),
            drawing.series(of, "Cached input", "--ok", drawing.count("cached_input_tokens")),
            drawing.series(of, "Output", "--gold", rest("output_tokens", "reasoning_tokens")),
            drawing.series(of, "Reasoning", "--odd", drawing.count("reasoning_tokens")),
        ],
    )  # fmt: skip


def _shares(of: Gathered) -> Chart:
    hits = drawing.share("cache_hits")
    return drawing.chart(
        of, "shares", "Streaming and caches", "share", "line",
        f"Line chart of shares {of.per} in {of.words}: {formats.percent(of.total['streamed'], of.total['calls'])} of calls were "
        f"streamed, {formats.percent(of.total['cache_hits'], of.total['calls'])} answered from the response cache.",
        [
            drawing.series(of, "Streamed", "--accent", drawing.share("streamed")),
            drawing.series(of, "From our cache", "--gold", hits),
            drawing.series(of, "Input cached by the provider", "--ok", drawing.share("cached_input_tokens", "input_tokens")),
            *drawing.week_before(of, "From our cache", hits),
        ],
    )  # fmt: skip


def _table(
    of: Gathered,
    groups: dict[tuple[Any, ...], Counted],
    before: dict[tuple[Any, ...], Counted],
    place: int,
    what: str,
    title: str,
) -> Table:
    summed = _summed(groups, place)
    earlier = _summed(before, place)
    ranked = sorted(summed.items(), key=lambda item: (not item[0], -item[1]["calls"], item[0]))
    rows = []
    for value, sums in ranked[:_MOST_ROWS]:
        name, wanted = named(value, what)
        href = of.calls(**{what: wanted})
        change, _ = formats.change(sums["calls"], earlier.get(value, {}).get("calls"))
        rows.append(
            (
                Cell(name, href, number=value),
                drawing.number(sums["calls"], href),
                *(
                    [Cell(change or formats.NONE, number=earlier.get(value, {}).get("calls", 0))]
                    if of.compared
                    else []
                ),
                Cell(formats.short_count(sums["input_tokens"]), number=sums["input_tokens"]),
                Cell(formats.short_count(sums["output_tokens"]), number=sums["output_tokens"]),
                drawing.percent(sums["cached_input_tokens"], sums["input_tokens"]),
                drawing.percent(sums["streamed"], sums["calls"]),
                drawing.percent(sums["cache_hits"], sums["calls"]),
                drawing.usd(sums["cost_nano"]),
            )
        )
    compared = (Column("Week before", True, "wide-only"),) if of.compared else ()
    more = len(ranked) - len(rows)
    return Table(
        f"by-{what}",
        title,
        (
            Column(what.capitalize(), False), Column("Calls"), *compared, Column("Tokens in"), Column("Out"),
            Column("Cached", True, "wide-only"), Column("Streamed", True, "xl-only"), Column("Our cache", True, "xl-only"), Column("Spend", True, "wide-only"),
        ),
        tuple(rows),
        f"No calls in {of.words}. Choose a longer time or clear a filter.",
        f"{more} more are left out: the largest {_MOST_ROWS} are shown." if more > 0 else "",
    )  # fmt: skip


def _summed(groups: dict[tuple[Any, ...], Counted], place: int) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for key, counted in groups.items():
        sums = found.setdefault(key[place], {})
        for name, value in counted.sums.items():
            sums[name] = sums.get(name, 0) + value
    return found


def _prompts(of: Gathered) -> Table:
    found = prompts_by(of.narrowed, *of.whole)
    ranked = sorted(found.items(), key=lambda item: (item[0][0], -item[0][1]))
    rows = []
    for (prompt, version), counted in ranked[:_MOST_ROWS]:
        href = of.calls(prompt=prompt, version=version)
        rows.append(
            (
                Cell(prompt, of.calls(prompt=prompt), number=prompt),
                Cell(f"v{version}" if version else formats.NONE, href, number=version),
                drawing.number(counted["calls"], href),
                Cell(formats.short_count(counted["input_tokens"]), number=counted["input_tokens"]),
                Cell(formats.short_count(counted["output_tokens"]), number=counted["output_tokens"]),
                drawing.usd(counted["cost_nano"]),
            )
        )
    return Table(
        "by-prompt",
        "Prompt versions",
        (Column("Prompt", False), Column("Version", False), Column("Calls"), Column("Tokens in"), Column("Out"), Column("Spend", True, "wide-only")),
        tuple(rows),
        f"No call in {of.words} named a prompt. Services name one as the model (prompt:NAME).",
    )  # fmt: skip
