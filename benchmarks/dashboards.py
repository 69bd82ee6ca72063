"""How long the console's pages of figures take over ten million calls, on PostgreSQL."""

from __future__ import annotations

import http.client
import json
import math
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from benchmarks.failure import BenchmarkFailed
from benchmarks.installation import Installation
from benchmarks.processes import Stage, stage
from benchmarks.report import Bar, Options, Section, Table
from tests import servers

#: ``BENCH_CALLS`` makes fewer; ``BENCH_DATA`` is a directory in which the PostgreSQL stays, ``BENCH_LEDGER`` the address of one
#: that runs. Calls that are there are not made again; those since the last one are.
CALLS = int(os.environ.get("BENCH_CALLS", "10000000"))
DATA, LEDGER = os.environ.get("BENCH_DATA"), os.environ.get("BENCH_LEDGER")
DAYS = 30
ROUNDS = 20
ASKED_MS = 300
#: Pages that are measured where the console has them: what they are called here -> address. ``{project}`` is the busiest.
PAGES = {
    "Overview, 1 hour": "/?range=1h",
    "Overview, 24 hours": "/?range=24h",
    "Overview, 7 days": "/?range=7d",
    "Overview, 30 days": "/?range=30d",
    "Overview, 7 days of a project": "/?range=7d&project={project}",
    "Spend, 7 days": "/spend/?range=7d",
    "Spend, 30 days": "/spend/?range=30d",
    "Spend, this month by feature": "/spend/?by=feature",
    "Spend, this month by end user": "/spend/?by=user",
    "Spend, 30 days by end user": "/spend/?range=30d&by=user",
    "Spend, 30 days by tag": "/spend/?range=30d&by=tag",
    "Spend, 30 days of a project": "/spend/?range=30d&project={project}",
    **{
        f"{page.capitalize()}, {words}": f"/{page}/?range={span}{more}"
        for page in ("reliability", "traffic", "quality")
        for words, span, more in (
            ("1 hour", "1h", ""),
            ("24 hours", "24h", ""),
            ("7 days", "7d", ""),
            ("30 days", "30d", ""),
            ("7 days of a project", "7d", "&project={project}"),
            ("7 days of a feature", "7d", "&feature=summary"),
            ("30 days of a route and model", "30d", "&route=chat&model=gpt-5-mini"),
        )
    },
    "Calls, newest": "/calls/?range=24h",
    "Calls, failed in 30 days": "/calls/?range=30d&status=failed",
    "Calls of a project": "/calls/?range=30d&project={project}",
    "Calls of a project, a later page": "/calls/?range=30d&project={project}&after={after}",
    "A call": "/calls/{call}/",
    "To compare: a page without figures": "/jobs/",
    "To compare: projects in the admin": "/admin/access/project/",
}
#: The pages that the bar is about.
_BARRED = ("Overview", "Spend", "Reliability", "Traffic", "Quality")
_SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "4GB", "work_mem": "16MB"}
_SESSION = """
from importlib import import_module
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
user, _ = get_user_model().objects.get_or_create(username="bench", defaults={"is_superuser": True, "is_staff": True})
session = import_module(settings.SESSION_ENGINE).SessionStore()
session[SESSION_KEY], session[BACKEND_SESSION_KEY] = str(user.pk), settings.AUTHENTICATION_BACKENDS[-1]
session[HASH_SESSION_KEY] = user.get_session_auth_hash()
session.save()
from llmops.access.models import Project
from llmops.usage.models import Call
from llmops.usage.selectors import CallFilters, calls_page
import json
project = Project.objects.get(slug="support").pk
page = calls_page(filters=CallFilters(project_ids={project}))
print(json.dumps({
    "call": str(Call.objects.filter(project_id=project, retry_count=1).order_by("-started_at", "-id").values_list("pk", flat=True)[0]),
    "after": page.next_cursor,
    "cookie": f"{settings.SESSION_COOKIE_NAME}={session.session_key}",
    "project": str(project),
}))
"""


@dataclass(frozen=True)
class Measured:
    """Milliseconds of each request, the first one apart: it finds nothing in memory."""

    name: str
    first: float
    later: list[float]

    @property
    def p95(self) -> float:
        ordered = sorted(self.later)
        return ordered[math.ceil(0.95 * len(ordered)) - 1]


def run(options: Options) -> Section:
    with stage() as here, _ledger() as url:
        installation = Installation(here, here.directory / "data", database_url=url)
        calls, filled = _fill(here, installation)
        _as_under_traffic(url)
        cardinalities = _cardinalities(installation)
        signed_in = json.loads(installation.manage("shell", "-v0", "-c", _SESSION).splitlines()[-1])
        console, port = here.serve(
            "console", "console.asgi_console:application", ready="/readyz", env=installation.env
        )
        found = [
            one
            for name, address in PAGES.items()
            if (one := _measure(port, signed_in, name, address, options.rounds or ROUNDS)) is not None
        ]
        console.must_live()
    worst = max((one for one in found if one.name.startswith(_BARRED)), key=lambda one: one.p95)
    rows = [
        [one.name, f"{statistics.median(one.later):.0f}", f"{one.p95:.0f}", f"{one.first:.0f}"]
        for one in found
    ]
    return Section(
        "dashboards",
        bars=[
            Bar(
                f"Dashboards over {calls:,} calls, p95",
                f"<= {ASKED_MS} ms",
                f"{worst.p95:.0f} ms ({worst.name})",
                worst.p95 <= ASKED_MS,
            )
        ],
        tables=[Table(["page", "median, ms", "p95, ms", "first, ms"], rows)],
        notes=[
            f"{calls:,} calls of {DAYS} days (`python -m benchmarks.traffic`){filled}, on PostgreSQL beside one process of "
            "the control plane, both on the cores that everything else runs on.",
            cardinalities,
            "Summaries are made but for those of the running day, hour and minute, as they are while calls are booked.",
            f"Whole pages over HTTP, signed in, one at a time, {options.rounds or ROUNDS} times each after a first one.",
        ],
    )


@contextmanager
def _ledger() -> Iterator[str]:
    if not LEDGER and not DATA:
        with servers.postgres(settings=_SETTINGS) as url:
            yield url
        return
    with (
        nullcontext(LEDGER) if LEDGER else servers.postgres(settings=_SETTINGS, keep=Path(DATA or "")) as url
    ):
        import psycopg

        with psycopg.connect(url, autocommit=True) as connection:
            # Each run has master keys of its own, and a generated ledger holds no secret under those of the last one.
            if connection.execute("SELECT to_regclass('base_master_key_verifier')").fetchone() != (None,):
                connection.execute("DELETE FROM base_master_key_verifier")
        yield url


def _fill(here: Stage, installation: Installation) -> tuple[int, str]:
    """Make what is missing; how many calls there are then, and how long that took, in words."""
    have = _calls(installation)
    if 0 < have < CALLS:
        raise BenchmarkFailed(f"the ledger has {have:,} calls, neither none nor {CALLS:,}")
    words = ""
    if not have:
        made = json.loads(
            here.run(["-m", "benchmarks.traffic", str(CALLS), "--days", str(DAYS)], env=installation.env)
        )
        words = f", made in {made['seconds']:.0f} s"
    here.run(["-m", "benchmarks.traffic", "--top-up"], env=installation.env)
    installation.manage("usage", "summarise")
    if not have:
        installation.tidy()
    return _calls(installation), words


def _calls(installation: Installation) -> int:
    return int(
        installation.rows("SELECT coalesce(sum(calls), 0) FROM usage_rollup WHERE granularity = 86400")[0][0]
    )


def _as_under_traffic(url: str) -> None:
    """Summaries of the running day, hour and minute are behind, as they always are while calls are booked."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO usage_stale_summary (granularity, bucket) SELECT DISTINCT ON (granularity) granularity, bucket "
            "FROM usage_summary WHERE dimension = '' ORDER BY granularity, bucket DESC"
        )


def _cardinalities(installation: Installation) -> str:
    """What the number of rows of rollups follows from."""
    counts = ", ".join(
        f"count(DISTINCT {name})"
        for name in ("project_id", "key_id", "route", "model", "feature", "error_code")
    )
    found = installation.rows(
        f"SELECT {counts}, count(*), (SELECT count(*) FROM usage_latency_rollup WHERE granularity = 3600), "
        "(SELECT count(*) FROM usage_summary), (SELECT count(*) FROM usage_attribution_rollup WHERE granularity = 86400) "
        "FROM usage_rollup WHERE granularity = 3600"
    )[0]
    projects, keys, routes, models, features, codes, rows, sketches, summaries, attributions = found
    return (
        f"{projects} projects, {keys} keys, {routes} routes, {models} models, {features} features and {codes} error codes (none among "
        f"them) make {rows:,} rows of hourly counts, {sketches:,} of hourly sketches, {summaries:,} summaries and {attributions:,} rows of days by "
        "end user and tag."
    )


def _measure(port: int, signed_in: dict[str, str], name: str, address: str, rounds: int) -> Measured | None:
    took = []
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for _ in range(rounds + 1):
        began = time.perf_counter()
        connection.request(
            "GET",
            address.format(**signed_in),
            headers={"Cookie": signed_in["cookie"], "Cache-Control": "no-cache"},
        )
        answer = connection.getresponse()
        body = answer.read()
        took.append((time.perf_counter() - began) * 1000)
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise BenchmarkFailed(f"{address} answered {answer.status}: {body[:300]!r}")
    connection.close()
    return Measured(name, took[0], took[1:])
