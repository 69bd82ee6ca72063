"""How long a million calls take to leave as CSV, and how much memory that takes, over HTTP as a browser fetches them."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.failure import BenchmarkFailed
from benchmarks.installation import Installation
from benchmarks.processes import Stage, Started, stage
from benchmarks.report import Bar, Options, Section, Table
from tests import servers
from tests.servers import free_port

#: ``BENCH_CALLS`` makes fewer.
CALLS = int(os.environ.get("BENCH_CALLS", "1000000"))
DAYS = 30
ASKED_S, ASKED_MB = 60, 200
_SETTINGS = {"shared_buffers": "256MB", "max_wal_size": "2GB"}
#: One call, and then as many like it as are asked for, a moment and a nanodollar apart. Prints how to sign in.
_FILL = """
import json, secrets, sys
from datetime import UTC, datetime, timedelta
from importlib import import_module
from uuid import uuid4
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.db import connection
from llmops.access.models import Project, ServiceKey
from llmops.usage import partitions
from llmops.usage.models import Call
calls, days = {calls}, {days}
end = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
start = end - timedelta(days=days)
project = Project.objects.create(slug="bench", name="Benchmark", cost_center="CC-1")
key = ServiceKey.objects.create(project=project, name="bench", prefix="lk_bench", secret_hash=uuid4().hex * 2, scopes=["inference"])
first = Call.objects.create(
    id=uuid4(), started_at=start - timedelta(days=1), journal_id=uuid4(), project_id=project.pk, key_id=key.pk,
    endpoint="chat.completions", route="chat", model="gpt-5-mini", model_version=1, provider="openai",
    upstream_model="gpt-5-mini-2026-08-07", revision=1, status="ok", http_status=200, attempt_count=1, input_tokens=1200,
    output_tokens=300, cost_nano=900000, feature="reply-draft", user_digest="0123456789abcdef", session="session-1",
    tags=["web", "customer:acme"], request_id="req-000000000001", total_us=1200000, attempts=[{{"n": 1, "model": "gpt-5-mini"}}],
    charges=[{{"window": 1, "held": 1, "cost": 1, "overrun": 0}}],
)
partitions.make_days({{(start + timedelta(days=number)).date() for number in range(days)}})
step = (end - start) / calls
columns = [field.column for field in Call._meta.concrete_fields]
same = [column for column in columns if column not in ("id", "started_at", "cost_nano")]
with connection.cursor() as cursor:
    if connection.vendor == "postgresql":
        cursor.execute(
            f"INSERT INTO usage_call (id, started_at, cost_nano, {{', '.join(same)}}) SELECT gen_random_uuid(), "
            f"%s + n * %s, cost_nano + n, {{', '.join(same)}} FROM usage_call, generate_series(0, %s) AS n WHERE id = %s",
            [start, step, calls - 1, first.pk],
        )
        cursor.execute("ANALYZE usage_call")
    else:
        cursor.execute(
            f"WITH RECURSIVE up(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM up WHERE n < %s) "
            f"INSERT INTO usage_call (id, started_at, cost_nano, {{', '.join(same)}}) SELECT lower(hex(randomblob(16))), "
            f"datetime(%s + n * %s, 'unixepoch'), cost_nano + n, {{', '.join(same)}} FROM usage_call, up WHERE id = %s",
            [calls - 1, int(start.timestamp()), step.total_seconds(), first.pk.hex],
        )
user = get_user_model().objects.create(username="bench", is_superuser=True, is_staff=True)
session = import_module(settings.SESSION_ENGINE).SessionStore()
session[SESSION_KEY], session[BACKEND_SESSION_KEY] = str(user.pk), settings.AUTHENTICATION_BACKENDS[-1]
session[HASH_SESSION_KEY] = user.get_session_auth_hash()
session.save()
token = secrets.token_hex(16)
print(json.dumps({{
    "cookie": f"{{settings.SESSION_COOKIE_NAME}}={{session.session_key}}; {{settings.CSRF_COOKIE_NAME}}={{token}}",
    "token": token, "from": start.date().isoformat(), "to": (end - timedelta(days=1)).date().isoformat(),
}}))
"""


@dataclass(frozen=True)
class Measured:
    """``grown`` is by how much the console's memory rose at most, ``peak`` what it was then, in megabytes."""

    database: str
    lines: int
    megabytes: float
    seconds: float
    first: float
    peak: float
    grown: float


def run(options: Options) -> Section:
    found = []
    with stage() as here:
        for database, opened in (("PostgreSQL", _postgres), ("SQLite", _embedded)):
            with opened() as url:
                found.append(_measure(here, database, url))
    slowest, largest = max(found, key=lambda one: one.seconds), max(found, key=lambda one: one.peak)
    return Section(
        "export",
        bars=[
            Bar(
                f"{CALLS:,} calls as CSV", f"< {ASKED_S} s", f"{slowest.seconds:.0f} s ({slowest.database})", slowest.seconds < ASKED_S
            ),
            Bar(
                "memory of the process that sends them", f"< {ASKED_MB} MB", f"{largest.peak:.0f} MB ({largest.database})", largest.peak < ASKED_MB
            ),
        ],
        tables=[
            Table(
                ["database", "lines", "MB", "s", "first byte, ms", "peak, MB", "grown by, MB"],
                [
                    [one.database, f"{one.lines:,}", f"{one.megabytes:.0f}", f"{one.seconds:.1f}", f"{one.first * 1000:.0f}",
                     f"{one.peak:.0f}", f"{one.grown:.0f}"]
                    for one in found
                ],
            )
        ],
        notes=[
            f"{CALLS:,} calls of {DAYS} days from one process of the control plane, over HTTP, as the Export button of the Spend "
            "page asks for them. Memory is resident memory of that process, its code and pages included, looked at twice a second."
        ],
    )  # fmt: skip


@contextmanager
def _postgres() -> Iterator[str | None]:
    with servers.postgres(settings=_SETTINGS) as url:
        yield url


@contextmanager
def _embedded() -> Iterator[str | None]:
    yield None


def _measure(here: Stage, database: str, url: str | None) -> Measured:
    installation = Installation(here, here.directory / database.lower(), database_url=url)
    filled = installation.manage("shell", "-v0", "-c", _FILL.format(calls=CALLS, days=DAYS))
    known = json.loads(filled.splitlines()[-1])
    console, port = here.serve(
        f"console-{free_port()}", "console.asgi_console:application", ready="/readyz", env=installation.env
    )
    _page(port, known)
    before = peak = console.rss() / 1e6
    began = looked = time.perf_counter()
    size = lines = 0
    first = 0.0
    for chunk in _download(port, known):
        first = first or time.perf_counter() - began
        size += len(chunk)
        lines += chunk.count(b"\n")
        if time.perf_counter() - looked > 0.5:
            looked, peak = time.perf_counter(), max(peak, console.rss() / 1e6)
    took = time.perf_counter() - began
    _stopped(console)
    if lines != CALLS + 1:
        raise BenchmarkFailed(f"{lines:,} lines arrived instead of {CALLS + 1:,}")
    return Measured(database, lines, size / 1e6, took, first, peak, peak - before)


def _page(port: int, known: dict[str, str]) -> None:
    """Look at the page first, as people do: the process has loaded what it needs."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/spend/", headers={"Cookie": known["cookie"]})
    answer = connection.getresponse()
    if answer.status != 200 or not answer.read():
        raise BenchmarkFailed(f"the Spend page answered {answer.status}")
    connection.close()


def _download(port: int, known: dict[str, str]) -> Iterator[bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    body = f"what=calls&from={known['from']}&to={known['to']}&csrfmiddlewaretoken={known['token']}"
    headers = {"Cookie": known["cookie"], "Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", "/spend/", body=body, headers=headers)
    answer = connection.getresponse()
    if answer.status != 200:
        raise BenchmarkFailed(f"the export answered {answer.status}")
    while chunk := answer.read1(1 << 20):
        yield chunk
    connection.close()


def _stopped(console: Started) -> None:
    console.must_live()
    console.stop()
