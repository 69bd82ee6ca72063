"""What the simulator served, once a request: in memory for a while, and in a file for good.

The console's own records are compared with it, so a line is written (one ``write`` to a file opened for appending)
before the last byte of an answer leaves. What the file holds survives the death of the process.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

import msgspec

COMPLETED = "completed"
DROPPED = "dropped"
CLIENT_GONE = "client_gone"
REFUSED = "refused"
_DAY_S = 86_400


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tokens, as true as the text: ``completion`` is what was produced, ``reasoning`` the part of it nobody sees.

    ``characters`` were spoken, ``seconds`` heard, ``images`` made, by models that are billed by them.
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0
    characters: int = 0
    seconds: int = 0
    images: int = 0


class Record(msgspec.Struct, kw_only=True):
    """One request. ``started`` is in seconds since 1970, ``duration_ms`` runs to the last byte but one.

    ``outcome``: ``completed``; ``dropped`` (this side broke the answer off); ``client_gone`` (the other side hung up);
    ``refused`` (an error instead of an answer). ``usage`` is what was really produced, ``served_usage`` what the answer
    said, if it said anything. ``chunks`` are server-sent events or 1; ``bytes`` is the body's length as sent.
    """

    sequence: int = 0
    id: str | None = None
    request_id: str
    endpoint: str
    status: int
    outcome: str
    started: float
    duration_ms: float
    model: str | None = None
    key: str | None = None
    stream: bool = False
    usage: Usage = Usage()
    served_usage: dict[str, Any] | None = None
    chunks: int = 0
    bytes: int = 0
    error: str | None = None
    attempt_id: str | None = None
    client_request_id: str | None = None


class Ledger:
    """``keep``: how many records stay readable over HTTP. The file, if there is one, has them all."""

    def __init__(self, path: Path | None = None, keep: int = 10_000) -> None:
        self._encode = msgspec.json.Encoder().encode
        self._lines: deque[bytes] = deque(maxlen=keep)
        self._file = -1
        self._next = 1
        self._totals: Counter[str] = Counter()
        #: (day since 1970, endpoint, model) -> requests and tokens: input, cached input, output
        self.days: dict[tuple[int, str, str], list[int]] = {}
        #: seconds since 1970
        self.began = int(time.time())
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def add(self, record: Record) -> None:
        record.sequence = self._next
        self._next += 1
        line = self._encode(record)
        if self._file >= 0:
            os.write(self._file, line + b"\n")
        self._lines.append(line)
        totals, usage = self._totals, record.usage
        if record.model and (usage.prompt or usage.completion):
            day = self.days.setdefault(
                (int(record.started) // _DAY_S, record.endpoint, record.model), [0, 0, 0, 0]
            )
            day[0] += 1
            day[1] += usage.prompt
            day[2] += usage.cached
            day[3] += usage.completion
        totals["served"] += 1
        totals[record.outcome] += 1
        totals["prompt_tokens"] += usage.prompt
        totals["completion_tokens"] += usage.completion

    def clear(self) -> None:
        """Forget what is in memory; the file stays as it is."""
        self._lines.clear()
        self._totals.clear()
        self.days.clear()

    def page(self, since: int, limit: int) -> bytes:
        """As JSON: ``records`` with a sequence above ``since``, ``totals`` since the last clearing, and whether ``more``.

        ``forgotten`` is how many of the served records are no longer in memory.
        """
        found: list[msgspec.Raw] = []
        more = False
        for line in self._lines:
            if since and msgspec.json.decode(line, type=_Sequence).sequence <= since:
                continue
            if len(found) == limit:
                more = True
                break
            found.append(msgspec.Raw(line))
        body = {
            "object": "simulator.ledger",
            "records": found,
            "more": more,
            "forgotten": self._totals["served"] - len(self._lines),
            "totals": self._totals,
        }
        return self._encode(body)


class _Sequence(msgspec.Struct):
    sequence: int
