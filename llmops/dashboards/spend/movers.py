"""What grew and what shrank between two periods, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from llmops.dashboards import formats
from llmops.dashboards.spend.links import Links
from llmops.dashboards.spend.query import BY_PERCENT, GROUPS, SpendQuery, one_of
from llmops.dashboards.spend.shapes import Amount, Mover, View
from llmops.usage.movement import PARTS, Movement, Volume, movement, total
from llmops.usage.selectors import Group, Sums
from llmops.usage.selectors.spend import ATTRIBUTED, TAG

MOST = 8
#: Sorted by percent, only what moved by at least one in so many parts of all spend is listed: a doubled cent is no news.
_LEAST_PART = 200


@dataclass(frozen=True, slots=True)
class Moved:
    group: Group
    before: Volume
    now: Volume
    movement: Movement


def moved(now: Sequence[Group], before: Sequence[Group], by: str) -> list[Moved]:
    """Every group of both periods whose cost changed, the largest change first."""
    earlier = {(group.project_id, group.value): group for group in before}
    later = {(group.project_id, group.value): group for group in now}
    found = []
    for key in dict.fromkeys([*later, *earlier]):
        then, since = earlier.get(key), later.get(key)
        volume_before = then.volume() if then else Volume()
        volume_now = since.volume() if since else Volume()
        step = movement(volume_before, volume_now)
        group = since or then
        if group is not None and step.change:
            found.append(Moved(group, volume_before, volume_now, step))
    return sorted(found, key=lambda one: (-abs(one.movement.change), one.group.name))


def sentence(found: Sequence[Moved], by: str, places: int) -> str:
    """What moved most in the direction of the whole, in a sentence."""
    change = sum(one.movement.change for one in found)
    if not change:
        return ""
    sign = 1 if change > 0 else -1
    first = max(found, key=lambda one: sign * one.movement.change)
    name = first.group.name or f"calls without {one_of(by)}"
    percent, _ = formats.change(first.movement.now_nano, first.movement.before_nano)
    much = formats.usd_places(first.movement.change, places, signed=True) + (
        f", {percent}" if percent else ""
    )
    return f"{'Grew' if sign > 0 else 'Fell'} most: {GROUPS[by].lower()} {name} ({much}). {why(first)}."


#: A second reason is told when it makes up at least so much of the change.
_WORTH_TELLING = 0.15
_ALSO = {
    "calls": ("more calls", "fewer calls"),
    "tokens": ("longer calls", "shorter calls"),
    "mix": ("dearer models", "cheaper models"),
    "price": ("a higher price per token", "a lower price per token"),
}


def why(one: Moved) -> str:
    """The largest reason, in words with its figures, and the next one if it counts."""
    first, step = _mostly(one), one.movement
    if step.new or not one.now.calls or not step.reason:
        return first
    sign = 1 if step.change > 0 else -1
    others = {name: sign * getattr(step, name) for name in PARTS if name != step.reason}
    second = max(others, key=lambda name: others[name])
    # Without models or tokens nobody can tell a price from a mix.
    if others[second] < _WORTH_TELLING * abs(step.change) or not (one.before.models and one.before.tokens):
        return first
    return f"{first}, then {_ALSO[second][sign < 0]}"


def _mostly(one: Moved) -> str:
    step, before, now = one.movement, one.before, one.now
    up = step.change > 0
    if step.new:
        return "Nothing of it was spent before"
    if not now.calls:
        return "There were no calls any more"
    if step.reason == "calls":
        return (
            f"Mostly {'more' if up else 'fewer'} calls: "
            f"{formats.count(before.calls)} → {formats.count(now.calls)}"
        )
    if step.reason == "tokens":
        each = [round(volume.tokens / volume.calls) for volume in (before, now)]
        return (
            f"Mostly {'longer' if up else 'shorter'} calls: "
            f"{formats.count(each[0])} → {formats.count(each[1])} tokens each"
        )
    if step.reason == "mix":
        return f"Mostly {'dearer' if up else 'cheaper'} models{_shift(before, now)}"
    each = [volume.cost_nano * 1000 // volume.tokens if volume.tokens else 0 for volume in (before, now)]
    if not all(each):
        return f"Mostly a {'higher' if up else 'lower'} cost per call"
    same = "of the same models: " if before.models else "(other models or other prices): "
    return (
        f"Mostly a {'higher' if up else 'lower'} price per token {same}"
        f"{formats.usd(each[0])} → {formats.usd(each[1])} per 1\u2009000 tokens"
    )


def panel(
    view: View,
    query: SpendQuery,
    found: Sequence[Moved],
    now: Sums,
    before: Sums,
    links: Links,
    names: Mapping[UUID, str],
) -> None:
    """Puts the list into ``view``: what moved most, everything else in one line, and the sum, which is the change of all."""
    listed = _ranked(found, before) if query.movers == BY_PERCENT else list(found)
    shown = listed[:MOST]
    all_parts = total([one.movement for one in found])
    rest = _less(all_parts, total([one.movement for one in shown]))
    unknown = now.cost_nano - before.cost_nano - all_parts.change
    sums = [*(one.movement for one in shown), rest]
    places = formats.places_for(max(now.cost_nano, before.cost_nano))
    columns = {
        name: formats.apportioned([getattr(step, name) for step in sums], places)
        for name in ("before_nano", "now_nano", *PARTS)
    }

    def mover(index: int, label: str, href: str, before_href: str, step: Movement, said: str) -> Mover:
        parts = [columns[name][index] for name in PARTS]
        # The parts of a line are shown so that they add up to its change as shown.
        change = columns["now_nano"][index] - columns["before_nano"][index]
        parts[PARTS.index(step.reason or "price")] += change - sum(parts)
        percent, _ = formats.change(step.now_nano, step.before_nano)
        return Mover(
            name=label,
            href=href,
            before_href=before_href,
            before=_amount(columns["before_nano"][index], step.before_nano, places),
            now=_amount(columns["now_nano"][index], step.now_nano, places),
            change=_amount(change, step.change, places, signed=True),
            percent="new" if step.new and step.now_nano else percent,
            parts=tuple(
                # By model is not known of end users and tags: theirs is part of the price.
                Amount(formats.NONE)
                if name == "mix" and query.by in ATTRIBUTED
                else _amount(value, getattr(step, name), places, signed=True)
                for value, name in zip(parts, PARTS, strict=True)
            ),
            why=said,
        )

    for index, one in enumerate(shown):
        owner = names.get(one.group.project_id, "") if one.group.project_id and query.by != "project" else ""
        label = one.group.name or f"Without {one_of(query.by)}"
        view.movers.append(
            mover(
                index,
                f"{label} ({owner})" if owner else label,
                links.of_group(one.group),
                links.of_group(one.group, query.before) if query.before else "",
                one.movement,
                why(one),
            )
        )
    if query.by == TAG:
        # Calls with several tags are in several lines: no sum of them means anything.
        return
    if rest.change or rest.now_nano or rest.before_nano:
        others = len(found) - len(shown)
        label = f"{formats.count(others)} others" if others != 1 else "1 other"
        view.movers.append(mover(len(shown), label, "", "", rest, ""))
    columns = {name: [sum(values)] for name, values in columns.items()}
    view.movers_total = mover(0, "All that moved", "", "", all_parts, "")
    if unknown:
        view.movers_note = (
            f"{formats.usd_exact(abs(unknown))} of the change is in calls beyond the largest of each period or without "
            f"{one_of(query.by)}."
        )


def _ranked(found: Sequence[Moved], before: Sums) -> list[Moved]:
    least = before.cost_nano // _LEAST_PART
    kept = [one for one in found if abs(one.movement.change) >= least]

    def growth(one: Moved) -> float:
        step = one.movement
        return step.change / step.before_nano if step.before_nano else float("inf")

    return sorted(kept, key=lambda one: (-growth(one), -one.movement.change, one.group.name))


def _less(whole: Movement, part: Movement) -> Movement:
    return Movement(
        whole.before_nano - part.before_nano,
        whole.now_nano - part.now_nano,
        **{name: getattr(whole, name) - getattr(part, name) for name in PARTS},
    )


def _shift(before: Volume, now: Volume) -> str:
    """Which model took the largest part from the others."""
    shares: dict[str, list[float]] = {}
    for side, volume in enumerate((before, now)):
        for model, (tokens, _) in (volume.models or {}).items():
            shares.setdefault(model, [0.0, 0.0])[side] = 100 * tokens / volume.tokens if volume.tokens else 0
    if not shares:
        return ""
    model, (then, since) = max(shares.items(), key=lambda item: item[1][1] - item[1][0])
    if since - then < 0.5:
        return ""
    return f": {model} from {then:.0f}\u2009% to {since:.0f}\u2009% of tokens"


def _amount(shown: int, exact: int, places: int, *, signed: bool = False) -> Amount:
    tone = "poor" if signed and shown > 0 else "good" if signed and shown < 0 else ""
    return Amount(formats.usd_places(shown, places, signed=signed), formats.usd_exact(exact), tone)
