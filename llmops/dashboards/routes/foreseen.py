"""Two ways in which the same traffic could be routed, side by side, as pages show them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from django.conf import settings
from django.utils import timezone
from django.utils.module_loading import import_string

from llmops.dashboards import formats
from llmops.dashboards.reader import Reader
from llmops.serving.selectors import live_document, live_revision
from llmops.serving.snapshot import RevisionDocument, RouteEntry
from llmops.serving.whatif import drafts, traffic
from llmops.serving.whatif.shapes import Asked, Outcome, Scenario, Traffic

#: What is less than this much of a call is a rounding.
_NOTHING = 1e-6


@dataclass(frozen=True, slots=True)
class Line:
    """A model of a name, before and after; calls are expected numbers, widths of bars out of 1000."""

    model: str
    provider: str
    before: float
    after: float
    before_nano: int
    after_nano: int
    of: float

    @property
    def before_share(self) -> str:
        return _share(self.before, self.of)

    @property
    def after_share(self) -> str:
        return _share(self.after, self.of)

    @property
    def before_width(self) -> int:
        return round(1_000 * self.before / self.of) if self.of else 0

    @property
    def after_width(self) -> int:
        return round(1_000 * self.after / self.of) if self.of else 0

    @property
    def change(self) -> str:
        return _signed_usd(self.after_nano - self.before_nano)


@dataclass(frozen=True, slots=True)
class Foreseen:
    """A route, or a model by its own name (``direct``)."""

    name: str
    direct: bool
    before: Outcome
    after: Outcome
    lines: list[Line]
    recorded_nano: int

    @property
    def calls(self) -> int:
        return round(self.before.calls)

    @property
    def moved(self) -> bool:
        """Whether anything is different."""
        ways = [
            (one.attempts, one.failures, one.last_resort, one.shortened, one.waited, one.cost_nano)
            for one in (self.before, self.after)
        ]
        return ways[0] != ways[1] or self.before.answered != self.after.answered

    @property
    def change_nano(self) -> int:
        return self.after.cost_nano - self.before.cost_nano

    @property
    def change(self) -> str:
        return _signed_usd(self.change_nano)

    @property
    def added_attempts(self) -> str:
        added = self.after.attempts - self.before.attempts
        return formats.count(round(added)) if added >= 0 else f"−{formats.count(round(-added))}"

    @property
    def failures(self) -> int:
        return round(self.after.failures)

    @property
    def why_failed(self) -> list[tuple[str, int]]:
        found = sorted(self.after.failed.items(), key=lambda item: -item[1])
        return [(why, max(1, round(calls))) for why, calls in found if calls > _NOTHING]

    @property
    def last_resort(self) -> int:
        return round(self.after.last_resort)

    @property
    def shortened(self) -> int:
        return round(self.after.shortened)

    @property
    def unknown_bills(self) -> int:
        return round(self.after.unknown_bills)

    @property
    def before_time(self) -> str:
        return _mean(self.before)

    @property
    def after_time(self) -> str:
        return _mean(self.after)


@dataclass(slots=True)
class View:
    """What stored traffic would do. ``names`` are those for which something changes (or all that were asked for)."""

    traffic: Traffic
    names: list[Foreseen] = field(default_factory=list)
    same: int = 0

    @property
    def calls(self) -> int:
        return round(self.traffic.calls)

    @property
    def sampled(self) -> int:
        return self.traffic.sampled

    @property
    def before_nano(self) -> int:
        return sum(one.before.cost_nano for one in self.names)

    @property
    def after_nano(self) -> int:
        return sum(one.after.cost_nano for one in self.names)

    @property
    def change(self) -> str:
        return _signed_usd(self.after_nano - self.before_nano)

    @property
    def change_percent(self) -> str:
        before, after = self.before_nano, self.after_nano
        return "" if not before else f"{100 * (after - before) / before:+.1f} %".replace("-", "−")

    @property
    def recorded_nano(self) -> int:
        return sum(one.recorded_nano for one in self.names)

    @property
    def failures(self) -> int:
        return round(sum(one.after.failures for one in self.names))

    @property
    def failures_before(self) -> int:
        return round(sum(one.before.failures for one in self.names))

    @property
    def added_attempts(self) -> int:
        return round(sum(one.after.attempts - one.before.attempts for one in self.names))

    @property
    def touched_calls(self) -> int:
        return round(sum(one.before.calls for one in self.names))

    @property
    def unpriced(self) -> list[str]:
        return sorted({slug for one in self.names for slug in (*one.before.unpriced, *one.after.unpriced)})

    @property
    def opened(self) -> list[str]:
        return sorted({slug for one in self.names for slug in one.after.opened})


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a change of a route would have cost, in a sentence."""

    words: str
    view: View
    days: int


def compare(
    found: Traffic,
    *,
    before: RevisionDocument,
    after: RevisionDocument,
    scenario: Scenario,
    everything: bool = False,
) -> View:
    """The traffic by ``before`` without a failure and by ``after`` in ``scenario``. ``everything``: also what stays the same."""
    work: Callable[[Asked], Sequence[Outcome]] = import_string(settings.ROUTE_WHATIF)
    now = traffic.standing(timezone.now())
    ways = [
        work(Asked(before, found, now)),
        work(Asked(after, found, now, scenario)),
    ]
    providers = {model.slug: model.provider for document in (before, after) for model in document.models}
    routes = {route.slug for document in (before, after) for route in document.routes}
    view = View(found)
    for named, one, other in zip(found.names, *ways, strict=True):
        foreseen = Foreseen(
            name=named.name,
            direct=named.name not in routes,
            before=one,
            after=other,
            lines=_lines(one, other, providers),
            recorded_nano=named.cost_nano,
        )
        if foreseen.moved or everything:
            view.names.append(foreseen)
        else:
            view.same += 1
    view.names.sort(key=lambda one: (-round(one.after.failures), -abs(one.change_nano), one.name))
    return view


def of_change(reader: Reader, route: RouteEntry, *, days: int) -> Estimate:
    """What a route as it was typed would have cost on the last days' traffic, against what is live."""
    project_ids = reader.project_ids()
    found = traffic.traffic(days=days, now=timezone.now(), projects=project_ids, route=route.slug)
    draft = drafts.with_route(drafts.draft_document(), route)
    view = compare(
        found, before=live_document(live_revision()), after=draft, scenario=Scenario(), everything=True
    )
    if not view.names:
        return Estimate(f"Nobody called {route.slug or 'this route'} in the last {days} days.", view, days)
    words = (
        f"On the {formats.count(view.calls)} calls of the last {days} days: {formats.usd(view.after_nano)} instead of "
        f"{formats.usd(view.before_nano)} as it is live"
    )
    words += f", {view.change} ({view.change_percent})." if view.change_percent else "."
    if view.failures:
        words += f" {formats.count(view.failures)} of them would fail."
    return Estimate(words, view, days)


def traffic_of(reader: Reader, *, days: int, project: UUID | None = None, route: str = "") -> Traffic:
    """The traffic that the reader may see."""
    return traffic.traffic(days=days, now=timezone.now(), projects=reader.project_ids(project), route=route)


def _lines(before: Outcome, after: Outcome, providers: Mapping[str, str]) -> list[Line]:
    models = sorted(
        {*before.answered, *after.answered}, key=lambda slug: (-before.answered.get(slug, 0.0), slug)
    )
    return [
        Line(
            model=slug,
            provider=providers.get(slug, ""),
            before=before.answered.get(slug, 0.0),
            after=after.answered.get(slug, 0.0),
            before_nano=round(before.cost.get(slug, 0.0)),
            after_nano=round(after.cost.get(slug, 0.0)),
            of=before.calls,
        )
        for slug in models
    ]


def _share(part: float, whole: float) -> str:
    share = 100 * part / whole if whole else 0.0
    return "0 %" if share < 1e-9 else f"{share:.1f} %" if share >= 0.1 else "< 0.1 %"


def _mean(outcome: Outcome) -> str:
    return (
        formats.duration(1e6 * outcome.waited / outcome.calls)
        if outcome.calls and outcome.waited
        else formats.NONE
    )


def _signed_usd(nano: int) -> str:
    text = formats.usd(abs(nano))
    return text if not nano else f"+{text}" if nano > 0 else f"−{text}"
