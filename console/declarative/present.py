"""An object of the database, in the words of the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Present:
    """One object as it is. ``gone`` says why it is out of use (``archived``, ``revoked``), or is empty."""

    pk: Any
    values: dict[str, Any]
    gone: str = ""
