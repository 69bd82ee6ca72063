"""What a new embedded installation starts with, so that there is something to look at: simulated, and marked as such."""

from __future__ import annotations

import os

SETTING = "CONSOLE_DEMO"
#: Projects, keys, a simulated provider and months of calls; the same without calls; or an administrator and nothing else.
WHOLE, WITHOUT_CALLS, EMPTY = "yes", "no", "empty"
_SAID = {
    **dict.fromkeys(("", "yes", "true", "1", "on"), WHOLE),
    **dict.fromkeys(("no", "false", "0", "off"), WITHOUT_CALLS),
    "empty": EMPTY,
}


def wanted() -> str:
    """What a new installation begins with: ``WHOLE``, ``WITHOUT_CALLS`` or ``EMPTY``. Raises ``ValueError``."""
    said = os.environ.get(SETTING, "")
    if said.strip().lower() not in _SAID:
        raise ValueError(f"{SETTING} is {said!r}; it must be yes (the default), no, or empty.")
    return _SAID[said.strip().lower()]
