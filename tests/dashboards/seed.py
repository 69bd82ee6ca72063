"""Rows as ``ingest`` would have left them, for the pages to show: calls with their stories, rollups, budgets.

``fill`` makes the cast and configuration, ``one_call`` a single call and its rollups, ``traffic`` a day of many.
Nothing here is random from run to run.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

from django.contrib.auth import get_user_model

from llmops.access.models import Membership, Project, ServiceKey
from llmops.budgets.models import Budget, Window
from llmops.budgets.periods import bounds
from llmops.core.digests import sha256_hex
from llmops.core.histogram import bucket_of
from llmops.core.ids import uuid7
from llmops.core.money import cost_nano, parse_usd
from llmops.providers.models import Credential, Model, ModelConfig, Price, Provider, Route, RouteTarget
from llmops.providers.rules import origin_of
from llmops.serving.compile import compile_document
from llmops.serving.models import LivePointer, Revision
from llmops.usage.ingest import write
from llmops.usage.models import Call, PromptRollup, Rollup
from llmops.usage.signals import BIT

PASSWORD = "correct horse battery staple"
PRICES = {  # nanodollars per million tokens
    "gpt-4o-2024-08-06": {"input": 2_500_000_000, "cached_input": 1_250_000_000, "output": 10_000_000_000},
    "gpt-4o-mini-2024-07-18": {"input": 150_000_000, "cached_input": 75_000_000, "output": 600_000_000},
    "sim-large": {"input": 3_000_000_000, "cached_input": 300_000_000, "output": 15_000_000_000},
    "text-embedding-3-small": {"input": 20_000_000},
}


def person(name: str, *roles: tuple[str, Project | None], password: str | None = None, **fields: Any) -> Any:
    """Without a password nobody can sign in by one, and no time goes into hashing it."""
    user = get_user_model().objects.create_user(username=name, password=password, **fields)
    for role, project in roles:
        Membership.objects.create(user=user, project=project, role=role)
    return user


def fill(*, password: str | None = None) -> SimpleNamespace:
    """The cast (Alice everywhere, Bob operates support, Charlie holds nothing) and what is configured."""
    support = Project.objects.create(
        slug="support", name="Support assistant", owner="ops@example.com", cost_center="CC-100"
    )
    search = Project.objects.create(
        slug="search", name="Product search", owner="search@example.com", cost_center="CC-210"
    )
    keys = {
        slug: ServiceKey.objects.create(
            project=project, name=name, prefix=f"lk_{slug[:4]}", secret_hash=uuid4().hex * 2,
            scopes=["inference"], allowed_routes=["*"],
        )
        for slug, project, name in (("support", support, "helpdesk"), ("search", search, "ranker"))
    }  # fmt: skip
    openai = Provider.objects.create(
        slug="openai", name="OpenAI", kind="openai", base_url="https://api.openai.com/v1"
    )
    simulator = Provider.objects.create(
        slug="simulator", name="Simulator", kind="simulator", base_url="http://127.0.0.1:9900/v1",
        allow_private_network=True,
    )  # fmt: skip
    for provider in (openai, simulator):
        Credential.objects.create(
            provider=provider,
            name="primary",
            source="env",
            reference="OPENAI_API_KEY",
            state="active",
            origin=origin_of(provider.base_url),
        )
    for slug, prices in PRICES.items():
        model = Model.objects.create(slug=slug)
        model.current = ModelConfig.objects.create(
            model=model, version=1, provider=simulator if slug == "sim-large" else openai, upstream_model=slug,
            context_window=128_000, max_output_tokens=0 if "embed" in slug else 16_384,
            default_max_output_tokens=0 if "embed" in slug else 1_024, digest="0" * 64, created_by="seed",
        )  # fmt: skip
        model.save()
        for token_class, price in prices.items():
            Price.objects.create(
                model=model, token_class=token_class, nano_per_million=price,
                effective_from=datetime(2026, 1, 1, tzinfo=UTC), source="price list of 2026-01-01", created_by="seed",
            )  # fmt: skip
    for slug, targets, fallbacks in (
        ("chat", ["gpt-4o-2024-08-06"], ["gpt-4o-mini-2024-07-18", "sim-large"]),
        ("summarise", ["gpt-4o-mini-2024-07-18"], ["sim-large"]),
        ("embed", ["text-embedding-3-small"], []),
    ):
        route = Route.objects.create(slug=slug, description=f"What services call {slug}.")
        for position, (target, fallback) in enumerate(
            [*((t, False) for t in targets), *((f, True) for f in fallbacks)]
        ):
            RouteTarget.objects.create(
                route=route, model=Model.objects.get(slug=target), fallback=fallback, position=position
            )
    now = datetime.now(UTC)
    document = compile_document().encoded
    revision = Revision.objects.create(
        number=7, digest=sha256_hex(document), document=document.decode(), changes=["route chat: fallback sim-large added"],
        reason="Keep chat alive when both OpenAI models fail", author="Alice Adler (alice)", published_at=now - timedelta(days=2),
    )  # fmt: skip
    LivePointer.objects.create(revision=revision, moved_at=now - timedelta(days=2))
    cast = SimpleNamespace(
        support=support, search=search, keys=keys, openai=openai, simulator=simulator,
        alice=person("alice", first_name="Alice", last_name="Adler", is_superuser=True, password=password),
        bob=person("bob", ("operator", support), first_name="Bob", last_name="Brandt", password=password),
        charlie=person("charlie", password=password),
    )  # fmt: skip
    return cast


def republished(slug: str, prices: dict[str, int]) -> int:
    """The number of a new revision in which a model has these prices too, in nanodollars each."""
    model = Model.objects.get(slug=slug)
    for token_class, price in prices.items():
        Price.objects.create(
            model=model, token_class=token_class, nano_per_million=price * 10**6,
            effective_from=datetime(2026, 1, 1, tzinfo=UTC), created_by="seed",
        )  # fmt: skip
    document = compile_document().encoded
    number = Revision.objects.latest("number").number + 1
    Revision.objects.create(
        number=number, digest=sha256_hex(document), document=document.decode(), changes=[], reason="Prices",
        author="Alice Adler (alice)", published_at=datetime.now(UTC) - timedelta(days=1),
    )  # fmt: skip
    return int(number)


def budget(slug: str, limit: str, settled: str, leased: str = "0", *, scope: str = "project", value: str = "",
           project: Project | None = None, period: str = "month", hard: bool = True, timezone: str = "UTC") -> Window:  # fmt: skip
    found = Budget.objects.create(
        slug=slug, scope_kind=scope, scope_value=value, project=project, period=period, timezone=timezone,
        limit_nano=parse_usd(limit), hard=hard, thresholds=[50, 80, 100],
    )  # fmt: skip
    starts_at, ends_at = bounds(period, timezone, datetime.now(UTC))
    return Window.objects.create(
        budget=found, starts_at=starts_at, ends_at=ends_at, hard=hard, limit_nano=parse_usd(limit),
        settled_nano=parse_usd(settled), leased_nano=parse_usd(leased),
    )  # fmt: skip


@dataclass
class Sums:
    """Rollups in the making, so that many calls cost few statements. Buckets are Unix seconds."""

    rows: dict[tuple[Any, ...], list[int]] = field(default_factory=dict)
    latency: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    prompts: dict[tuple[Any, ...], list[int]] = field(default_factory=dict)

    def add(self, call: Call) -> None:
        signals = {name: int(bool(call.signals & bit)) for name, bit in BIT.items()}
        counted = {
            "calls": 1, "streamed": int(call.streamed), "attempts": call.attempt_count, "retries": call.retry_count,
            "fallback_calls": int(call.fallback_count > 0), "input_tokens": call.input_tokens,
            "cached_input_tokens": call.cached_input_tokens, "output_tokens": call.output_tokens,
            "cost_nano": call.cost_nano, "overrun_nano": call.overrun_nano,
            "cache_hits": int(call.cache in ("hit", "joined", "stale")), "busy_us": call.total_us,
            "queued_calls": int(call.queue_us >= 1_000), **signals,
        }  # fmt: skip
        if call.status == Call.OK and call.attempt_count and call.upstream_us is not None:
            counted |= {
                "timed_calls": 1, "timed_us": call.total_us, "upstream_us": call.upstream_us, "queue_us": call.queue_us,
            }  # fmt: skip
        named = {
            "calls": 1, "failed": int(call.status in ("error", "interrupted", "unknown")),
            "refused": int(call.status == Call.REFUSED), "input_tokens": call.input_tokens,
            "output_tokens": call.output_tokens, "cost_nano": call.cost_nano, **signals,
        }  # fmt: skip
        measured: dict[str, int | None] = {}
        if call.status == Call.OK:
            measured = {"total": call.total_us, "ttft": call.ttft_us}
            if call.upstream_us is not None:
                measured["overhead"] = call.total_us - call.upstream_us
        stamp = int(call.started_at.timestamp())
        for granularity in (Rollup.MINUTE, Rollup.HOUR, Rollup.DAY):
            bucket = granularity, stamp - stamp % granularity
            whose = call.project_id, call.key_id
            _add(
                self.rows,
                (*bucket, *whose, call.endpoint, call.route, call.model, call.feature, call.status, call.error_code),
                [counted.get(name, 0) for name in Rollup.SUMS],
            )  # fmt: skip
            if call.prompt_name:
                prompt = call.prompt_name, call.prompt_version or 0
                _add(
                    self.prompts,
                    (*bucket, *whose, call.route, call.model, call.feature, *prompt),
                    [named[name] for name in PromptRollup.SUMS],
                )
            for metric, value in measured.items():
                if value is not None:
                    place = call.project_id, call.route, call.model, metric
                    self.latency[(*bucket, *place, bucket_of(value))] += 1

    def store(self) -> None:
        write.add_rollups(self.rows)
        write.add_prompts(self.prompts)
        write.add_latencies(self.latency)


def _add(rows: dict[tuple[Any, ...], list[int]], key: tuple[Any, ...], sums: list[int]) -> None:
    rows[key] = [before + by for before, by in zip(rows[key], sums, strict=True)] if key in rows else sums


def attempt(n: int, model: str, **given: Any) -> dict[str, Any]:
    """As ``usage.records.Attempt`` reads in JSON."""
    return {"n": n, "model": model, "provider": "simulator" if model.startswith("sim") else "openai", **given}


def make_call(cast: SimpleNamespace, at: datetime, **given: Any) -> Call:
    """A call that is not stored yet; everything has a plausible default."""
    project: Project = given.pop("project", cast.support)
    values: dict[str, Any] = {
        "id": uuid7(), "started_at": at, "journal_id": UUID(int=1), "project_id": project.id,
        "key_id": cast.keys[project.slug].id, "endpoint": "chat.completions", "route": "chat",
        "model": "gpt-4o-2024-08-06", "model_version": 1, "provider": "openai",
        "upstream_model": "gpt-4o-2024-08-06", "revision": 7, "status": Call.OK, "http_status": 200,
        "finish_reason": "stop", "attempt_count": 1, "input_tokens": 812, "cached_input_tokens": 256,
        "output_tokens": 143, "held_nano": 12_000_000, "total_us": 1_240_000, "upstream_us": 1_236_000,
        "ttft_us": 312_000, "queue_us": 0, "provider_us": 1_180_000, "provider_request_id": "req_7f3a91",
        "request_id": f"req_{uuid4().hex[:20]}", "request_bytes": 3_412, "response_bytes": 1_907, "streamed": True,
        **given,
    }  # fmt: skip
    if "cost_nano" not in values:
        prices = PRICES.get(values["model"], {})
        cached = values["cached_input_tokens"]
        values["cost_nano"] = cost_nano(
            [
                (values["input_tokens"] - cached, prices.get("input", 0)),
                (cached, prices.get("cached_input", 0)),
                (values["output_tokens"], prices.get("output", 0)),
            ]
        )
    if "attempts" not in values and values["attempt_count"]:
        values["attempts"] = [
            attempt(1, values["model"], status=values["http_status"], code=values.get("error_code", ""),
                    total_us=values["upstream_us"] or 0, ttft_us=values["ttft_us"], cost=values["cost_nano"],
                    provider_request=values["provider_request_id"], started_us=2_100)
        ]  # fmt: skip
    return Call(**values)


def store(calls: Iterable[Call]) -> list[Call]:
    """Insert calls and add them to their rollups."""
    found, sums = list(calls), Sums()
    for call in found:
        sums.add(call)
    Call.objects.bulk_create(found, batch_size=200)
    sums.store()
    return found


def failed_over_twice(cast: SimpleNamespace, at: datetime, **given: Any) -> Call:
    return make_call(
        cast, at, model="sim-large", provider="simulator", upstream_model="sim-large-001", attempt_count=4,
        retry_count=1, fallback_count=2, total_us=4_910_000, upstream_us=4_870_000, ttft_us=4_120_000,
        provider_us=910_000, cost_nano=7_206_000,
        attempts=[
            attempt(1, "gpt-4o-2024-08-06", status=429, code="upstream_rate_limited", total_us=310_000, started_us=1_900,
                    note="rate limit reached for requests", provider_request="req_01ab", why=""),
            attempt(2, "gpt-4o-2024-08-06", status=503, code="upstream_error", total_us=1_020_000, started_us=640_000,
                    note="the server is overloaded", provider_request="req_02cd", why="again after status 429"),
            attempt(3, "gpt-4o-mini-2024-07-18", status=0, code="upstream_timeout", total_us=1_500_000,
                    started_us=1_700_000, note="no answer within 1.5 s", why="after status 503", cost=54_000),
            attempt(4, "sim-large", status=200, total_us=1_650_000, ttft_us=870_000, started_us=3_240_000,
                    provider_us=910_000, provider_request="sim_99", why="after a time-out", cost=7_152_000),
        ],
        **given,
    )  # fmt: skip


def unknown(cast: SimpleNamespace, at: datetime, **given: Any) -> Call:
    return make_call(
        cast, at, status=Call.UNKNOWN, http_status=0, error_code="outcome_unknown", finish_reason="", ttft_us=None,
        total_us=0, upstream_us=None, provider_us=None, provider_request_id="", input_tokens=0, output_tokens=0,
        cached_input_tokens=0, cost_nano=12_000_000, held_nano=12_000_000, usage_estimated=True,
        error_message="The process died before the outcome was written down; the attempt under way is charged at its full hold.",
        attempts=[attempt(1, "gpt-4o-2024-08-06", code="outcome_unknown")], **given,
    )  # fmt: skip


def interrupted(cast: SimpleNamespace, at: datetime, **given: Any) -> Call:
    return make_call(
        cast, at, status=Call.INTERRUPTED, error_code="stream_interrupted", finish_reason="", output_tokens=61,
        usage_estimated=True, error_message="The provider ended the stream before it was finished.", **given,
    )  # fmt: skip


def failed(
    cast: SimpleNamespace, at: datetime, code: str = "upstream_timeout", http: int = 504, **given: Any
) -> Call:
    return make_call(
        cast, at, status=Call.ERROR, http_status=http, error_code=code, finish_reason="", ttft_us=None,
        input_tokens=0, cached_input_tokens=0, output_tokens=0, error_message="The provider did not answer in time.",
        **given,
    )  # fmt: skip


def refused(cast: SimpleNamespace, at: datetime, code: str = "insufficient_quota", **given: Any) -> Call:
    return make_call(
        cast, at, status=Call.REFUSED, http_status=429, error_code=code, finish_reason="", attempt_count=0, attempts=[],
        model="", model_version=None, provider="", upstream_model="", ttft_us=None, upstream_us=None, provider_us=None,
        provider_request_id="", input_tokens=0, cached_input_tokens=0, output_tokens=0, cost_nano=0, held_nano=0,
        total_us=900, error_message="The budget support-month allows no more until 2026-12-01 00:00 UTC.", **given,
    )  # fmt: skip


def traffic(
    cast: SimpleNamespace, *, until: datetime, hours: int = 24, per_hour: int = 90, seed: int = 7
) -> list[Call]:
    """``hours`` of calls that ebb and flow, with a bad quarter of an hour two hours before the end."""
    chance = random.Random(seed)
    calls: list[Call] = []
    for minute in range(hours * 60):
        at = until - timedelta(minutes=hours * 60 - minute)
        wave = 0.55 + 0.45 * ((at.hour - 4) % 24 < 14) + 0.15 * chance.random()
        trouble = timedelta(hours=1, minutes=45) < until - at < timedelta(hours=2)
        for _ in range(_poisson(chance, per_hour / 60 * wave)):
            calls.append(_any_call(cast, at + timedelta(seconds=chance.random() * 59), chance, trouble))
    return [call for call in calls if call.started_at <= until]


def _any_call(cast: SimpleNamespace, at: datetime, chance: random.Random, trouble: bool) -> Call:
    dice = chance.random()
    project = cast.support if chance.random() < 0.64 else cast.search
    if dice < (0.22 if trouble else 0.011):
        code, http = chance.choice(
            [("upstream_timeout", 504), ("upstream_error", 502), ("rate_limit_exceeded", 429)]
        )
        return failed(cast, at, code, http, project=project, total_us=chance.randint(900_000, 9_000_000))
    if dice < (0.4 if trouble else 0.03):
        return failed_over_twice(cast, at, project=project)
    if dice < 0.037:
        return refused(cast, at, project=project)
    if dice < 0.039:
        return interrupted(cast, at, project=project)
    if dice < 0.046:
        return make_call(
            cast, at, project=project, status=Call.CLIENT_CLOSED, http_status=499, finish_reason=""
        )
    kind = chance.random()
    speed = chance.lognormvariate(0, 0.45) * (2.4 if trouble else 1)
    if kind < 0.55:
        output = max(8, int(chance.lognormvariate(4.9, 0.7)))
        total = int((260_000 + output * 11_000) * speed)
        return make_call(
            cast, at, project=project, input_tokens=int(chance.lognormvariate(6.6, 0.6)) + 300,
            cached_input_tokens=chance.choice([0, 0, 256]), output_tokens=output, total_us=total + 3_100,
            upstream_us=total, ttft_us=int(240_000 * speed), provider_us=int(total * 0.94),
        )  # fmt: skip
    if kind < 0.8:
        output = max(8, int(chance.lognormvariate(4.6, 0.6)))
        total = int((150_000 + output * 6_000) * speed)
        return make_call(
            cast, at, project=project, route="summarise", model="gpt-4o-mini-2024-07-18",
            upstream_model="gpt-4o-mini-2024-07-18", streamed=False, ttft_us=None, output_tokens=output,
            input_tokens=int(chance.lognormvariate(7.4, 0.5)) + 100, cached_input_tokens=0, total_us=total + 2_600,
            upstream_us=total, provider_us=int(total * 0.95),
        )  # fmt: skip
    if kind < 0.95:
        total = int(85_000 * speed)
        return make_call(
            cast, at, project=project, route="embed", endpoint="/v1/embeddings", model="text-embedding-3-small",
            upstream_model="text-embedding-3-small", streamed=False, ttft_us=None, finish_reason="", output_tokens=0,
            input_tokens=int(chance.lognormvariate(6.0, 0.6)), cached_input_tokens=0, total_us=total + 1_900,
            upstream_us=total, provider_us=int(total * 0.9),
        )  # fmt: skip
    return make_call(
        cast,
        at,
        project=project,
        model="sim-large",
        provider="simulator",
        upstream_model="sim-large-001",
        cached_input_tokens=0,
    )


def _poisson(chance: random.Random, mean: float) -> int:
    limit, found, product = pow(2.718281828, -mean), 0, chance.random()
    while product > limit:
        found, product = found + 1, product * chance.random()
    return found
