"""Dashboards that are open follow by server-sent events, and what it costs does not depend on how many look.

All who look at one board (``making.Asked``) share what was made of it, and one task of a process (``Rounds``) looks for all of
them: an open page costs next to nothing until there is something to tell it. Nothing is made while nothing was booked; and the more
boards are open, and the longer one takes, the longer each waits, so that a process spends no more than a fortieth of a core on them.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import signal
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from types import FrameType, SimpleNamespace
from typing import Any, cast

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import get_user
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

log = logging.getLogger(__name__)

#: A board that is open is looked at so often, in seconds, where nothing makes it slower.
EVERY_S = 5.0
#: Figures grow old by themselves, as calls leave their range.
STALE_S = 30.0
#: What making boards may take of a core.
SHARE = 0.025
#: A stream ends by itself after so long, and the page comes back: to open one costs as much as a page without figures.
MOST_SECONDS = 300.0
#: A comment shows a proxy, and a client that is gone, that the stream lives.
COMMENT_EVERY_S = 15.0
#: At once, of one person in one process. A page that is not seen holds none.
MOST_STREAMS = 20
_PULSE_S = 1.0
#: A board that nobody has open is kept for so long, in seconds.
_LEFT_S = 120.0
_GONE = b"event: gone\ndata: {}\n\n"

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
    follower = Follower(asked, person, request.session.session_key or "", marker)
    body: Any = (
        follower.stream() if isinstance(request, ASGIRequest) else [b"retry: 2000\n\n", follower.look()]
    )
    answer = StreamingHttpResponse(body, content_type="text/event-stream; charset=utf-8")
    answer["X-Accel-Buffering"] = "no"
    return answer


class Follower:
    """One page that is open: what it was told last, and what it is told next. ``session`` is the key of its reader's session."""

    def __init__(self, asked: Asked, person: int, session: str, marker: str) -> None:
        self.asked = asked.whenever()
        self.person = person
        self.session = session
        self.marker = marker
        self._events: list[bytes] = []
        self._ended = False
        self._woken = asyncio.Event()

    async def stream(self) -> AsyncIterator[bytes]:
        rounds = Rounds.here()
        ends = time.monotonic() + MOST_SECONDS
        _streams[self.person] += 1
        _open[self.asked] += 1
        rounds.join(self)
        try:
            yield b"retry: 2000\n\n"
            while (left := ends - time.monotonic()) > 0 and not self._ended:
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(COMMENT_EVERY_S, left)):
                        await self._woken.wait()
                self._woken.clear()
                told, self._events = self._events, []
                yield b"".join(told) or b": still here\n\n"
        finally:
            rounds.leave(self)
            _streams[self.person] -= 1
            _open[self.asked] -= 1
            if not _open[self.asked]:
                del _open[self.asked]

    @property
    def behind(self) -> bool:
        """Whether it has not taken yet what it was told."""
        return bool(self._events)

    def tell(self, event: bytes) -> None:
        """In the event loop of its stream."""
        self._events.append(event)
        self._ended = self._ended or event == _GONE
        self._woken.set()

    def end(self) -> None:
        """The page comes back, to whoever serves then."""
        self._ended = True
        self._woken.set()

    def look(self, readers: Readers | None = None) -> bytes:
        """An event, or nothing where nothing changed. ``readers`` are whom this same look has asked about before."""
        known = current(self.asked)
        if known.made.marker == self.marker:
            return b""
        # Roles, and signing out, are felt at once: what is told is what may be seen now.
        if (readers if readers is not None else Readers()).scope(
            self.person, self.session
        ) != self.asked.scope:
            return _GONE
        event = known.event(self.marker)
        self.marker = known.made.marker
        return event


class Readers:
    """What those who look may see at this moment; each is looked up once."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, str], Scope | None] = {}

    def scope(self, person: int, session: str) -> Scope | None:
        """None for whoever has signed out since, was deactivated, or has another password."""
        key = person, session
        if key not in self._known:
            store = import_module(settings.SESSION_ENGINE).SessionStore(session)
            user = get_user(cast("HttpRequest", SimpleNamespace(session=store)))
            self._known[key] = Scope.of(user) if user.is_authenticated and user.pk == person else None
        return self._known[key]


class Rounds:
    """Looks for all streams of one event loop, in one thread at a time, for as long as there are any."""

    _now: Rounds | None = None

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._followers: set[Follower] = set()
        self._new: set[Follower] = set()
        self._came = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._end_with_the_server()

    @classmethod
    def here(cls) -> Rounds:
        loop = asyncio.get_running_loop()
        if cls._now is None or cls._now._loop is not loop:
            cls._now = cls(loop)
        return cls._now

    def join(self, follower: Follower) -> None:
        self._followers.add(follower)
        self._new.add(follower)
        self._came.set()
        if self._task is None:
            # Of no request: what is looked at is everybody's.
            self._task = self._loop.create_task(self._run(), context=contextvars.Context())

    def leave(self, follower: Follower) -> None:
        self._followers.discard(follower)
        self._new.discard(follower)
        self._came.set()

    def end(self) -> None:
        for follower in self._followers:
            follower.end()

    async def _run(self) -> None:
        look = sync_to_async(self._look, thread_sensitive=False)
        due = time.monotonic() + EVERY_S
        try:
            while self._followers:
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, due - time.monotonic())):
                        await self._came.wait()
                self._came.clear()
                whom, self._new = self._new, set()
                if time.monotonic() >= due:
                    whom, due = set(self._followers), time.monotonic() + EVERY_S
                if not whom:
                    continue
                try:
                    await look(whom)
                except Exception:
                    # Pages come back, and show that nobody answers them if that is so.
                    log.warning("open dashboards could not be looked at; their streams end", exc_info=True)
                    self.end()
        finally:
            self._task = None

    def _look(self, whom: Collection[Follower]) -> None:
        """Whose board is made is told at once, and does not wait for the others'."""
        close_old_connections()
        readers = Readers()
        try:
            for follower in sorted(whom, key=lambda one: hash(one.asked)):
                if not follower.behind and (event := follower.look(readers)):
                    self._loop.call_soon_threadsafe(follower.tell, event)
        finally:
            close_old_connections()

    def _end_with_the_server(self) -> None:
        """End streams with the signal itself: a server waits for its answers, however long they are, before it says that it stops."""
        previous = signal.getsignal(signal.SIGTERM)
        if threading.current_thread() is not threading.main_thread() or not callable(previous):
            return

        def asked(number: int, frame: FrameType | None) -> None:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self.end)
            previous(number, frame)

        signal.signal(signal.SIGTERM, asked)
        signal.siginterrupt(signal.SIGTERM, False)


@dataclass(slots=True)
class Known:
    """A board as it was made last, ``at`` by the monotonic clock, when ``beat`` was the ledger's, and the one that differed ``before``."""

    at: float
    beat: str
    made: Made
    before: Made | None = None
    _events: dict[bool, bytes] = field(default_factory=dict)

    def event(self, marker: str) -> bytes:
        """For a page that shows ``marker``: what differs where that is the board before, or all of it. The same bytes for all."""
        partly = self.before is not None and self.before.marker == marker
        if partly not in self._events:
            told = json.dumps(self.made.told(since=self.before if partly else None))
            self._events[partly] = f"id: {self.made.marker}\ndata: {told}\n\n".encode()
        return self._events[partly]

    def anew(self, at: float, beat: str, found: Made) -> Known:
        if found.marker == self.made.marker:
            return Known(at, beat, found, self.before, self._events)
        return Known(at, beat, found, self.made)


def current(asked: Asked) -> Known:
    """The board as it is now; as it was made before, while nothing was booked since and it is not old, or while making it
    again would take more than its part of ``SHARE``."""
    with _lock:
        known = _last.get(asked)
        boards = max(1, len(_open))
    age = time.monotonic() - known.at if known is not None else 0.0
    if known is not None and age < max(EVERY_S, known.made.took * boards / SHARE):
        return known
    beat = pulse()
    if known is not None and known.beat == beat and age < STALE_S:
        return known
    found = made(asked.at(timezone.now()))
    now = time.monotonic()
    with _lock:
        found_now = known.anew(now, beat, found) if known is not None else Known(now, beat, found)
        _last[asked] = found_now
        # A page that comes back within a moment finds its board again.
        for gone in [one for one, old in _last.items() if one not in _open and now - old.at > _LEFT_S]:
            del _last[gone]
    return found_now


_last: dict[Asked, Known] = {}


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
