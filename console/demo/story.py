"""What the demo's organisation asked of models in the months before its console was first started. Pure.

Told so that questions of finance have answers: the feature ``drafts`` grows strongly last month, because it is called more
often, answers at greater length, and its model became dearer; answers of ``faq`` begin to come from the cache; a run over the
catalogue meets the search project's budget for a day; one call's process died, and nobody knows what it cost.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

_DAY = timedelta(days=1)
OK, ERROR, UNKNOWN = "ok", "error", "unknown"


@dataclass(slots=True)
class Asked:
    """A call as it happened, before money. ``models`` are those that were tried, the last one answered; durations in
    microseconds. ``refusable``: it is refused when a hard budget has too little left, instead of being left out."""

    at: datetime
    project: str
    feature: str
    endpoint: str
    route: str
    models: list[str]
    input: int
    cached: int
    output: int
    total_us: int
    user: str
    tags: list[str]
    session: str = ""
    streamed: bool = False
    status: str = OK
    from_cache: bool = False
    outcome: str = ""
    number: int = 0
    value_usd: str = ""


@dataclass(frozen=True, slots=True)
class Feature:
    """``calls`` on a working day and ``output`` tokens, each in the month before last, last month and this month."""

    project: str
    name: str
    route: str
    model: str
    calls: tuple[float, float, float]
    input: int
    output: tuple[int, int, int]
    reuse: float = 0.0
    from_cache: tuple[float, float, float] = (0.0, 0.0, 0.0)
    streamed: float = 0.0
    outcome: str = ""
    rate: float = 0.0
    value_usd: str = ""
    sessions: bool = False
    users: int = 40
    channels: tuple[str, ...] = ("web", "app")


FEATURES = (
    Feature("support", "answers", "chat", "sim-gpt-4o", (10, 11, 11), 1_900, (260, 260, 270), reuse=0.4, streamed=0.7, outcome="resolved", rate=0.62, sessions=True),
    Feature("support", "drafts", "chat", "sim-gpt-4o", (4, 14, 15), 2_600, (330, 620, 640), reuse=0.3, streamed=0.5, outcome="accepted", rate=0.71, channels=("email",)),
    Feature("support", "triage", "", "sim-gpt-4o-mini", (11, 11, 12), 700, (24, 24, 24)),
    Feature("support", "summaries", "", "sim-gpt-4o-mini", (5, 6, 5), 3_800, (210, 210, 205), channels=("email", "web")),
    Feature("search", "query", "embed", "sim-embedding", (9, 10, 10), 60, (0, 0, 0), users=90),
    Feature("search", "faq", "chat", "sim-gpt-4o", (8, 8, 8), 1_300, (190, 190, 190), from_cache=(0.0, 0.3, 0.42), outcome="converted", rate=0.09, value_usd="4.00", users=90),
    Feature("experiments", "evaluation", "unreliable", "sim-unreliable", (4, 3, 2), 900, (380, 380, 370), users=4, channels=("batch",)),
)  # fmt: skip
#: The run that met a budget: so many calls on one day of last month.
RUN = Feature("search", "backfill", "chat", "sim-gpt-4o", (0, 0, 0), 4_200, (330, 330, 330), users=1, channels=("batch",))  # fmt: skip
RUN_CALLS, RUN_DAY, UNKNOWN_DAY = 200, 12, 20
#: How long answers take beside others; few values, so that sketches of latencies stay small.
_PACES = (0.7, 0.8, 0.9, 1.0, 1.0, 1.15, 1.3, 1.7, 2.6)
#: microseconds to the first token, and for each further one
_SPEED = {
    "sim-gpt-4o": (380_000, 9_000),
    "sim-gpt-4o-mini": (240_000, 5_000),
    "sim-unreliable": (380_000, 9_000),
    "sim-embedding": (45_000, 0),
}
MODELS = tuple(_SPEED)


@dataclass(frozen=True, slots=True)
class Months:
    """First days (UTC) of the month before last, of last month and of this one; the history ends with yesterday."""

    before_last: date
    last: date
    this: date
    today: date

    @classmethod
    def before(cls, today: date) -> Months:
        this = today.replace(day=1)
        last = (this - _DAY).replace(day=1)
        return cls((last - _DAY).replace(day=1), last, this, today)

    def of(self, day: date) -> int:
        return 2 if day >= self.this else 1 if day >= self.last else 0


@dataclass(slots=True)
class Story:
    months: Months
    chance: random.Random = field(default_factory=lambda: random.Random(20))

    def calls(self) -> Iterator[Asked]:
        """Every call, in the order in which they began."""
        day, number = self.months.before_last, 0
        while day < self.months.today:
            for call in sorted(self._day(day), key=lambda call: call.at):
                number += 1
                call.number = number
                yield call
            day += _DAY

    def _day(self, day: date) -> Iterator[Asked]:
        month = self.months.of(day)
        weekend = 0.3 if day.weekday() >= 5 else 1.0
        for feature in FEATURES:
            expected = feature.calls[month] * weekend * self.chance.uniform(0.8, 1.2)
            for _ in range(int(expected + self.chance.random())):
                yield self._call(feature, day, month)
        if day == self.months.last.replace(day=RUN_DAY):
            for _ in range(RUN_CALLS):
                yield self._call(RUN, day, month)
        if day == self.months.last.replace(day=UNKNOWN_DAY):
            lost = self._call(FEATURES[0], day, month)
            lost.status, lost.outcome, lost.from_cache, lost.models = UNKNOWN, "", False, ["sim-gpt-4o"]
            yield lost

    def _call(self, feature: Feature, day: date, month: int) -> Asked:
        chance = self.chance
        asked = int(feature.input * math.exp(chance.gauss(0, 0.25)))
        answered = int(feature.output[month] * math.exp(chance.gauss(0, 0.3)))
        cached = asked // 2 // 128 * 128 if chance.random() < feature.reuse else 0
        person = f"customer-{chance.randrange(feature.users)}"
        models, status = self._tried(feature)
        first, each = _SPEED[models[-1]]
        pace = chance.choice(_PACES)
        from_cache = status == OK and chance.random() < feature.from_cache[month]
        return Asked(
            at=self._moment(day),
            project=feature.project,
            feature=feature.name,
            endpoint="embeddings" if feature.model == "sim-embedding" else "chat.completions",
            route=feature.route,
            models=models,
            input=asked,
            cached=0 if from_cache or status != OK else cached,
            output=answered if status == OK else 0,
            total_us=int(1_800 if from_cache else pace * (first + each * feature.output[month])),
            user=person,
            tags=[
                f"channel:{chance.choice(feature.channels)}",
                "plan:business" if chance.random() < 0.35 else "plan:free",
            ],
            session=f"{person}-{day:%m%d}" if feature.sessions else "",
            streamed=chance.random() < feature.streamed,
            status=status,
            from_cache=from_cache,
            outcome=feature.outcome if status == OK and chance.random() < feature.rate else "",
            value_usd=feature.value_usd,
        )

    def _tried(self, feature: Feature) -> tuple[list[str], str]:
        if feature.model == "sim-unreliable":
            if self.chance.random() < 0.6:
                return ["sim-unreliable"], OK
            return ["sim-unreliable", "sim-gpt-4o-mini"], OK
        return [feature.model], ERROR if self.chance.random() < 0.004 else OK

    def _moment(self, day: date) -> datetime:
        """Some time of the working day, seldom another."""
        hour = min(23.9, max(0.1, self.chance.gauss(13, 3.2)))
        midnight = datetime.fromisoformat(f"{day.isoformat()}T00:00:00+00:00")
        return midnight + timedelta(milliseconds=int(hour * 3_600_000))
