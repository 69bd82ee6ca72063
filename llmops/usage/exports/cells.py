"""Cells and lines of CSV (RFC 4180) that a spreadsheet takes for what they are. Pure."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

#: A spreadsheet takes text that begins with one of these for a formula (OWASP, "CSV Injection").
FORMULA = frozenset("=+-@\t\r\n\uff0b\uff0d\uff1d\uff20")
_QUOTED = re.compile('[",\r\n]')
_NANO = 10**9


def text(value: str) -> str:
    """Text as a cell: an apostrophe before what would be a formula, nothing that is not plain text."""
    if "\0" in value:
        # First, so that what stands behind it is seen.
        value = value.replace("\0", "")
    return "'" + value if value and value[0] in FORMULA else value


def cell(value: str) -> str:
    """``text`` as it stands in a line: quoted if it has to be."""
    value = text(value)
    return '"' + value.replace('"', '""') + '"' if _QUOTED.search(value) else value


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
