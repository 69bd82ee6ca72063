"""How long the console's pages of figures take over ten million calls, on PostgreSQL."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks import in_browser, open_boards
from benchmarks.failure import BenchmarkFailed
from benchmarks.installation import Installation
from benchmarks.processes import Stage, Started, stage
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
    **{
        f"{page.capitalize()}, 90 days": f"/{page}/?from={{long_ago}}&to={{today}}"
        for page in ("reliability", "traffic", "quality")
    },
    "Alerts": "/alerts/",
    "Alerts: an incident": "/alerts/{incident}/",
    "Alerts: SLOs": "/alerts/slos/",
    "Alerts: rules in the admin": "/admin/alerts/rule/",
    "Reconciliation": "/reconciliation/",
    "Readiness": "/readiness/",
    "What if": "/routes/whatif/",
    "Calls, newest": "/calls/?range=24h",
    "Calls, failed in 30 days": "/calls/?range=30d&status=failed",
    "Calls of a project": "/calls/?range=30d&project={project}",
    "Calls of a project, a later page": "/calls/?range=30d&project={project}&after={after}",
    "A call": "/calls/{call}/",
    "Calls, two compared": "/calls/compare/?call={call}&call={other}",
    "To compare: a page without figures": "/jobs/",
    "To compare: projects in the admin": "/admin/access/project/",
}
#: The pages that the bar is about.
_BARRED = (
    "Overview", "Spend", "Reliability", "Traffic", "Quality", "Alerts", "Reconciliation", "Readiness", "What if", "Calls", "A call",
)  # fmt: skip
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
from datetime import timedelta
from django.utils import timezone
from llmops.alerts.models import Incident, Rule, Slo
from llmops.alerts.services import ensure_shipped
ensure_shipped()
for slug, objective, target, threshold, more in (
    ("all-available", "availability", 995_000, 0, {}),
    ("chat-fast", "latency", 950_000, 8_000_000, {"route": "chat"}),
    ("agent-starts", "ttft", 950_000, 4_000_000, {"route": "agent"}),
    ("summaries-cheap", "cost", 990_000, 5_000_000, {"feature": "summary"}),
    ("support-keeps-schema", "schema", 990_000, 0, {"project_id": project}),
):
    Slo.objects.get_or_create(
        slug=slug, defaults={"objective": objective, "target_ppm": target, "threshold": threshold, **more}
    )
now = timezone.now()
incident = Incident.objects.order_by("opened_at").last() or Incident.objects.create(
    rule=Rule.objects.order_by("slug")[0], subject="route chat", severity="warning", title="Errors on route chat",
    opened_at=now - timedelta(hours=2), last_true_at=now, facts={"route": "chat"},
)
page = calls_page(filters=CallFilters(project_ids={project}))
print(json.dumps({
    "call": str(Call.objects.filter(project_id=project, retry_count=1).order_by("-started_at", "-id").values_list("pk", flat=True)[0]),
    "other": str(page.calls[0].pk),
    "after": page.next_cursor,
    "cookie": f"{settings.SESSION_COOKIE_NAME}={session.session_key}",
    "project": str(project),
    "incident": str(incident.pk),
    "long_ago": (now - timedelta(days=90)).date().isoformat(),
    "today": now.date().isoformat(),
}))
"""


@dataclass(frozen=True)
class Measured:
    """Milliseconds of each request, the first one apart: it finds nothing in memory."""

    name: str
    first: float
    later: list[float]
    #: milliseconds of CPU of the console and of PostgreSQL for each of the later ones
    cpu: float

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
        used = _used(console, installation)
        found = [
            one
            for name, address in PAGES.items()
            if (one := _measure(port, signed_in, name, address, options.rounds or ROUNDS, used)) is not None
        ]
        browsed, in_chromium, on_chromium = in_browser.measure(port, signed_in)
        console.must_live()
        console.stop()
        console, port = here.serve(
            "open-boards", "console.asgi_console:application", ready="/readyz",
            env=installation.env | open_boards.CONSOLE_ENV,
        )  # fmt: skip
        seconds = open_boards.SECONDS if options.seconds is None else options.seconds
        live, on_live = open_boards.measure(here, installation, console, port, seconds=seconds)
    worst = max((one for one in found if one.name.startswith(_BARRED)), key=lambda one: one.p95)
    rows = [
        [one.name, *(f"{ms:.0f}" for ms in (statistics.median(one.later), one.p95, one.first, one.cpu))]
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
            ),
            browsed,
            live,
        ],
        tables=[Table(["page", "median, ms", "p95, ms", "first, ms", "CPU, ms"], rows), in_chromium],
        notes=[
            f"{calls:,} calls of {DAYS} days (`python -m benchmarks.traffic`){filled}, on PostgreSQL beside one process of "
            "the control plane, both on the cores that everything else runs on.",
            cardinalities,
            "Summaries are made but for those of the running day, hour and minute, as they are while calls are booked.",
            f"Whole pages over HTTP, signed in, one at a time, {options.rounds or ROUNDS} times each after a first one. CPU: of the "
            "console and of PostgreSQL, each of them; while something else keeps the machine busy, it is the figure to trust.",
            on_chromium,
            on_live,
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


def _used(console: Started, installation: Installation) -> Callable[[], float]:
    """Asks for the seconds of CPU that the console and all of PostgreSQL have taken."""
    # One that stays: the backend of this very question ends with it.
    lasting = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"
    postmaster = psutil.Process(installation.rows(lasting)[0][0]).parent()

    def used() -> float:
        found = console.cpu()
        if postmaster is None:
            return found
        own = postmaster.cpu_times()
        found += own.user + own.system + own.children_user + own.children_system
        for child in postmaster.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = child.cpu_times()
                found += times.user + times.system
        return found

    return used


def _measure(
    port: int, signed_in: dict[str, str], name: str, address: str, rounds: int, used: Callable[[], float]
) -> Measured | None:
    took = []
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    before = 0.0
    for number in range(rounds + 1):
        if number == 1:
            before = used()
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
    return Measured(name, took[0], took[1:], 1000 * (used() - before) / rounds)
