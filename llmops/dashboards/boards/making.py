"""One dashboard, made once for all who see the same of it and ask for the same."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from django.template.loader import render_to_string
from django.utils.safestring import SafeString

from llmops.core.digests import sha256_hex
from llmops.dashboards import quality, reliability, traffic
from llmops.dashboards.boards.gather import Gathered, gather
from llmops.dashboards.boards.marks import marks
from llmops.dashboards.boards.scope import Scope
from llmops.dashboards.boards.shapes import Board, Verdict
from llmops.dashboards.filters import CUSTOM, Filters, named
from llmops.usage.models import LatencyRollup
from llmops.usage.signals import SIGNALS

Builder = Callable[[Gathered, Board], None]
#: kind -> (what fills its board, title)
KINDS: dict[str, tuple[Builder, str]] = {
    "reliability": (reliability.build, "Reliability"),
    "traffic": (traffic.build, "Traffic"),
    "quality": (quality.build, "Quality"),
}
#: Of which durations a board tells; sketches of others are not read.
METRICS = {"reliability": (LatencyRollup.TOTAL, LatencyRollup.TTFT)}
#: What a board adds up for each bucket, beside calls; other sums may be left at 0.
SUMS: dict[str, tuple[str, ...]] = {
    "reliability": (
        "attempts", "retries", "fallback_calls", "busy_us", "timed_calls", "timed_us", "upstream_us", "queue_us",
    ),
    "traffic": (
        "streamed", "cache_hits", "input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens",
    ),
    "quality": SIGNALS,
}  # fmt: skip
#: A board is shown again without being made anew for so long, in seconds. So many are kept.
FRESH_S = 5.0
_MOST_KEPT = 128
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a board shows, as a value."""

    kind: str
    scope: Scope
    filters: Filters
    compare: bool

    def at(self, now: datetime) -> Asked:
        """The same, with a named range that ends now."""
        period = self.filters.period
        if period.name == CUSTOM:
            return self
        return replace(self, filters=replace(self.filters, period=named(period.name, now)))

    def whenever(self) -> Asked:
        """The same for all who ask for the same named range, whenever they did. To be made it needs ``at``."""
        return self.at(_EPOCH)


@dataclass(frozen=True, slots=True)
class Made:
    """``parts`` are of the page, as HTML by name; ``drawing`` is what its charts are drawn of. ``marker`` changes whenever what is
    shown does. ``took`` is what it cost, in seconds of a core."""

    board: Board
    parts: dict[str, SafeString]
    drawing: dict[str, Any]
    marker: str
    took: float

    def told(self, *, since: Made | None = None) -> dict[str, Any]:
        """What a page that is open puts in place; of its parts those alone that are not as in ``since``."""
        had = since.parts if since is not None else {}
        return {
            "marker": self.marker,
            "parts": {name: part for name, part in self.parts.items() if had.get(name) != part},
            "drawing": self.drawing,
            "spoken": {chart.name: chart.spoken for chart in self.board.charts},
        }


_kept: OrderedDict[Asked, tuple[float, Made]] = OrderedDict()
_under_way: dict[Asked, threading.Lock] = {}
_lock = threading.Lock()


def made(asked: Asked, *, fresh_s: float = FRESH_S) -> Made:
    """The board, made now or within the last ``fresh_s`` seconds by whoever asked for the same. Several at a time make it once."""
    key = asked
    with _lock:
        if (known := _kept.get(key)) is not None and time.monotonic() - known[0] < fresh_s:
            return known[1]
        mine = _under_way.setdefault(key, threading.Lock())
    with mine:
        with _lock:
            if (known := _kept.get(key)) is not None and time.monotonic() - known[0] < fresh_s:
                return known[1]
        found = make(asked)
        with _lock:
            _kept[key] = (time.monotonic(), found)
            _kept.move_to_end(key)
            while len(_kept) > _MOST_KEPT:
                _kept.popitem(last=False)
            _under_way.pop(key, None)
    return found


def forget() -> None:
    """Boards that are kept are made anew."""
    with _lock:
        _kept.clear()


def make(asked: Asked) -> Made:
    began, worked = time.perf_counter(), time.thread_time()
    board = build(asked)
    context = {"board": board, "kind": asked.kind}
    parts = {
        "verdict": render_to_string("dashboards/boards/verdict.html", context),
        "tiles": render_to_string("dashboards/overview/tiles.html", {"view": board}),
        "marks": render_to_string("dashboards/boards/marks.html", context),
        **{
            table.name: render_to_string("dashboards/boards/table.html", {"table": table})
            for table in board.tables
        },
    }
    drawing = board.drawing()
    marker = sha256_hex(repr((sorted(parts.items()), drawing)).encode())[:20]
    # The database works for about a third of what we do. Whoever waits far longer than that waits for one that is slow, or for a
    # core: on a busy machine that is no cost of ours, and boards must not stand still for it.
    took = max(1.33 * (time.thread_time() - worked), (time.perf_counter() - began) / 5)
    return Made(board, parts, drawing, marker, took)


def build(asked: Asked) -> Board:
    of = gather(
        asked.scope,
        asked.filters,
        compare=asked.compare,
        metrics=METRICS.get(asked.kind, ()),
        sums=("calls", *SUMS[asked.kind]),
    )
    fill, _ = KINDS[asked.kind]
    board = Board(
        start=of.start,
        end=of.end,
        granularity=of.granularity,
        verdict=Verdict("quiet", ""),
        times=of.times,
        calls_url=of.calls(),
        notes=of.notes,
        nothing=not of.total["calls"],
        compared=of.compared,
    )
    fill(of, board)
    board.marks = marks(of)
    return board
