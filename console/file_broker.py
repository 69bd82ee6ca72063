"""The broker made of files: messages appear whole, some are taken after all others, and a worker on it notices quickly that it is to stop."""

from __future__ import annotations

import logging
import threading
import uuid
from json import JSONDecodeError
from pathlib import Path
from time import time_ns
from typing import Any

from kombu.exceptions import ChannelError
from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.utils.encoding import str_to_bytes
from kombu.utils.json import dumps

log = logging.getLogger(__name__)

#: A worker looks for tasks, and whether it is to stop, this often (seconds).
LOOK_S = 0.2
_counting = threading.Lock()
_last = 0


def _next() -> int:
    """Nanoseconds of the wall clock, which outlasts a restart of the machine; of one process never the same twice, nor fewer."""
    global _last
    with _counting:
        _last = max(_last + 1, time_ns())
        return _last


class Channel(filesystem.Channel):
    """kombu's, but a message is in the queue at once and whole. There a reader may take the file between its creation and its
    first byte, and an empty message ends the worker ("Unrecoverable error"), with all that it had begun. What has a priority above 0
    comes after what has none, as on Redis."""

    def _put(self, queue: str, *args: Any, **kwargs: Any) -> None:
        # The signature is as wide as those of kombu's two base classes together.
        (payload,) = args
        # Sorted by these, the oldest is taken first, and digits before the tilde; no queue's name ends like the first one.
        behind = "~" if self._get_message_priority(payload) else ""
        name = f"{behind}{_next():020}_{uuid.uuid4()}.{queue}.msg"
        folder = Path(self.data_folder_out)
        unfinished = folder / f"{name}.unfinished"
        try:
            unfinished.write_bytes(str_to_bytes(dumps(payload)))
            unfinished.replace(folder / name)
        except OSError as problem:
            raise ChannelError(f"Cannot add {name} to {folder}: {problem.strerror}") from problem

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        while True:
            try:
                return super()._get(queue)
            except JSONDecodeError:
                # Of a process that died while it wrote one, before messages came whole. It is out of the queue by now.
                log.error("A message in the queue %s cannot be read and is dropped", queue)


class Transport(filesystem.Transport):
    """kombu's, but it gives way every ``LOOK_S``: Celery asks it to block for 2 s, twice while it stops."""

    Channel = Channel
    polling_interval = LOOK_S

    def drain_events(self, connection: Any, *args: Any, **kwargs: Any) -> None:
        # Celery names the time-out; the signature is as wide as those of kombu's two base classes together.
        asked = kwargs.pop("timeout", None)
        super().drain_events(connection, timeout=LOOK_S if asked is None else min(asked, LOOK_S))


def use() -> None:
    """Have ``filesystem://`` addresses mean this transport."""
    TRANSPORT_ALIASES["filesystem"] = f"{__name__}:Transport"
