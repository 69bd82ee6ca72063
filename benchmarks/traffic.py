"""``python -m benchmarks.traffic CALLS [--days 30]``: a ledger such as months of traffic leave, without the months.

Runs in an installation's environment. Calls are as data planes tell of them and go through the ingester's own code to
rows and to rollups; only the journal between is left out. On PostgreSQL that holds for the last week, which is repeated
before (``benchmarks.repeated``). The same arguments make the same calls, but for their ids and
the present moment, at which they end. Rollups by minute are there for as long as an installation keeps them. ``--top-up`` in
place of a number goes on where such a ledger ended; ``--trickle SECONDS`` books a few calls each second from now on. Prints ``{"calls": N, "cost": nanodollars, "seconds": S}``.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import django

#: Different calls; every call is one of them at a moment of its own.
SHAPES = 12_000
_HOUR = timedelta(hours=1)
#: Seconds, as workers are asked to (``console/settings_celery.py``).
_SUMMARIES_EVERY = 20
#: project -> (share of the calls, routes with their models and shares, features)
PROJECTS: dict[str, tuple[float, dict[str, dict[str, float]], tuple[str, ...]]] = {
    "support": (
        0.40,
        {"chat": {"gpt-5-mini": 0.8, "gpt-5": 0.15, "gpt-4o": 0.05}, "triage": {"gpt-5-nano": 1.0}},
        ("reply-draft", "triage", "summary", "translate"),
    ),
    "search": (0.30, {"embed": {"text-embedding-3-small": 1.0}, "rerank": {"gpt-5-nano": 1.0}}, ("index", "query")),
    "writer": (0.15, {"long": {"gpt-5": 0.7, "gpt-5-mini": 0.3}}, ("brief", "proofread", "outline")),
    "agents": (0.10, {"agent": {"gpt-5": 0.9, "gpt-5-mini": 0.1}}, ("plan", "act")),
    "labs": (0.05, {"chat": {"gpt-4o": 1.0}}, ("",)),
}  # fmt: skip
#: model -> (input, cached input, output), nanodollars a token
NANO = {
    "gpt-5": (1_250, 125, 10_000),
    "gpt-5-mini": (250, 25, 2_000),
    "gpt-5-nano": (50, 5, 400),
    "gpt-4o": (2_500, 1_250, 10_000),
    "text-embedding-3-small": (20, 20, 0),
}
_FAILURES = (
    ("error", 502, "upstream_error"),
    ("error", 504, "upstream_timeout"),
    ("refused", 429, "rate_limit_exceeded"),
    ("refused", 429, "insufficient_quota"),
    ("client_closed", 499, "client_closed"),
)


@dataclass(frozen=True)
class Shape:
    """A call without its id and moment: ``values`` from the third column on, and ``text``, the same for COPY."""

    values: tuple[Any, ...]
    text: str
    facts: Any
    cost: int


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.traffic")
    parser.add_argument("calls", type=int, nargs="?", default=0)
    parser.add_argument("--top-up", action="store_true", help="add what was called since the last call")
    parser.add_argument(
        "--trickle", type=int, default=0, metavar="SECONDS", help="a few calls each second from now on"
    )
    parser.add_argument("--days", type=int, default=30)
    given = parser.parse_args()
    django.setup()
    began = time.perf_counter()
    before = _booked()
    if given.trickle:
        trickle(given.trickle)
    elif given.top_up:
        top_up()
    else:
        fill(given.calls, days=given.days)
    calls, cost = (after - had for after, had in zip(_booked(), before, strict=True))
    print(json.dumps({"calls": calls, "cost": cost, "seconds": round(time.perf_counter() - began, 1)}))


def fill(calls: int, *, days: int, seed: int = 7) -> None:
    """Add ``calls`` calls over the last ``days`` days, a few more where days are repeated."""
    from django.conf import settings
    from django.db import connection

    from benchmarks.repeated import DAY, months, repeat

    chance = random.Random(seed)
    kept = timedelta(days=settings.MINUTE_ROLLUP_DAYS)
    shapes = list(_shapes(chance))
    end = datetime.now(tz=UTC).replace(minute=0, second=0, microsecond=0) + _HOUR
    hours = [end - _HOUR * (days * 24 - number) for number in range(days * 24)]
    week = (end - _HOUR).replace(hour=0) - 7 * DAY
    older: list[datetime] = []
    if connection.vendor == "postgresql" and hours[0] < week - DAY:
        older = [week - DAY * number for number in range(1, days - 7)]
        hours = [hour for hour in hours if hour >= week]
        calls += calls // 1_000
    sources = {day: day + 7 * DAY * (1 + (week - DAY - day) // (7 * DAY)) for day in older}
    times = Counter(source.date() for source in sources.values())
    weights = [_busy(hour, number / len(hours)) for number, hour in enumerate(hours)]
    total = sum(weight * (1 + times[hour.date()]) for hour, weight in zip(hours, weights, strict=True))
    sent = 0
    share = 0.0
    for hour, weight in zip(hours, weights, strict=True):
        share += weight / total
        count = round(calls * share) - sent
        # The hour that is not over yet gets no calls to come.
        length = min(3_600.0, max(1.0, time.time() - hour.timestamp()))
        _call_in(hour, 0.0, length, count, shapes, chance, minutes_gone=end - hour > kept)
        sent += count
    for day, source in sources.items():
        repeat(source.date(), day.date())
    if older:
        months()


def top_up(*, seed: int = 8) -> None:
    """Add what was called from the last call on until now, as much in an hour as a day before."""
    from django.db.models import Max, Sum

    from llmops.usage.models import Call, Rollup

    chance = random.Random(seed)
    shapes = list(_shapes(chance))
    now = datetime.now(tz=UTC)
    last = Call.objects.aggregate(Max("started_at"))["started_at__max"] or now - _HOUR
    hour = last.replace(minute=0, second=0, microsecond=0)
    while hour < now:
        begun, length = max(0.0, (last - hour).total_seconds()), min(3_600.0, (now - hour).total_seconds())
        before = Rollup.objects.filter(granularity=Rollup.HOUR, bucket=hour - 24 * _HOUR)
        rate = before.aggregate(Sum("calls"))["calls__sum"] or 1_000
        if length > begun:
            _call_in(hour, begun, length, round(rate * (length - begun) / 3_600), shapes, chance)
        hour += _HOUR


def trickle(seconds: int, *, each: int = 20, seed: int = 9) -> None:
    """Book ``each`` calls every second, as an ingester does, and have summaries made as workers do."""
    from django.db.models import F

    from llmops.usage.models import Journal
    from llmops.usage.services import renew_summaries

    chance = random.Random(seed)
    shapes = list(_shapes(chance))
    begins = datetime.now(tz=UTC)
    journal, _ = Journal.objects.get_or_create(
        pk=UUID(int=9), defaults={"opened_at": begins, "seen_at": begins, "state": Journal.CLOSED}
    )
    ends, turn = time.monotonic() + seconds, 0
    while (began := time.monotonic()) < ends:
        now = datetime.now(tz=UTC)
        hour = now.replace(minute=0, second=0, microsecond=0)
        until = (now - hour).total_seconds()
        _call_in(hour, max(0.0, until - 1), until, each, shapes, chance)
        Journal.objects.filter(pk=journal.pk).update(sequence=F("sequence") + each)
        turn += 1
        if not turn % _SUMMARIES_EVERY:
            renew_summaries()
        time.sleep(max(0.0, began + 1 - time.monotonic()))


def _call_in(
    hour: datetime,
    begun: float,
    length: float,
    count: int,
    shapes: list[Shape],
    chance: random.Random,
    *,
    minutes_gone: bool = False,
) -> None:
    """``count`` calls between two seconds of an hour."""
    offsets = sorted(begun + chance.random() * (length - begun) for _ in range(count))
    _store(hour, offsets, chance.choices(shapes, k=count), chance, minutes_gone=minutes_gone)


def _booked() -> tuple[int, int]:
    """Calls, and what they cost, by the rollups of days."""
    from django.db.models import Sum

    from llmops.usage.models import Rollup

    found = Rollup.objects.filter(granularity=Rollup.DAY).aggregate(Sum("calls"), Sum("cost_nano"))
    return int(found["calls__sum"] or 0), int(found["cost_nano__sum"] or 0)


def _busy(hour: datetime, age: float) -> float:
    """How many calls an hour has beside others: working hours, working days, growth, and an hour now and then of a run."""
    working = 0.25 + math.exp(-(((hour.hour - 13) / 5) ** 2))
    weekend = 0.35 if hour.weekday() >= 5 else 1.0
    return working * weekend * (0.8 + 0.4 * age) * (3.0 if hour.day % 9 == 4 and hour.hour == 2 else 1.0)


def _store(
    hour: datetime,
    offsets: list[float],
    chosen: list[Shape],
    chance: random.Random,
    *,
    minutes_gone: bool,
) -> None:
    from django.db import connection, transaction

    from llmops.usage import partitions
    from llmops.usage.ingest import write
    from llmops.usage.ingest.batch import Batch
    from llmops.usage.ingest.rows import COLUMNS, CallRow

    start = int(hour.timestamp())
    batch = Batch()
    moments = []
    for offset, shape in zip(offsets, chosen, strict=True):
        moments.append((start * 1_000 + int(offset * 1_000), chance.getrandbits(74)))
        minute = start + int(offset) // 60 * 60
        batch.calls.append(CallRow((), replace(shape.facts, minute=minute)))
    partitions.make_days(batch.days())
    table, columns = "usage_call", ", ".join(COLUMNS)
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            with cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
                copy.write("".join(_line(*one, shape) for one, shape in zip(moments, chosen, strict=True)))
        else:
            marks = ", ".join(["%s"] * len(COLUMNS))
            cursor.executemany(
                f"INSERT INTO {table} ({columns}) VALUES ({marks})",
                [
                    (_identifier(*one).hex, _text(one[0]), *shape.values)
                    for one, shape in zip(moments, chosen, strict=True)
                ],
            )
        rollups, latencies = batch.rollups(), batch.latencies()
        if minutes_gone:
            rollups = {key: sums for key, sums in rollups.items() if key[0] > 60}
            latencies = {key: calls for key, calls in latencies.items() if key[0] > 60}
        write.add_rollups(rollups)
        write.add_latencies(latencies)
        write.add_attributions(batch.attributions())
        write.add_prompts(batch.prompts())


def _identifier(ms: int, bits: int) -> UUID:
    return UUID(int=ms << 80 | 0x7 << 76 | (bits >> 62) << 64 | 0b10 << 62 | bits & (1 << 62) - 1)


def _text(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1_000, tz=UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def _line(ms: int, bits: int, shape: Shape) -> str:
    return f"{_identifier(ms, bits)}\t{_text(ms)}+00\t{shape.text}\n"


def _shapes(chance: random.Random) -> Iterator[Shape]:
    from llmops.usage.ingest import write
    from llmops.usage.ingest.rows import call_row

    places = _places()
    journal = str(uuid4())
    for number in range(SHAPES):
        call, outcome = _call(chance, places, number)
        row = call_row(call, outcome, journal)
        values = write._sqlite_call(row.values)[2:]
        text = "\t".join(_escaped(value) for value in row.values[2:])
        yield Shape(values, text, row.facts, call.cost)


def _escaped(value: Any) -> str:
    if value is None:
        return r"\N"
    if isinstance(value, bool):
        return "t" if value else "f"
    text = str(value)
    return text.replace("\\", r"\\").replace("\t", r"\t").replace("\n", r"\n")


def _places() -> dict[str, tuple[str, list[str]]]:
    """Project -> its id and those of its two keys, made where they are missing."""
    from llmops.access.models import Project, ServiceKey

    found = {}
    for slug in PROJECTS:
        project, _ = Project.objects.get_or_create(slug=slug, defaults={"name": slug.title()})
        keys = []
        for name in ("production", "staging"):
            key, _ = ServiceKey.objects.get_or_create(
                project=project,
                name=name,
                defaults={"prefix": f"lk_{slug[:5]}{name[0]}", "secret_hash": uuid4().hex * 2, "scopes": ["inference"]},
            )  # fmt: skip
            keys.append(str(key.pk))
        found[slug] = str(project.pk), keys
    return found


def _picked(chance: random.Random, shares: dict[str, float]) -> str:
    return chance.choices(list(shares), list(shares.values()))[0]


def _verdicts(chance: random.Random) -> list[Any]:
    """What a policy saw of one answer in thirty."""
    from llmops.core.verdicts import ALLOW, REDACT, RETRY, Verdict

    if chance.random() > 0.03:
        return []
    check, action = chance.choice(
        (("refusal", ALLOW), ("schema", RETRY), ("lazy", ALLOW), ("personal_data", REDACT))
    )
    return [Verdict("usual", 1, "after", check, action)]


def _call(chance: random.Random, places: dict[str, tuple[str, list[str]]], number: int) -> tuple[Any, Any]:
    from llmops.core.ids import uuid7
    from llmops.usage.ingest.rows import OpenCall, identity
    from llmops.usage.journal import Position
    from llmops.usage.records import Attempt, Origin, Outcome, Tokens

    slug = _picked(chance, {name: share for name, (share, _, _) in PROJECTS.items()})
    _, routes, features = PROJECTS[slug]
    project, keys = places[slug]
    route = chance.choice(list(routes))
    model = _picked(chance, routes[route])
    embeds = NANO[model][2] == 0
    streamed = not embeds and chance.random() < 0.4
    origin = Origin(
        call=str(uuid7()),
        started=time.time_ns(),
        project=project,
        key=keys[chance.random() < 0.1],
        endpoint="embeddings" if embeds else "responses" if slug == "agents" else "chat.completions",
        revision=1 + number % 3,
        route=route,
        streamed=streamed,
        request=f"req-{number:012d}",
        feature=chance.choice(features),
        user=f"{chance.randrange(20_000):016x}",
        session=f"session-{chance.randrange(50_000)}" if slug != "search" else "",
        tags=[chance.choice(("web", "app", "batch")), slug],
        bytes_in=chance.randrange(300, 20_000),
        # Half of what services ask goes by a prompt, in one of its last three versions.
        prompt_name=f"{route}-prompt" if not embeds and number % 2 else "",
        prompt_version=1 + number % 3 if not embeds and number % 2 else 0,
    )
    took = int(chance.lognormvariate(11.0 if embeds else 14.0, 0.6))
    fails = chance.random() < 0.02
    status, http, code = chance.choice(_FAILURES) if fails else ("ok", 200, "")
    upstream = status != "refused"
    tokens = Tokens()
    cost = 0
    if status == "ok":
        asked = int(chance.lognormvariate(6.5, 0.9))
        cached = asked // 2 if chance.random() < 0.3 else 0
        answered = 0 if embeds else int(chance.lognormvariate(5.2, 0.8))
        reasoned = answered // 3 if model.startswith("gpt-5") else 0
        tokens = Tokens(input=asked, cached=cached, output=answered, reasoning=reasoned)
        plain, again, out = NANO[model]
        cost = (asked - cached) * plain + cached * again + answered * out
    tries = 2 if upstream and chance.random() < 0.04 else 1
    attempts = [
        Attempt(
            one, model, "openai", status=http if one == tries else 503, code=code if one == tries else "upstream_error",
            total_us=took, ttft_us=took // 4 if streamed and status == "ok" else None, cost=cost if one == tries else 0,
            provider_request=f"req_{chance.getrandbits(96):024x}",
        )
        for one in range(1, tries + 1)
    ]  # fmt: skip
    outcome = Outcome(
        status=status,
        http=http,
        model=model if upstream else "",
        model_version=1,
        provider="openai" if upstream else "",
        upstream_model=f"{model}-2026-08-07" if status == "ok" else "",
        code=code,
        finish=chance.choices(("stop", "length", "content_filter"), (97, 2, 1))[0]
        if status == "ok" and not embeds
        else "",
        attempts=attempts if upstream else [],
        retries=tries - 1,
        tokens=tokens,
        cap=1024,
        cost=cost,
        total_us=took + chance.randrange(300, 900) if upstream else 250,
        ttft_us=took // 4 if streamed and status == "ok" else None,
        upstream_us=took if upstream else None,
        provider_request=attempts[-1].provider_request if upstream else "",
        bytes_out=chance.randrange(500, 9_000),
        verdicts=_verdicts(chance) if status == "ok" and not embeds else [],
    )
    call = OpenCall(
        Position(), origin, identity(origin), attempts=tries if upstream else 0, cost=cost, held=cost * 3
    )
    return call, outcome


if __name__ == "__main__":
    main()
