"""Cells and lines of CSV (RFC 4180) that a spreadsheet takes for what they are. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

#: A spreadsheet takes text that begins with one of these for a formula (OWASP, "CSV Injection").
_FORMULA = frozenset("=+-@\t\r\n\uff0b\uff0d\uff1d\uff20")
_NANO = 10**9


def text(value: str) -> str:
    """Text as a cell: an apostrophe before what would be a formula, nothing that is not plain text."""
    if value and value[0] in _FORMULA:
        value = "'" + value
    return value.replace("\0", "") if "\0" in value else value


class Texts(dict[str, str]):
    """``text`` of values that come again and again: models, features, tags. Forgets them all when they are too many."""

    MOST = 20_000

    def __missing__(self, value: str) -> str:
        if len(self) >= self.MOST:
            self.clear()
        self[value] = found = text(value)
        return found


def usd(nano: int) -> str:
    """Every decimal, as a number with a point."""
    if not nano:
        return "0.000000000"
    if nano < 0:
        return "-" + usd(-nano)
    return "%d.%09d" % divmod(nano, _NANO)  # noqa: UP031 - twice as fast, and there are millions


def lines(rows: Iterable[Sequence[Any]]) -> bytes:
    """Rows as UTF-8 with CRLF; only text cells must have gone through ``text``."""
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode()
