"""Dashboards that are open follow by server-sent events, and what it costs does not depend on how many look.

All who look at one board (``making.Asked``) share what was made of it. Nothing is made while nothing was booked; and the more
boards are open, and the longer one takes, the longer each waits, so that a process spends no more than a fiftieth of a core on them.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.core.handlers.asgi import ASGIRequest
from django.db import close_old_connections
from django.db.models import Max, Sum
from django.http import HttpRequest, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from llmops.audit.models import ChainHead
from llmops.dashboards.boards.making import Asked, Made, made
from llmops.dashboards.boards.scope import Scope
from llmops.dashboards.boards.views import asked_of
from llmops.providers.models import OpenBreaker
from llmops.usage.models import Journal

#: A board that is open is looked at so often, in seconds, where nothing makes it slower.
EVERY_S = 5.0
#: Figures grow old by themselves, as calls leave their range.
STALE_S = 30.0
#: What making boards may take of a core.
SHARE = 0.02
#: A stream ends by itself after so long, and the page comes back: none holds up a server that wants to stop.
MOST_SECONDS = 25.0
#: At once, of one person in one process. A page that is not seen holds none.
MOST_STREAMS = 20
_PULSE_S = 1.0
#: A board that nobody has open is kept for so long, in seconds.
_LEFT_S = 120.0

_streams: Counter[int] = Counter()
_open: Counter[Asked] = Counter()
_lock = threading.Lock()
_pulse: tuple[float, str] = (0.0, "")


@require_GET
@never_cache
def live(request: HttpRequest, kind: str) -> HttpResponseBase:
    """A stream of what changes after ``Last-Event-ID`` (or ``?marker=``), the marker of what the page shows."""
    if not request.user.is_authenticated:
        return JsonResponse({"signed_out": True}, status=401)
    asked = asked_of(request, kind)
    person = int(request.user.pk)
    if _streams[person] >= MOST_STREAMS:
        return JsonResponse(
            {"error": "Dashboards are open in too many windows of yours. Close some of them."},
            status=429,
            headers={"retry-after": "5"},
        )
    marker = request.headers.get("Last-Event-ID") or request.GET.get("marker", "")
    follower = Follower(asked, person, marker)
    body: Any = (
        follower.stream() if isinstance(request, ASGIRequest) else [b"retry: 2000\n\n", follower.look()]
    )
    answer = StreamingHttpResponse(body, content_type="text/event-stream; charset=utf-8")
    answer["X-Accel-Buffering"] = "no"
    return answer


class Follower:
    """What one page was told last."""

    def __init__(self, asked: Asked, person: int, marker: str) -> None:
        self.asked = asked
        self.person = person
        self.marker = marker

    async def stream(self) -> AsyncIterator[bytes]:
        ends = time.monotonic() + MOST_SECONDS
        key = self.asked
        _streams[self.person] += 1
        _open[key] += 1
        look = sync_to_async(self._look_apart, thread_sensitive=False)
        try:
            yield b"retry: 2000\n\n"
            while True:
                told = await look()
                # A comment shows a proxy, and a client that is gone, that the stream lives.
                yield told or b": still here\n\n"
                left = ends - time.monotonic()
                if told.startswith(b"event: gone") or left <= EVERY_S:
                    return
                await asyncio.sleep(EVERY_S)
        finally:
            _streams[self.person] -= 1
            _open[key] -= 1
            if not _open[key]:
                del _open[key]

    def _look_apart(self) -> bytes:
        close_old_connections()
        try:
            return self.look()
        finally:
            close_old_connections()

    def look(self) -> bytes:
        """An event, or nothing where nothing changed."""
        found = current(self.asked)
        if found.marker == self.marker:
            return b""
        # Roles are felt at once: what is told is what may be seen now.
        if not self._still():
            return b"event: gone\ndata: {}\n\n"
        self.marker = found.marker
        return f"id: {found.marker}\ndata: {json.dumps(found.told())}\n\n".encode()

    def _still(self) -> bool:
        user = get_user_model().objects.filter(pk=self.person, is_active=True).first()
        return user is not None and Scope.of(user) == self.asked.scope


def current(asked: Asked) -> Made:
    """The board as it is now; as it was made before, while nothing was booked since and it is not old, or while making it
    again would take more than its part of ``SHARE``."""
    now = asked.at(timezone.now())
    with _lock:
        known = _last.get(asked)
        boards = max(1, len(_open))
    age = time.monotonic() - known[0] if known is not None else 0.0
    if known is not None and age < max(EVERY_S, known[2].took * boards / SHARE):
        return known[2]
    beat = pulse()
    if known is not None and known[1] == beat and age < STALE_S:
        return known[2]
    found = made(now)
    with _lock:
        _last[asked] = (time.monotonic(), beat, found)
        # A page that comes back within a moment finds its board again.
        for gone in [
            one for one, (at, _, _) in _last.items() if one not in _open and time.monotonic() - at > _LEFT_S
        ]:
            del _last[gone]
    return found


_last: dict[Asked, tuple[float, str, Made]] = {}


def pulse() -> str:
    """Changes when something was booked, done, or left alone. Asked once a second, for all that are open."""
    global _pulse
    with _lock:
        at, known = _pulse
        if time.monotonic() - at < _PULSE_S:
            return known
        _pulse = (time.monotonic(), known)
    booked = Journal.objects.aggregate(Sum("sequence"), Max("opened_at"))
    done = ChainHead.objects.values_list("sequence", flat=True).first()
    breakers = OpenBreaker.objects.aggregate(Max("since"))["since__max"], OpenBreaker.objects.count()
    beat = repr((booked, done, breakers))
    with _lock:
        _pulse = (time.monotonic(), beat)
    return beat


def forget() -> None:
    """What is known of boards and of the ledger is asked anew."""
    global _pulse
    with _lock:
        _pulse = (0.0, "")
        _last.clear()
