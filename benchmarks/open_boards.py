"""What dashboards that stay open take of a core, of the console and of its database, while calls come in. Part of ``dashboards``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

from benchmarks.failure import BenchmarkFailed
from benchmarks.installation import Installation
from benchmarks.processes import Stage, Started
from benchmarks.report import Bar
from tests.servers import log_tail

OPEN = 50
#: By so many people, each in windows of their own.
PEOPLE = 5
SECONDS = 60.0
#: Before it is measured: every board is made for the first time.
_SETTLE_S = 15.0
ASKED_PERCENT = 5.0
#: Twelve boards that differ.
BOARDS = [
    f"/{kind}/live/?range={span}"
    for kind in ("reliability", "traffic", "quality")
    for span in ("1h", "24h", "7d", "30d")
]
#: The console's connections go by this name. One query is then one backend's work, however busy the others are.
NAME = "console-under-test"
CONSOLE_ENV = {"PGAPPNAME": NAME, "PGOPTIONS": "-c max_parallel_workers_per_gather=0"}
_SESSIONS = f"""
from importlib import import_module
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
import json
cookies = []
for number in range({PEOPLE}):
    user, _ = get_user_model().objects.get_or_create(
        username=f"onlooker-{{number}}", defaults={{"is_superuser": True, "is_staff": True}}
    )
    session = import_module(settings.SESSION_ENGINE).SessionStore()
    session[SESSION_KEY], session[BACKEND_SESSION_KEY] = str(user.pk), settings.AUTHENTICATION_BACKENDS[-1]
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    cookies.append(f"{{settings.SESSION_COOKIE_NAME}}={{session.session_key}}")
print(json.dumps(cookies))
"""


@dataclass
class Seen:
    """What the open pages were told; ``ages`` are seconds between two events of one page."""

    events: int = 0
    streams: int = 0
    ages: list[float] = field(default_factory=list)
    problem: str = ""


def measure(
    here: Stage, installation: Installation, console: Started, port: int, *, seconds: float = SECONDS
) -> tuple[Bar, str]:
    """The bar, and a note on how it was measured."""
    cookies = json.loads(installation.manage("shell", "-v0", "-c", _SESSIONS).splitlines()[-1])
    calls = here.start(
        "calls",
        ["-m", "benchmarks.traffic", "--trickle", str(int(_SETTLE_S + seconds + 30))],
        env=installation.env,
    )
    seen = Seen()
    cpu = asyncio.run(_watched(port, cookies, seen, lambda: _cpu(console, installation), seconds))
    calls.must_live()
    calls.stop()
    if seen.problem:
        raise BenchmarkFailed(f"{seen.problem}\n{log_tail(console.log)}")
    if not seen.events:
        raise BenchmarkFailed("no open dashboard was told anything")
    console_s, database_s = (after - before for before, after in zip(*cpu, strict=True))
    percent = 100 * (console_s + database_s) / seconds
    bar = Bar(
        f"{OPEN} open dashboards while calls come in, of one core",
        f"< {ASKED_PERCENT:g}%",
        f"{percent:.1f}%",
        percent < ASKED_PERCENT,
    )
    age = f", {sum(seen.ages) / len(seen.ages):.0f} s apart" if seen.ages else ""
    note = (
        f"Open: {OPEN} streams of server-sent events, of {len(BOARDS)} boards (each kind over 1 hour to 30 days), looked at by "
        f"{PEOPLE} people, for {seconds:.0f} s after {_SETTLE_S:.0f}; 20 calls are booked each second. The console took "
        f"{100 * console_s / seconds:.1f}% of a core and its connections to PostgreSQL {100 * database_s / seconds:.1f}%; "
        f"{seen.events:,} updates were told{age}. A stream ends after five minutes and is opened again, which {seen.streams:,} of them did meanwhile."
    )
    return bar, note


def _cpu(console: Started, installation: Installation) -> tuple[float, float]:
    """Seconds of CPU so far: of the console, of its database connections."""
    rows = installation.rows(f"SELECT pid FROM pg_stat_activity WHERE application_name = '{NAME}'")
    database = 0.0
    for (pid,) in rows:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = psutil.Process(pid).cpu_times()
            database += times.user + times.system
    return console.cpu(), database


async def _watched(
    port: int, cookies: list[str], seen: Seen, cpu: Callable[[], tuple[float, float]], seconds: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    pages = [
        asyncio.create_task(
            _page(port, cookies[number % len(cookies)], BOARDS[number % len(BOARDS)], number, seen)
        )
        for number in range(OPEN)
    ]
    await asyncio.sleep(_SETTLE_S)
    before, seen.events, seen.streams, seen.ages = cpu(), 0, 0, []
    await asyncio.sleep(seconds)
    after = cpu()
    for page in pages:
        page.cancel()
    await asyncio.gather(*pages, return_exceptions=True)
    return before, after


async def _page(port: int, cookie: str, address: str, number: int, seen: Seen) -> None:
    """As a browser has it open: one stream, and another when that ends, after the wait that the server asks for."""
    marker, told_at = "", 0.0
    # People do not open their pages at one moment.
    await asyncio.sleep(number * 0.2)
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
        head = (
            f"GET {address} HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {cookie}\r\nAccept: text/event-stream\r\n"
        )
        head += f"Last-Event-ID: {marker}\r\n" if marker else ""
        writer.write(f"{head}Connection: close\r\n\r\n".encode())
        status = await reader.readline()
        if b" 200 " not in status:
            seen.problem = f"{address} answered {status!r}"
            return
        seen.streams += 1
        while line := await reader.readline():
            if line.startswith(b"id: "):
                marker = line[4:].strip().decode()
                seen.events += 1
                now = time.monotonic()
                if told_at:
                    seen.ages.append(now - told_at)
                told_at = now
        writer.close()
        await asyncio.sleep(2)
