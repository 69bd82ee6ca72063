"""What the Reliability page shows."""

from __future__ import annotations

from collections import Counter, defaultdict

from llmops.dashboards import formats, words
from llmops.dashboards.boards import drawing
from llmops.dashboards.boards.gather import Gathered, Tally, named
from llmops.dashboards.boards.shapes import Board, Cell, Chart, Column, Series, Table, Verdict
from llmops.dashboards.filters import ANY_FAILURE, FAILED
from llmops.dashboards.overview.shapes import Tile
from llmops.dashboards.reliability import standing
from llmops.dashboards.verdict import Facts, judge
from llmops.usage.models import Call, LatencyRollup
from llmops.usage.selectors.boards import Counted, counted_by

TOTAL, TTFT = LatencyRollup.TOTAL, LatencyRollup.TTFT
#: Error codes that have a colour of their own in the chart; the others are one.
_CODES = 5
_COLOURS = ("--bad", "--gold", "--odd", "--accent", "--warn")
_MOST_ROWS = 60
_NOT_TIMED = "Durations are not kept of a single key or feature. Take those filters away to see them."


def build(of: Gathered, board: Board) -> None:
    groups = counted_by(
        of.narrowed, *of.whole, ("route", "model", "status", "error_code"),
        ("calls", "retries", "attempts", "fallback_calls", "queued_calls"),
    )  # fmt: skip
    health = standing.health(of)
    board.verdict = _verdict(of, health)
    board.tiles = _tiles(of)
    board.charts = [*_latencies(of), _parts(of), _errors(of), _again(of), _at_a_time(of)]
    board.tables = [
        _error_table(of, groups),
        _carried(of, groups),
        health.breakers,
        health.credentials,
        standing.headroom(of),
        standing.at_providers(of),
    ]


def _verdict(of: Gathered, health: standing.Health) -> Verdict:
    total, before = of.total, of.total_before
    failed = Counter({code: calls for (status, code), calls in total.codes.items() if status in FAILED})
    refused = Counter(
        {code: calls for (status, code), calls in total.codes.items() if status == Call.REFUSED}
    )
    worst, worst_calls = next(iter(failed.most_common(1)), ("", 0))
    refusal, refusal_calls = next(iter(refused.most_common(1)), ("", 0))
    found = judge(
        Facts(
            calls=total["calls"],
            failed=total.failed,
            refused=total.refused,
            unknown=total.statuses[Call.UNKNOWN],
            fallback=total["fallback_calls"],
            p95_us=total.quantiles(TOTAL, 0.95)[0],
            calls_before=before["calls"],
            p95_before_us=before.quantiles(TOTAL, 0.95)[0],
            worst_error=worst,
            worst_error_calls=worst_calls,
            refusal=refusal,
            refusal_calls=refusal_calls,
            avoided=health.avoided,
        ),
        period=of.words,
    )
    findings = [
        (
            finding.text,
            finding.href
            if finding.place == ""
            else of.calls(**dict(part.split("=") for part in finding.query.split("&") if part)),
        )
        for finding in found.findings
    ]
    headline = found.headline
    if found.level == "ok":
        p95 = total.quantiles(TOTAL, 0.95)[0]
        headline = f"Nothing looks wrong: {formats.percent(total['calls'] - total.failed, total['calls'])} of calls went well"
        headline += f", 95 of 100 took at most {formats.duration(p95)}" if p95 is not None else ""
    return Verdict(found.level, headline, tuple(findings))


def _tiles(of: Gathered) -> list[Tile]:
    return [
        drawing.count_tile(of, "Calls", "calls", of.calls()),
        drawing.share_tile(
            of, "Error rate", lambda tally: tally.failed, lambda tally: tally["calls"],
            of.calls(status=ANY_FAILURE), bad=(0.01, 0.05),
        ),
        drawing.share_tile(
            of, "Answered by a fallback", lambda tally: tally["fallback_calls"], lambda tally: tally.sent,
            of.calls(fallback="1"), bad=(0.05, 0.5),
        ),
        drawing.share_tile(
            of, "Tried again", lambda tally: tally["retries"], lambda tally: tally["attempts"], bad=(0.1, 0.5)
        ),
        drawing.duration_tile(of, "Latency of answered calls", TOTAL, (0.5, 0.95, 0.99)),
        drawing.duration_tile(of, "Time to first token", TTFT, (0.5, 0.95)),
    ]  # fmt: skip


def _latencies(of: Gathered) -> list[Chart]:
    found = []
    for name, title, metric in (("latency", "Latency", TOTAL), ("ttft", "Time to first token", TTFT)):
        p50, p95, p99 = of.total.quantiles(metric, 0.5, 0.95, 0.99)
        found.append(
            drawing.chart(
                of, name, title, "duration", "line",
                f"Line chart of {title.lower()} {of.per} in {of.words}: half at most {formats.duration(p50)}, 95 of 100 at most "
                f"{formats.duration(p95)}, 99 of 100 at most {formats.duration(p99)}.",
                [
                    drawing.series(of, "p50", "--accent", drawing.quantile(metric, 0.5), narrowed="status=ok"),
                    drawing.series(of, "p95", "--gold", drawing.quantile(metric, 0.95), narrowed="status=ok"),
                    drawing.series(of, "p99", "--odd", drawing.quantile(metric, 0.99), narrowed="status=ok"),
                    *drawing.week_before(of, "p95", drawing.quantile(metric, 0.95)),
                ],
                note="" if of.narrowed.timed else _NOT_TIMED,
            )
        )  # fmt: skip
    return found


def _parts(of: Gathered) -> Chart:
    """Means add up, as percentiles do not."""
    parts = [
        ("Provider", "--accent", "upstream_us"),
        ("Queue", "--odd", "queue_us"),
        ("Console", "--gold", "ours"),
    ]
    means = {label: of.total.mean_us(name) for label, _, name in parts}
    spoken = ", ".join(f"{label.lower()} {formats.duration(mean)}" for label, mean in means.items())
    return drawing.chart(
        of, "parts", "Where the time goes", "duration", "stack",
        f"Stacked bars of the mean time of an answered call {of.per} in {of.words}, by who took it: {spoken}.",
        [
            drawing.series(of, label, colour, drawing.mean(name), narrowed="status=ok")
            for label, colour, name in parts
        ],
    )  # fmt: skip


def _errors(of: Gathered) -> Chart:
    most = [pair for pair, _ in of.total.codes.most_common(_CODES)]
    lines: list[Series] = [
        drawing.series(
            of, code if status in FAILED else f"{code} ({words.status_word(status).lower()})", colour,
            drawing.coded(status, code), narrowed=f"error={code}&status={status}",
        )
        for (status, code), colour in zip(most, _COLOURS, strict=False)
    ]  # fmt: skip
    known = set(most)

    def others(tally: Tally) -> int:
        return sum(calls for pair, calls in tally.codes.items() if pair not in known)

    if any(map(others, of.series)):
        lines.append(drawing.series(of, "Others", "--muted", others, narrowed=f"status={ANY_FAILURE}"))
    told = ", ".join(f"{calls} {code}" for (_, code), calls in of.total.codes.most_common(3))
    return drawing.chart(
        of, "errors", "Errors by type", "count", "stack",
        f"Stacked bars of calls that failed or were refused {of.per} in {of.words}: {told or 'none'}.",
        lines,
        note="" if lines else "No call failed or was refused in this time.",
    )  # fmt: skip


def _again(of: Gathered) -> Chart:
    def fallback(tally: Tally) -> float | None:
        return 100 * tally["fallback_calls"] / tally.sent if tally.sent else None

    def failed(tally: Tally) -> float | None:
        return 100 * tally.failed / tally["calls"] if tally["calls"] else None

    return drawing.chart(
        of, "rates", "Errors, retries, fallbacks", "share", "line",
        f"Line chart of the share of calls that failed, were tried again or answered by a fallback, {of.per} in {of.words}: "
        f"{formats.percent(of.total.failed, of.total['calls'])} failed, "
        f"{formats.percent(of.total['fallback_calls'], of.total.sent)} went to a fallback.",
        [
            drawing.series(of, "Failed", "--bad", failed, narrowed=f"status={ANY_FAILURE}"),
            drawing.series(of, "Fallback", "--gold", fallback, narrowed="fallback=1"),
            drawing.series(of, "Retries", "--accent", drawing.share("retries", "attempts")),
            *drawing.week_before(of, "Failed", failed),
        ],
    )  # fmt: skip


def _at_a_time(of: Gathered) -> Chart:
    def at_a_time(tally: Tally) -> float:
        return tally["busy_us"] / 1_000_000 / of.granularity

    peak = max((at_a_time(tally) for tally in of.series), default=0)
    return drawing.chart(
        of, "load", "Calls at a time", "level", "line",
        f"Line chart of how many calls were under way at a time, on average {of.per} in {of.words}: at most {peak:.1f}.",
        [
            drawing.series(of, "At a time", "--accent", at_a_time),
            *drawing.week_before(of, "At a time", at_a_time),
        ],
    )  # fmt: skip


def _error_table(of: Gathered, groups: dict[tuple[str, ...], Counted]) -> Table:
    asked: Counter[tuple[str, str]] = Counter()
    for (route, model, _, _), counted in groups.items():
        asked[route, model] += counted["calls"]
    wrong = sorted(
        ((group, counted["calls"]) for group, counted in groups.items() if group[3]),
        key=lambda item: (-item[1], item[0]),
    )
    rows = []
    for (route, model, status, code), calls in wrong[:_MOST_ROWS]:
        route_name, route_value = named(route, "route")
        model_name, model_value = named(model, "model")
        narrowed = {"error": code, "status": status, "route": route_value, "model": model_value}
        rows.append(
            (
                Cell(
                    code,
                    of.calls(**narrowed),
                    "bad" if status in FAILED else "",
                    code,
                    words.error_words(code),
                ),
                Cell(route_name, of.calls(route=route_value), number=route),
                Cell(model_name, of.calls(model=model_value), number=model),
                drawing.number(calls, of.calls(**narrowed)),
                drawing.percent(calls, asked[route, model]),
            )
        )
    more = len(wrong) - len(rows)
    return Table(
        "error-table",
        "Errors by type, route and model",
        (Column("Error", False), Column("Route", False), Column("Model", False, "wide-only"), Column("Calls"), Column("Of its calls")),
        tuple(rows),
        f"No call failed or was refused in {of.words}.",
        f"{more} rarer ones are left out: narrow by route or model to see them." if more > 0 else "",
        wide=True,
    )  # fmt: skip


def _carried(of: Gathered, groups: dict[tuple[str, ...], Counted]) -> Table:
    """Of each route, how many calls went past their first target, and to which model."""
    carried: Counter[tuple[str, str]] = Counter()
    failed: Counter[tuple[str, str]] = Counter()
    sent: dict[str, int] = defaultdict(int)
    for (route, model, status, _), counted in groups.items():
        if status != Call.REFUSED:
            sent[route] += counted["calls"]
        if counted["fallback_calls"]:
            carried[route, model] += counted["fallback_calls"]
            if status in FAILED:
                failed[route, model] += counted["fallback_calls"]
    rows = []
    for (route, model), calls in carried.most_common(_MOST_ROWS):
        route_name, route_value = named(route, "route")
        model_name, model_value = named(model, "model")
        narrowed = {"route": route_value, "model": model_value, "fallback": "1"}
        rows.append(
            (
                Cell(route_name, of.calls(route=route_value, fallback="1"), number=route),
                Cell(model_name, of.calls(**narrowed), number=model),
                drawing.number(calls, of.calls(**narrowed)),
                drawing.percent(calls, sent[route]),
                drawing.number(failed[route, model], of.calls(**narrowed, status=ANY_FAILURE), tone="bad"),
            )
        )
    return Table(
        "carried",
        "Fallbacks: what carried the load",
        (Column("Route", False), Column("Carried by", False), Column("Calls"), Column("Of the route's"), Column("In vain", True, "wide-only")),
        tuple(rows),
        f"Every call in {of.words} was answered by its route's own target.",
    )  # fmt: skip
