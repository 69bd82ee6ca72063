"""A provider's usage or cost export as CSV (commas, semicolons or tabs) or as pages of OpenAI's organisation API (JSON,
``pages.py``), read whole or refused with the line of every fault.

Two shapes are known by their columns. OpenAI's own, as its dashboard exports it and as its organisation API answers: usage
with ``start_time``, ``model``, ``input_tokens``, ``input_cached_tokens``, ``output_tokens``, ``num_model_requests``; costs with
``start_time``, ``amount_value``, ``amount_currency``, ``line_item``. And a plain one for every other provider: ``date``,
``model``, ``input_tokens``, ``output_tokens``, ``cost_usd``. Days are UTC. A day that the file names and says nothing of was
without usage.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

from llmops.core.errors import InvalidRequest
from llmops.core.money import NANO
from llmops.usage.statements import pages
from llmops.usage.statements.pages import looks_like_pages

MAX_BYTES = 20 * 1024 * 1024
MAX_LINES = 200_000
_MOST_PROBLEMS = 50
#: Of a model on a day; sums of several models fit into the ledger's columns, too.
_MOST_TOKENS, _MOST_NANO = 10**15, 10**18

#: member -> names of the column that holds it, the first that is there
_COLUMNS = {
    "day": ("date", "day", "start_time_iso", "start_time"),
    "model": ("model", "line_item", "name"),
    "requests": ("num_model_requests", "num_requests", "requests", "calls"),
    "input": ("input_tokens", "prompt_tokens"),
    "cached": ("input_cached_tokens", "cached_input_tokens", "cached_tokens"),
    "output": ("output_tokens", "completion_tokens"),
    "cost": ("amount_value", "cost_usd", "cost", "amount"),
    "currency": ("amount_currency", "currency"),
}


@dataclass(slots=True)
class Line:
    """What a provider says of a model on a day, summed over the file. ``cost_nano`` None: it says nothing about money.

    ``model`` is the provider's own name; empty in costs that are not told by model.
    """

    day: date
    model: str
    requests: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    cost_nano: int | None = None


@dataclass(frozen=True, slots=True)
class Statement:
    """``has_tokens`` and ``has_cost`` say what the file speaks of; ``days`` are those it covers, also without usage."""

    lines: list[Line]
    days: list[date]
    has_tokens: bool
    has_cost: bool


class BadStatement(InvalidRequest):
    """The file cannot be used; the message has each problem with its line. Nothing was taken over."""

    code = "bad_statement"

    def __init__(self, problems: list[tuple[int, str]]) -> None:
        self.problems = problems
        # Line 0 is for what is told by other words than lines.
        shown = [f"line {line}: {reason}" if line else reason for line, reason in problems[:_MOST_PROBLEMS]]
        if len(problems) > _MOST_PROBLEMS:
            shown.append(f"and {len(problems) - _MOST_PROBLEMS} more")
        super().__init__("\n".join(shown), param="file")


@dataclass(slots=True)
class _Reader:
    places: dict[str, int]
    problems: list[tuple[int, str]] = field(default_factory=list)

    def cell(self, row: list[str], name: str) -> str:
        place = self.places.get(name)
        return row[place].strip() if place is not None and place < len(row) else ""

    def day(self, line: int, text: str) -> date | None:
        try:
            if text.isdigit() and len(text) > 8:
                return datetime.fromtimestamp(int(text), tz=UTC).date()
            if len(text) == 10:
                return date.fromisoformat(text)
            moment = datetime.fromisoformat(text)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).date()
        except (ValueError, OverflowError, OSError):
            self.problems.append((line, f"{text[:40]!r} is not a day such as 2026-11-26"))
            return None

    def count(self, line: int, row: list[str], name: str) -> int:
        text = self.cell(row, name)
        if not text:
            return 0
        try:
            value = Decimal(text)
            # Compared before it is made a whole number: 1e999999999 would have a billion digits.
            if not 0 <= value <= _MOST_TOKENS or value != value.to_integral_value():
                raise ValueError(text)
        except (InvalidOperation, ValueError):
            self.problems.append(
                (line, f"{_COLUMNS[name][0]}: {text[:40]!r} is not a number of {_units(name)}")
            )
            return 0
        return int(value)

    def money(self, line: int, row: list[str]) -> int | None:
        text = self.cell(row, "cost")
        if not text:
            return None
        currency = self.cell(row, "currency").lower()
        if currency not in ("", "usd"):
            self.problems.append((line, f"the currency is {currency[:10]!r}; amounts are kept in USD"))
            return None
        try:
            value = Decimal(text.removeprefix("$"))
            if not -_MOST_NANO // NANO <= value <= _MOST_NANO // NANO:
                raise ValueError(text)
            nano = int((value * NANO).to_integral_value(rounding=ROUND_HALF_UP))
        except (InvalidOperation, ValueError):
            self.problems.append((line, f"{text[:40]!r} is not an amount of USD such as 2.50"))
            return None
        return nano


def read(text: str, *, speaks: str = "") -> Statement:
    """``speaks`` is what pages of the organisation API tell (``tokens`` or ``cost``), where somebody knows: days on which nothing
    was used do not show it. Raises ``BadStatement`` with every problem found, each with its line (the header is line 1)."""
    text = text.removeprefix("\ufeff")
    if len(text) > MAX_BYTES:
        raise BadStatement([(1, f"the file is larger than {MAX_BYTES // 1024 // 1024} MiB")])
    rows = _pages(text, speaks) if looks_like_pages(text) else _rows(text)
    header = next(rows, (1, []))[1]
    reader = _Reader(_places(header))
    _refuse_unknown(reader.places, header)
    found: dict[tuple[date, str], Line] = {}
    days: set[date] = set()
    last = 1
    for line, row in rows:
        last = line
        if line > MAX_LINES:
            raise BadStatement([(line, f"more than {MAX_LINES:,} lines")])
        if not any(cell.strip() for cell in row):
            continue
        if len(row) > len(header):
            reader.problems.append((line, f"{len(row)} values stand under {len(header)} columns"))
            continue
        day = reader.day(line, reader.cell(row, "day"))
        model = _model(reader.cell(row, "model"))
        counts = [reader.count(line, row, name) for name in ("requests", "input", "cached", "output")]
        cost = reader.money(line, row)
        if day is None:
            continue
        days.add(day)
        if not _plain(model):
            reader.problems.append((line, f"{model[:40]!r} is no name of a model"))
            continue
        if not any(counts) and cost is None:
            continue
        if not model and any(counts[1:]):
            reader.problems.append((line, "tokens of no model: export usage grouped by model"))
            continue
        total = found.setdefault((day, model), Line(day, model))
        total.requests += counts[0]
        total.input_tokens += counts[1]
        total.cached_input_tokens += counts[2]
        total.output_tokens += counts[3]
        if cost is not None:
            total.cost_nano = (total.cost_nano or 0) + cost
        if _too_much(total):
            reader.problems.append((line, "with the lines before it this is more than a model uses on a day"))
    if not days and not reader.problems:
        reader.problems.append((last, "the file names no day"))
    if reader.problems:
        raise BadStatement(sorted(reader.problems))
    return Statement(
        lines=[found[key] for key in sorted(found)],
        days=sorted(days),
        has_tokens="input" in reader.places or "output" in reader.places,
        has_cost="cost" in reader.places,
    )


#: what pages speak of -> a column that stands for it, whether a result has it or not
_SPEAKING = {"tokens": "input_tokens", "cost": "amount_value"}


def _pages(text: str, speaks: str) -> Iterator[tuple[int, list[str]]]:
    """Pages of the organisation API as if they were a CSV, without the columns that no result speaks of."""
    try:
        found = list(pages.rows(text))
    except pages.BadPages as bad:
        raise BadStatement([(0, str(bad))]) from None
    told = [
        place
        for place, name in enumerate(pages.COLUMNS)
        if name in ("start_time", "model", _SPEAKING.get(speaks)) or any(row[place] for row in found)
    ]
    yield 1, [pages.COLUMNS[place] for place in told]
    for number, row in enumerate(found, start=2):
        yield number, [row[place] for place in told]


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    source = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    while True:
        try:
            row = next(source)
        except StopIteration:
            return
        except csv.Error as broken:
            raise BadStatement([(source.line_num or 1, f"not CSV: {broken}")]) from None
        yield source.line_num, row


def _places(header: list[str]) -> dict[str, int]:
    names = [name.strip().lower() for name in header]
    return {
        member: names.index(name)
        for member, known in _COLUMNS.items()
        if (name := next((one for one in known if one in names), None)) is not None
    }


def _refuse_unknown(places: dict[str, int], header: list[str]) -> None:
    shown = ", ".join(cell.strip()[:30] for cell in header[:12]) or "nothing"
    if "day" not in places:
        raise BadStatement(
            [(1, f"no column tells the day (date, start_time or start_time_iso); there is {shown}")]
        )
    if not {"input", "output", "cost"} & places.keys():
        raise BadStatement(
            [
                (
                    1,
                    f"no column tells tokens or money (input_tokens, output_tokens, amount_value or cost_usd); there is {shown}",
                )
            ]
        )


def _model(text: str) -> str:
    """OpenAI's line items read ``gpt-4o-2024-08-06, input``: the model is what stands before the comma."""
    return text.split(",", 1)[0].strip()[:120]


def _plain(text: str) -> bool:
    """Whether a database can keep it: no NUL, no half of a character."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _too_much(total: Line) -> bool:
    counts = (total.requests, total.input_tokens, total.cached_input_tokens, total.output_tokens)
    return max(counts) > _MOST_TOKENS or abs(total.cost_nano or 0) > _MOST_NANO


def _units(name: str) -> str:
    return "requests" if name == "requests" else "tokens"
