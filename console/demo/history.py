"""Books the story of the demo (``story.py``) as if its calls had been served: the journal's own records, through the
ingester's own code, into calls, rollups and budget windows, all in one transaction and once.

Everything is at the simulated provider and marked as such on every page. The history ends with yesterday, so that what is
spent today is what the simulator served. Nothing of this runs in an installation that is not the embedded demo.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from uuid import UUID

from django.conf import settings
from django.db import transaction

from console.demo import people, statement
from console.demo.story import MODELS, OK, RUN_DAY, UNKNOWN, Asked, Months, Story
from llmops.access.models import Project, ServiceKey
from llmops.audit.services import record
from llmops.base.clock import database_now
from llmops.budgets.models import Budget, ThresholdCrossing, Window
from llmops.budgets.periods import bounds
from llmops.budgets.services import lease, open_window
from llmops.core.actors import Actor
from llmops.core.digests import sha256_hex
from llmops.core.money import NANO, format_usd
from llmops.providers.models import ModelConfig, Price
from llmops.providers.pricing import PriceBook
from llmops.providers.services import add_price
from llmops.serving.services import publish
from llmops.serving.snapshot import PriceRow
from llmops.usage import partitions
from llmops.usage.ingest.batch import Batch, Latencies, Rollups
from llmops.usage.ingest.follower import write_batch
from llmops.usage.ingest.ledger import Ledger
from llmops.usage.ingest.rows import AT_COST
from llmops.usage.journal import Entry, Position
from llmops.usage.models import Journal
from llmops.usage.records import (
    Attempt,
    Charge,
    Ended,
    Held,
    HeldCharge,
    Origin,
    Outcome,
    Record,
    Shortage,
    Tokens,
)
from llmops.usage.services import Told, report_outcomes
from llmops.usage.services.retention import move_mark

#: The journal that the history is booked from: it is there once, or not at all.
JOURNAL = UUID("de300000-0000-4000-8000-000000000001")
PROVIDER = "simulator"
HOST = "demo history (simulated)"
#: The key of each project that made its calls, by name.
KEYS = {"support": "first key", "search": "search", "experiments": "experiments"}
#: The budget for a day of the project search came into force shortly before the run over the catalogue.
_DAILY = "search-day"
#: The model that became dearer by a quarter, on this day of last month.
_DEARER, _DEARER_DAY = "sim-gpt-4o", 16
_CODES = {"error": (502, "upstream_error"), "refused": (429, "insufficient_quota")}
_MINUTE = 60


@dataclass(slots=True)
class History(Batch):
    """A batch without the rollups by minute that an installation has forgotten by now."""

    minutes_since: int = 0

    def rollups(self) -> Rollups:
        return {key: sums for key, sums in Batch.rollups(self).items() if self._kept(key[0], key[1])}

    def latencies(self) -> Latencies:
        return {key: calls for key, calls in Batch.latencies(self).items() if self._kept(key[0], key[1])}

    def _kept(self, granularity: int, bucket: int) -> bool:
        return granularity > _MINUTE or bucket >= self.minutes_since


@dataclass(slots=True)
class _Writer:
    """Turns the story's calls into records, and knows what of every budget is spent by then."""

    projects: dict[str, str]
    keys: dict[str, str]
    books: dict[str, PriceBook]
    budgets: Sequence[Budget]
    since: dict[UUID, datetime]
    chance: random.Random = field(default_factory=lambda: random.Random(7))
    entries: list[Entry] = field(default_factory=list)
    #: (budget, start of a window) -> nanodollars
    spent: dict[tuple[UUID, datetime], int] = field(default_factory=lambda: defaultdict(int))
    #: the same -> moments at which so much was spent
    steps: dict[tuple[UUID, datetime], list[tuple[datetime, int]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    #: the same -> when a call was first refused, and what was spent by then
    refused: dict[tuple[UUID, datetime], tuple[datetime, int]] = field(default_factory=dict)
    windows: dict[tuple[UUID, datetime], int] = field(default_factory=dict)
    outcomes: list[Told] = field(default_factory=list)

    def add(self, asked: Asked) -> None:
        charged = list(self._budgets_of(asked))
        cost = 0 if asked.from_cache else self._cost(asked)
        short = next(
            (b for b in charged if b.hard and self.spent[self._key(b, asked)] + cost > b.limit_nano), None
        )
        identifier = _identifier(asked.at, self.chance)
        origin = self._origin(asked, identifier)
        if short is not None:
            self._refuse(asked, origin, short)
            return
        if asked.from_cache:
            outcome = self._outcome(asked, Tokens(), 0, saved=self._cost(asked))
            self._append(Ended(n=0, at=_ns(asked.at), attempt=0, origin=origin, outcome=outcome))
        else:
            self._try(asked, origin, charged, cost)
        if asked.outcome:
            value = int(float(asked.value_usd) * NANO) if asked.value_usd else None
            self.outcomes.append(Told(UUID(identifier), asked.outcome, value, asked.at + timedelta(hours=1)))

    def _try(self, asked: Asked, origin: Origin, charged: Sequence[Budget], cost: int) -> None:
        unknown = asked.status == UNKNOWN
        for budget in charged:
            key = self._key(budget, asked)
            # Whoever died is charged at what was held: three times what such a call costs.
            self.spent[key] += 3 * cost if unknown else cost
            self.steps[key].append((asked.at, self.spent[key]))
        hard = [self._window(budget, asked) for budget in charged if budget.hard]
        soft = [str(budget.pk) for budget in charged if not budget.hard]
        failed = [HeldCharge(window, 0) for window in hard]
        for number, model in enumerate(asked.models, start=1):
            last = number == len(asked.models)
            held = [HeldCharge(window, 3 * cost) for window in hard] if last else failed
            at = _ns(asked.at)
            self._append(
                Held(
                    n=0, at=at, attempt=number, origin=origin, model=model, model_version=1, provider=PROVIDER,
                    charges=held, soft=soft, worst_cost=3 * cost, cap=1024,
                )
            )  # fmt: skip
            if last and unknown:
                return
            paid = cost if last else 0
            self._append(
                Ended(
                    n=0,
                    at=at + asked.total_us * 1_000,
                    attempt=number,
                    origin=origin,
                    charges=[Charge(one.window, one.held, paid) for one in held],
                    soft=soft,
                    cost=paid,
                    outcome=self._outcome(asked, self._tokens(asked), cost) if last else None,
                )
            )

    def _refuse(self, asked: Asked, origin: Origin, short: Budget) -> None:
        http, code = _CODES["refused"]
        message = f"The budget {short.slug} has too little left for this call."
        outcome = Outcome(
            status="refused", http=http, code=code, message=message, total_us=900, bytes_out=420
        )
        window, key = self._window(short, asked), self._key(short, asked)
        self.refused.setdefault(key, (asked.at, self.spent[key]))
        self._append(
            Ended(
                n=0, at=_ns(asked.at), attempt=0, origin=origin, outcome=outcome,
                short=Shortage(window, short.limit_nano),
            )
        )  # fmt: skip

    def _outcome(self, asked: Asked, tokens: Tokens, cost: int, *, saved: int = 0) -> Outcome:
        model = asked.models[-1]
        good = asked.status == OK
        http, code = (200, "") if good else _CODES[asked.status]
        first_byte = asked.total_us // 4 if asked.streamed and good and not asked.from_cache else None
        attempts = [] if asked.from_cache else self._attempts(asked, http, code, cost, first_byte)
        return Outcome(
            status=asked.status,
            http=http,
            model=model,
            model_version=1,
            provider=PROVIDER,
            upstream_model=_upstream(model),
            code=code,
            message="" if good else "The provider answered 502.",
            finish="stop" if good and tokens.output else "",
            attempts=attempts,
            fallbacks=len(asked.models) - 1,
            tokens=tokens,
            cap=1024 if tokens.output else None,
            cost=cost,
            total_us=asked.total_us + 600,
            ttft_us=first_byte,
            upstream_us=None if asked.from_cache else asked.total_us,
            cache="hit" if asked.from_cache else "",
            saved=saved,
            provider_request="" if asked.from_cache else attempts[-1].provider_request,
            bytes_out=max(300, tokens.output * 4),
        )

    def _attempts(
        self, asked: Asked, http: int, code: str, cost: int, first_byte: int | None
    ) -> list[Attempt]:
        found = []
        for number, model in enumerate(asked.models, start=1):
            last = number == len(asked.models)
            found.append(
                Attempt(
                    number, model, PROVIDER, status=http if last else 500, code=code if last else "upstream_error",
                    started_us=0 if number == 1 else 60_000, total_us=asked.total_us if last else 55_000,
                    ttft_us=first_byte if last else None, cost=cost if last else 0,
                    provider_request=f"req_sim{asked.number:06d}{number}",
                )
            )  # fmt: skip
        return found

    def _origin(self, asked: Asked, identifier: str) -> Origin:
        return Origin(
            call=identifier,
            started=_ns(asked.at),
            project=self.projects[asked.project],
            key=self.keys[asked.project],
            endpoint=asked.endpoint,
            revision=1,
            route=asked.route,
            streamed=asked.streamed,
            request=f"req-demo-{asked.number:06d}",
            feature=asked.feature,
            user=_digest(asked.user),
            session=asked.session,
            tags=asked.tags,
            bytes_in=asked.input * 4 + 200,
        )

    def _tokens(self, asked: Asked) -> Tokens:
        if asked.status != OK:
            return Tokens()
        return Tokens(input=asked.input, cached=asked.cached, output=asked.output)

    def _cost(self, asked: Asked) -> int:
        """Of an unknown call what it would have cost, answered."""
        tokens = Tokens(input=asked.input, cached=asked.cached, output=asked.output or 300)
        if asked.status == OK:
            tokens = self._tokens(asked)
        elif asked.status != UNKNOWN:
            return 0
        prices = self.books[asked.models[-1]].at(asked.at.timestamp())
        if prices is None:
            raise ValueError(f"the model {asked.models[-1]} has no price at {asked.at}")
        return prices.cost(tokens)

    def _budgets_of(self, asked: Asked) -> Iterable[Budget]:
        for budget in self.budgets:
            named = {
                "organisation": "",
                "project": asked.project,
                "feature": asked.feature,
                "route": asked.route,
            }
            if named.get(budget.scope_kind) == budget.scope_value and asked.at >= self.since[budget.pk]:
                yield budget

    def _key(self, budget: Budget, asked: Asked) -> tuple[UUID, datetime]:
        return budget.pk, _start(budget.period, budget.timezone, asked.at.replace(minute=0, second=0, microsecond=0))  # fmt: skip

    def _window(self, budget: Budget, asked: Asked) -> int:
        key = self._key(budget, asked)
        if key not in self.windows:
            self.windows[key] = open_window(budget_id=budget.pk, at=asked.at).window_id
        return self.windows[key]

    def _append(self, made: Record) -> None:
        self.entries.append(Entry(made, Position(0, 0, len(self.entries))))


def fill(actor: Actor, *, today: date | None = None) -> int:
    """Book the history, unless it is there; how many calls it has."""
    if Journal.objects.filter(pk=JOURNAL).exists():
        return 0
    now = database_now()
    months = Months.before(today or now.date())
    budgets = list(Budget.objects.filter(archived_at=None).order_by("slug"))
    beginning, daily = _midnight(months.before_last), _midnight(months.last.replace(day=RUN_DAY - 2))
    with transaction.atomic():
        _price(actor, months)
        writer = _Writer(
            projects={slug: str(Project.objects.get(slug=slug).pk) for slug in KEYS},
            keys={slug: str(ServiceKey.objects.get(project__slug=slug, name=name).pk) for slug, name in KEYS.items()},
            books=_books(),
            budgets=budgets,
            since={one.pk: daily if one.slug == _DAILY else beginning for one in budgets},
        )  # fmt: skip
        for asked in Story(months).calls():
            writer.add(asked)
        _tell_of_thresholds(writer)
        calls, cost = _book(actor, writer, now)
        for first in range(0, len(writer.outcomes), 1_000):
            report_outcomes(actor, writer.outcomes[first : first + 1_000], project_ids=None)
        statement.take_over(actor, provider=PROVIDER, months=months)
        people.ask_for_raises(actor)
        record(
            actor,
            action="demo.history_added",
            object_type="usage.journal",
            object_id=JOURNAL,
            object_name=HOST,
            after={"calls": calls, "cost_usd": format_usd(cost), "from": str(months.before_last), "until": str(months.today)},
            reason="The demo's months of simulated calls.",
        )  # fmt: skip
    return calls


def _book(actor: Actor, writer: _Writer, now: datetime) -> tuple[int, int]:
    """Money is leased as a data plane does, and what is read from the records is booked as the ingester does."""
    Journal.objects.create(
        pk=JOURNAL,
        host=HOST,
        path="",
        opened_at=now,
        seen_at=now,
        sequence=len(writer.entries),
        state=Journal.CLOSED,
    )
    for key, window in sorted(writer.windows.items(), key=lambda one: one[1]):
        lease(
            window_id=window,
            journal_id=JOURNAL,
            need=0,
            want=writer.spent[key],
            lease_seconds=60,
        )
    batch, ledger = History(minutes_since=_minutes_since(actor, now)), Ledger(JOURNAL)
    ledger.take(writer.entries, batch)
    ledger.abandon(batch)
    partitions.make_days(batch.days(), now=now)
    write_batch(JOURNAL, batch, keys=batch.keys_used, closing=True)
    return len(batch.calls), sum(row.facts.sums[AT_COST] for row in batch.calls)


def _tell_of_thresholds(writer: _Writer) -> None:
    """Put on record what was crossed, and which hard budget refused a call, when it happened: booking it all at once
    would tell of it as if it were now."""
    for budget in writer.budgets:
        for (owner, start), steps in writer.steps.items():
            if owner != budget.pk:
                continue
            window = open_window(budget_id=budget.pk, at=start).window_id
            told = []
            for percent in sorted(budget.thresholds):
                found = next((one for one in steps if one[1] * 100 >= percent * budget.limit_nano), None)
                if found is not None:
                    told.append((percent, *found, False))
            if told:
                Window.objects.filter(pk=window).update(crossed_percent=told[-1][0])
            if (refused := writer.refused.get((owner, start))) is not None:
                told.append((100, *refused, True))
            ThresholdCrossing.objects.bulk_create(
                ThresholdCrossing(
                    window_id=window,
                    percent=percent,
                    settled_nano=spent,
                    limit_nano=budget.limit_nano,
                    refusing=refusing,
                    crossed_at=at,
                )
                for percent, at, spent, refusing in told
            )


def _minutes_since(actor: Actor, now: datetime) -> int:
    """From when on rollups by minute are kept (Unix seconds); the mark that pages read says so, too."""
    if settings.MINUTE_ROLLUP_DAYS <= 0:
        return 0
    since = _midnight((now - timedelta(days=settings.MINUTE_ROLLUP_DAYS)).date())
    move_mark(actor, minutes_since=since, days=settings.MINUTE_ROLLUP_DAYS)
    return int(since.timestamp())


def _price(actor: Actor, months: Months) -> None:
    """What the models cost before the console was started: what they cost now, but for the one that became dearer."""
    since = _midnight(months.before_last - timedelta(days=1))
    dearer = _midnight(months.last.replace(day=_DEARER_DAY))
    for price in list(Price.objects.filter(model__slug__in=MODELS).select_related("model")):
        before = {since: price.nano_per_million}
        if price.model.slug == _DEARER:
            before = {since: price.nano_per_million * 4 // 5, dearer: price.nano_per_million}
        for moment, nano in before.items():
            add_price(
                actor, model=price.model, token_class=price.token_class, nano_per_million=nano,
                effective_from=moment, source="the demo's history",
            )  # fmt: skip
    publish(actor, reason="What models cost before the console was started")


def _books() -> dict[str, PriceBook]:
    rows: dict[str, list[PriceRow]] = defaultdict(list)
    for price in Price.objects.select_related("model"):
        row = PriceRow(price.token_class, int(price.effective_from.timestamp()), price.nano_per_million)
        rows[price.model.slug].append(row)
    return {slug: PriceBook(found) for slug, found in rows.items()}


@cache
def _upstream(model: str) -> str:
    return ModelConfig.objects.get(model__slug=model, current_of__isnull=False).upstream_model


@cache
def _start(period: str, zone: str, hour: datetime) -> datetime:
    return bounds(period, zone, hour)[0]


@cache
def _digest(user: str) -> str:
    return sha256_hex(user.encode())[:16]


def _identifier(at: datetime, chance: random.Random) -> str:
    """A UUID of version 7 for a moment of the past."""
    bits = chance.getrandbits(74)
    return str(
        UUID(
            int=_ns(at) // 1_000_000 << 80
            | 0x7 << 76
            | (bits >> 62) << 64
            | 0b10 << 62
            | bits & (1 << 62) - 1
        )
    )


def _ns(at: datetime) -> int:
    return int(at.timestamp() * 1_000) * 1_000_000


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)
