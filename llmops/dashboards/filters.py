"""What a page shows, as its address says it: time range, project and the other filters. Pure but for ``uuid`` parsing.

An address with a value that cannot be understood still opens: the value is dropped and ``problems`` says which and why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from llmops.usage.selectors.calls import NONE_GIVEN
from llmops.usage.signals import BIT

__all__ = ["NONE_GIVEN", "Filters", "Period", "parse"]


@dataclass(frozen=True, slots=True)
class Range:
    """``seconds`` back from now, shown in buckets of ``granularity`` seconds (one of the rollups')."""

    label: str
    words: str
    seconds: int
    granularity: int


RANGES: dict[str, Range] = {
    "15m": Range("15 min", "the last 15 minutes", 15 * 60, 60),
    "1h": Range("1 h", "the last hour", 3_600, 60),
    "24h": Range("24 h", "the last 24 hours", 86_400, 3_600),
    "7d": Range("7 d", "the last 7 days", 7 * 86_400, 3_600),
    "30d": Range("30 d", "the last 30 days", 30 * 86_400, 86_400),
}
#: What the pages call failed (``usage.selectors.overview.ERRORS``), and the name of the filter that means all of them.
FAILED = ("error", "interrupted", "unknown")
ANY_FAILURE = "failed"
STATUSES = ("ok", *FAILED, "refused", "client_closed")
DEFAULT_RANGE = "1h"
CUSTOM = "custom"
LONGEST = timedelta(days=400)
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
#: Filters that are plain text, with the longest value that can match anything.
TEXTS = {
    "route": 63,
    "model": 63,
    "error": 60,
    "q": 120,
    "feature": 100,
    "user": 16,
    "tag": 200,
    "cost_centre": 40,
    "brought": 40,
    "prompt": 63,
    "version": 9,
    "signal": 20,
}
#: Texts that only some values can be.
_KNOWN: dict[str, Callable[[str], bool]] = {
    "version": lambda text: text.isascii() and text.isdigit(),
    "signal": lambda text: text in BIT,
}


@dataclass(frozen=True, slots=True)
class Period:
    """``[start, end)`` in UTC. ``name`` is a key of ``RANGES`` or ``CUSTOM``.

    A named range begins at a whole bucket and ends with the bucket that holds now, so that charts and lists of the same
    range speak of the same calls.
    """

    name: str
    start: datetime
    end: datetime
    granularity: int | None = None

    @property
    def length(self) -> timedelta:
        """What it is called: without the part by which a named range was widened to whole buckets."""
        return self.end - self.start if self.name == CUSTOM else timedelta(seconds=RANGES[self.name].seconds)

    @property
    def words(self) -> str:
        return "the chosen time" if self.name == CUSTOM else RANGES[self.name].words


@dataclass(frozen=True, slots=True)
class Filters:
    period: Period
    project: UUID | None = None
    key: UUID | None = None
    route: str = ""
    model: str = ""
    status: str = ""
    error: str = ""
    fallback: bool = False
    q: str = ""
    feature: str = ""
    user: str = ""
    tag: str = ""
    cost_centre: str = ""
    #: a kind of outcome that a service told of the call
    brought: str = ""
    #: name of a prompt, and a number of its version; 0 are calls that name none
    prompt: str = ""
    version: str = ""
    #: one of ``usage.signals``
    signal: str = ""
    problems: tuple[str, ...] = ()

    def pairs(self) -> dict[str, str]:
        """Members of the address, without those at their default."""
        found: dict[str, str] = {}
        if self.period.name == CUSTOM:
            found["from"], found["to"] = stamp(self.period.start), stamp(self.period.end)
        elif self.period.name != DEFAULT_RANGE:
            found["range"] = self.period.name
        for name in ("project", "key", "status", *TEXTS):
            if value := getattr(self, name):
                found[name] = str(value)
        if self.fallback:
            found["fallback"] = "1"
        return found

    def query(self, **changes: object) -> str:
        """The address's query with ``changes``; None removes a member. Empty, or begins with ``?``."""
        found = {**self.pairs(), **changes}
        if "range" in changes:
            found.pop("from", None)
            found.pop("to", None)
        if "from" in changes:
            found.pop("range", None)
        text = urlencode(
            {
                name: stamp(value) if isinstance(value, datetime) else str(value)
                for name, value in found.items()
                if value not in (None, "")
            }
        )
        return f"?{text}" if text else ""

    def statuses(self) -> tuple[str, ...]:
        """Statuses to narrow to; empty is all of them."""
        if self.status == ANY_FAILURE:
            return FAILED
        return (self.status,) if self.status else ()

    def chosen(self) -> list[str]:
        """Names of the filters that narrow, apart from time."""
        names = ("project", "key", "status", "fallback", *TEXTS)
        return [name for name in names if getattr(self, name)]


def parse(given: Mapping[str, str], *, now: datetime) -> Filters:
    problems: list[str] = []
    found: dict[str, Any] = {
        "period": _period(given, now, problems),
        "fallback": given.get("fallback") == "1",
    }
    for name in ("project", "key"):
        if text := given.get(name, "").strip():
            try:
                found[name] = UUID(text)
            except ValueError:
                problems.append(f"{name}: {text[:40]!r} is not an id; choose one from the list.")
    if status := given.get("status", "").strip():
        if status in (*STATUSES, ANY_FAILURE):
            found["status"] = status
        else:
            problems.append(f"status: {status[:40]!r} is not one of {', '.join((*STATUSES, ANY_FAILURE))}.")
    for name, longest in TEXTS.items():
        text = given.get(name, "").strip()
        if "\x00" in text or len(text) > longest:
            problems.append(f"{name}: at most {longest} plain characters.")
        elif text and (known := _KNOWN.get(name)) and not known(text):
            problems.append(f"{name}: {text[:40]!r} is not one that there is.")
        elif text:
            found[name] = text
    return Filters(**found, problems=tuple(problems))


def _period(given: Mapping[str, str], now: datetime, problems: list[str]) -> Period:
    if given.get("from") or given.get("to"):
        period = _custom(given, now, problems)
        if period:
            return period
    name = given.get("range", "") or DEFAULT_RANGE
    if name not in RANGES:
        if name != CUSTOM:
            problems.append(f"range: {name[:20]!r} is not one of {', '.join(RANGES)}.")
        name = DEFAULT_RANGE
    return named(name, now)


def named(name: str, now: datetime) -> Period:
    found = RANGES[name]
    step = found.granularity
    first = int((now - timedelta(seconds=found.seconds)).timestamp()) // step * step
    last = int(now.timestamp()) // step * step + step
    return Period(name, datetime.fromtimestamp(first, UTC), datetime.fromtimestamp(last, UTC), step)


def _custom(given: Mapping[str, str], now: datetime, problems: list[str]) -> Period | None:
    moments: dict[str, datetime] = {}
    for name in ("from", "to"):
        text = given.get(name, "").strip()
        if not text:
            continue
        try:
            at = datetime.fromisoformat(text.replace(" ", "+"))
            at = at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            problems.append(f"{name}: {text[:40]!r} is not a moment such as 2026-11-21T14:30Z.")
            return None
        if not EARLIEST <= at <= now + LONGEST:
            problems.append(f"{name}: {text[:40]!r} lies outside of what can be shown.")
            return None
        moments[name] = at.replace(microsecond=0)
    end = moments.get("to", now)
    start = moments.get("from", end - timedelta(hours=1))
    if start >= end:
        problems.append("from: the start must lie before the end.")
        return None
    if end - start > LONGEST:
        problems.append(f"from: at most {LONGEST.days} days can be shown at once.")
        return None
    return Period(CUSTOM, start, end)


def stamp(moment: datetime) -> str:
    """A moment in an address: UTC, to the second where it has seconds."""
    at = moment.astimezone(UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ" if at.second else "%Y-%m-%dT%H:%MZ")
