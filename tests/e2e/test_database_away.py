"""The database goes away under load and comes back: within leased money no call fails, and no record is lost.

The outage is short here; ``OUTAGE_SECONDS=60`` makes it as long as the bar asks for.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.e2e.test_budget_under_fire import CONFIGURATION, KEY, Answer, Fire, ask, client_session, wait_for
from tests.installation import Installation
from tests.simulator.running import running

OUTAGE_SECONDS = float(os.environ.get("OUTAGE_SECONDS", "6"))
CLIENTS = 12
PACE_SECONDS = 0.5


@contextmanager
def database_away(installation: Installation) -> Iterator[None]:
    """SQLite: somebody else has it for good. PostgreSQL: every connection is cut and none is let in."""
    url = installation.database_url
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=60)) as connection:
            connection.isolation_level = None
            connection.execute("BEGIN EXCLUSIVE")
            yield
            connection.execute("ROLLBACK")
        return
    import psycopg
    from psycopg import sql

    parts = urlsplit(url)
    name = parts.path.lstrip("/")
    with psycopg.connect(urlunsplit(parts._replace(path="/postgres")), autocommit=True) as connection:
        switch = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        connection.execute(switch.format(sql.Identifier(name), sql.Literal(False)))
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
        try:
            connection.execute(cut, (name,))
            yield
        finally:
            connection.execute(switch.format(sql.Identifier(name), sql.Literal(True)))


@pytest.mark.timeout(600)
async def test_calls_go_on_and_are_all_there_afterwards(installation: Installation, tmp_path: Path) -> None:
    with running(tmp_path) as simulator:
        text = CONFIGURATION.format(url=simulator.url, key=KEY, limit="500", tokens=30, latency=100)
        installation.manage("apply", "-f", "-", stdin=text)
        installation.spawn(["manage.py", "ingest"])
        found = Fire(installation, simulator, [installation.free_port()], [None])  # type: ignore[list-item]
        found.start(0)
        found.ready(0)
        answers: list[Answer] = []
        during: list[Answer] = []
        over = asyncio.Event()

        async def client(session: object) -> None:
            while not over.is_set():
                # At a rate that the process can foresee: what it leases is for that.
                pause = asyncio.create_task(asyncio.sleep(PACE_SECONDS))
                answers.append(await ask(session, found.ports[0]))  # type: ignore[arg-type]
                await pause

        async def outage() -> None:
            # Until the process has seen how fast it spends, and has leased for that.
            began = time.monotonic()
            while len(answers) < 80 or time.monotonic() - began < 4:
                await asyncio.sleep(0.05)
            before = len(answers)
            with database_away(installation):
                await asyncio.sleep(OUTAGE_SECONDS)
                during.extend(answers[before:])
            await asyncio.sleep(1)
            over.set()

        async with client_session() as session:
            await asyncio.gather(outage(), *(client(session) for _ in range(CLIENTS)))

        assert len(during) > 10 and {answer.status for answer in answers} == {200}
        served = found.served()
        assert {answer.call for answer in answers} == served.keys()
        wait_for(lambda: served.keys() == found.calls().keys(), seconds=90)
        assert found.calls() == {call: ("ok", cost) for call, (_, cost) in served.items()}
        wait_for(lambda: found.window()[2] == 0)
        assert found.window()[1:] == (sum(cost for _, cost in served.values()), 0, 0, 0)
