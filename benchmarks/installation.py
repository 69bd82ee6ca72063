"""A console of its own for a benchmark: migrated, configured through ``manage.py apply``, and checked afterwards."""

from __future__ import annotations

import base64
import secrets
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.failure import BenchmarkFailed
from benchmarks.processes import Stage, plain_environment
from benchmarks.upstream import COMPLETION_TOKENS, LARGE_PROMPT_TOKENS, PROMPT_TOKENS, STREAM_TOKENS

INPUT_NANO, OUTPUT_NANO = 2_500, 10_000
#: What one call of the upstream costs: the prices below, times the tokens it states.
CALL_NANO = PROMPT_TOKENS * INPUT_NANO + COMPLETION_TOKENS * OUTPUT_NANO
LARGE_CALL_NANO = LARGE_PROMPT_TOKENS * INPUT_NANO + COMPLETION_TOKENS * OUTPUT_NANO
STREAM_NANO = PROMPT_TOKENS * INPUT_NANO + STREAM_TOKENS * OUTPUT_NANO
#: What every route checks, in words for notes.
POLICY = "a policy (length, secrets, personal data, injection, special tokens; all before the call)"
#: Routes, and the model of the upstream that each leads to, which says what it does.
ROUTE, SLOW_ROUTE, PACED_ROUTE, HOLD_ROUTE = "bench", "slow", "paced", "hold"
UPSTREAM_MODELS = {
    ROUTE: "bench-upstream-2024-01-01",
    SLOW_ROUTE: "slow-50",
    PACED_ROUTE: "paced",
    HOLD_ROUTE: "hold",
}
_MODEL = """\
  - slug: {route}-model
    provider: upstream
    model: {model}
    context_window: 128000
    max_output_tokens: 16384
    default_max_output_tokens: 1024
    capabilities: [chat, stream]
    prices: {{input: "2.50", cached_input: "1.25", output: "10.00"}}
"""
_CONFIGURATION = """\
version: 1
projects:
  - {{slug: bench, name: Benchmark}}
providers:
  - slug: upstream
    kind: compatible
    base_url: {upstream}
    allow_private_network: true
    max_connections: 20000
    credentials: [{{name: only, secret: "plain:upstream-needs-no-key"}}]
models:
{models}
policies:
  - slug: usual
    checks:
      - {{kind: length, stage: before, action: block, settings: {{max_characters: 10000000}}}}
      - {{kind: secrets, stage: before, action: block}}
      - {{kind: personal_data, stage: before, action: redact}}
      - {{kind: injection, stage: before, action: block}}
      - {{kind: special_tokens, stage: before, action: block}}
routes:
{routes}
budgets:
  - {{name: bench-month, scope: "project:bench", limit_usd: "1000000.00", period: month, hard: true}}
service_keys:
  - {{name: bench, project: bench, secret: "plain:{key}", rpm: 1000000000, tpm: 2000000000, concurrency: 100000}}
"""


class Installation:
    """Below ``directory``. ``database_url`` None means SQLite there."""

    def __init__(self, stage: Stage, directory: Path, *, database_url: str | None = None) -> None:
        self._stage = stage
        self.data_dir = directory
        self.data_dir.mkdir(mode=0o700)
        self.journal_dir = directory / "journal"
        self.database_url = database_url
        self.key = secrets.token_urlsafe(32)
        self.env = plain_environment() | {
            "CONSOLE_DATA_DIR": str(directory),
            "CONSOLE_SECRET_KEY": secrets.token_urlsafe(48),
            "CONSOLE_MASTER_KEYS": "bench:" + base64.b64encode(secrets.token_bytes(32)).decode(),
            "DJANGO_SETTINGS_MODULE": "console.settings",
        }
        if database_url:
            self.env["DATABASE_URL"] = database_url
        self.manage("migrate", "--verbosity", "0")

    def manage(self, *arguments: str, stdin: str | None = None) -> str:
        return self._stage.run(["manage.py", *arguments], env=self.env, stdin=stdin)

    def configure(self, *, upstream: str) -> None:
        """A key with limits far away, a hard budget that lasts, and all routes to the provider at ``upstream``, each with a
        policy of the five usual checks, which find nothing."""
        models = "".join(_MODEL.format(route=route, model=model) for route, model in UPSTREAM_MODELS.items())
        routes = "\n".join(
            f"  - {{slug: {route}, targets: [{{model: {route}-model}}], policies: [usual]}}"
            for route in UPSTREAM_MODELS
        )
        path = self.data_dir / "bench.yaml"
        path.write_text(_CONFIGURATION.format(upstream=upstream, models=models, routes=routes, key=self.key))
        self.manage("apply", "-f", str(path))

    def rows(self, query: str) -> Sequence[tuple[Any, ...]]:
        if self.database_url is None:
            with closing(sqlite3.connect(self.data_dir / "console.sqlite3", timeout=20)) as connection:
                return connection.execute(query).fetchall()
        import psycopg

        with psycopg.connect(self.database_url) as connection:
            return connection.execute(query).fetchall()

    def tidy(self) -> None:
        """What autovacuum would have done by and by: statistics, and which pages index-only scans may trust."""
        if self.database_url is None:
            return
        import psycopg

        with psycopg.connect(self.database_url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")

    def must_hold(self, *, calls: int, cost: int, all_answered: bool = True) -> None:
        """After the last ingest: so many calls of this cost (nanodollars) in the ledger and the rollups, the budget
        settled at their sum, nothing of it leased or overrun."""
        sums = "count(*), coalesce(sum(cost_nano), 0) FROM usage_call"
        rollups = "coalesce(sum(calls), 0), coalesce(sum(cost_nano), 0) FROM usage_rollup"
        expected = {
            f"SELECT {sums}": (calls, cost),
            **{
                f"SELECT {rollups} WHERE granularity = {length}": (calls, cost)
                for length in (60, 3600, 86400)
            },
            "SELECT sum(settled_nano), sum(leased_nano), sum(overrun_nano) FROM budgets_window": (cost, 0, 0),
            "SELECT count(*) FROM usage_call WHERE status = 'unknown'": (0,),
        }
        if all_answered:
            expected[f"SELECT {sums} WHERE status = 'ok'"] = (calls, cost)
        wrong = []
        for query, right in expected.items():
            found = tuple(int(figure or 0) for figure in self.rows(query)[0])
            if found != right:
                wrong.append(f"{query}: {found} instead of {right}")
        if wrong:
            raise BenchmarkFailed("the ledger does not hold what was sent:\n  " + "\n  ".join(wrong))
