"""The broker made of files, so that a worker on it notices quickly that it is to stop."""

from __future__ import annotations

from typing import Any

from kombu.transport import TRANSPORT_ALIASES, filesystem

#: A worker looks for tasks, and whether it is to stop, this often (seconds).
LOOK_S = 0.2


class Transport(filesystem.Transport):
    """kombu's, but it gives way every ``LOOK_S``: Celery asks it to block for 2 s, twice while it stops."""

    polling_interval = LOOK_S

    def drain_events(self, connection: Any, *args: Any, **kwargs: Any) -> None:
        # Celery names the time-out; the signature is as wide as those of kombu's two base classes together.
        asked = kwargs.pop("timeout", None)
        super().drain_events(connection, timeout=LOOK_S if asked is None else min(asked, LOOK_S))


def use() -> None:
    """Have ``filesystem://`` addresses mean this transport."""
    TRANSPORT_ALIASES["filesystem"] = f"{__name__}:Transport"
