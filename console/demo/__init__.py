"""What a new embedded installation starts with, so that there is something to look at: simulated, and marked as such."""

from __future__ import annotations

import os

SETTING = "CONSOLE_DEMO"
_SAID = {"": True, "yes": True, "true": True, "1": True, "on": True, "no": False, "false": False, "0": False, "off": False}  # fmt: skip


def wanted() -> bool:
    """Whether calls are made up for a new installation: months of history, and a little traffic. Raises ``ValueError``."""
    said = os.environ.get(SETTING, "")
    if said.strip().lower() not in _SAID:
        raise ValueError(f"{SETTING} is {said!r}; it must be yes (the default) or no.")
    return _SAID[said.strip().lower()]
