"""Settings of the environment, as ``docs/operations.md`` tells of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from django.conf import settings
from django.utils.safestring import SafeString

from llmops.alerts.runbooks import inline

_NAME = re.compile(r"`([A-Z][A-Z0-9_]+)`")


@dataclass(frozen=True, slots=True)
class Told:
    """``names`` are whole names of settings, by which their row is linked to; the rest is HTML."""

    names: tuple[str, ...]
    name: SafeString
    default: SafeString
    meaning: SafeString


@cache
def settings_told() -> tuple[Told, ...]:
    """In the order of the page. The file goes with the code."""
    text = settings.OPERATIONS_PAGE.read_text(encoding="utf-8")
    table = text.partition("## Settings")[2].partition("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in table.splitlines() if line.startswith("| `")]
    return tuple(
        Told(tuple(_NAME.findall(name)), *(inline(cell.strip()) for cell in (name, default, meaning)))
        for name, default, meaning in rows
    )
