"""The attempts of one call: what was tried, why it moved on, what each cost, as text and numbers ready for the template."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from uuid import UUID

from llmops.dashboards import formats, words
from llmops.dashboards.reader import Reader
from llmops.providers.models import Credential, Model
from llmops.usage.models import Call
from llmops.usage.records import Attempt
from llmops.usage.selectors import CallStory

#: Thousandths of the width of a timeline.
WIDTH = 1000
#: A shorter pause between two attempts is not told, in microseconds.
_PAUSE_US = 5_000
_PASSED_OVER = " is passed over: "


@dataclass(frozen=True, slots=True)
class Lane:
    """One attempt on the call's time line; ``x`` and widths in thousandths."""

    n: int
    model: str
    model_href: str
    provider: str
    simulated: bool
    tone: str
    outcome: str
    why: str
    note: str
    cost_nano: int
    started_us: int
    total_us: int
    ttft_us: int | None
    provider_us: int | None
    request_id: str
    credential: str
    x: int
    wait_width: int
    rest_x: int
    rest_width: int
    failed: bool
    #: nobody knows what it cost, so that its whole hold is charged
    at_hold: bool
    #: targets that were not even asked before it, in words
    passed: tuple[str, ...]


def lanes_of(reader: Reader, told: CallStory, simulated: Collection[str]) -> list[Lane]:
    call = told.call
    end = max([call.total_us, 1, *(one.started_us + one.total_us for one in told.attempts)])
    slugs = {one.model for one in told.attempts}
    models = dict(Model.objects.filter(slug__in=slugs).values_list("slug", "pk"))
    links = {slug: reader.link("providers.model", pk) for slug, pk in models.items()}
    credentials = _credential_names({one.credential for one in told.attempts})
    lanes = []
    before: Attempt | None = None
    for one in told.attempts:
        answered = not one.code and 200 <= one.status < 300
        left_open = call.status == Call.UNKNOWN and one.n == max(told_one.n for told_one in told.attempts)
        x = min(WIDTH - 4, WIDTH * one.started_us // end)
        whole = max(4, min(WIDTH - x, WIDTH * one.total_us // end))
        wait = whole if not answered else min(whole, WIDTH * (one.ttft_us or 0) // end)
        pause = one.started_us - before.started_us - before.total_us if before is not None else 0
        lanes.append(
            Lane(
                n=one.n,
                model=one.model,
                model_href=links.get(one.model, ""),
                provider=one.provider,
                simulated=one.provider in simulated,
                tone="open" if left_open else "good" if answered else "",
                outcome=_outcome(one, answered, left_open),
                why=told_why(one.why, before=before.model if before is not None else "", pause_us=pause),
                note=told_note(one.note),
                cost_nano=one.cost,
                started_us=one.started_us,
                total_us=one.total_us,
                ttft_us=one.ttft_us,
                provider_us=one.provider_us,
                request_id=one.provider_request,
                credential=credentials.get(one.credential, one.credential),
                x=x,
                wait_width=wait,
                rest_x=x + wait,
                rest_width=whole - wait,
                failed=not answered,
                at_hold=words.AT_HOLD in one.note,
                passed=tuple(_passed_over(one.why)),
            )
        )
        before = one
    return lanes


def in_short(lanes: list[Lane]) -> list[str]:
    """A call that went on to another model, a sentence for each of those that it met; empty for any other."""
    met = [list(group) for _, group in groupby(lanes, key=lambda lane: lane.model)]
    if len(met) < 2 and not any(lane.passed for lane in lanes):
        return []
    told = []
    for group in met:
        told += [f"{passed}." for lane in group for passed in lane.passed]
        last, failed = group[-1], [lane for lane in group if lane.failed]
        cost = sum(lane.cost_nano for lane in group)
        if failed:
            times = "once" if len(failed) == 1 else "twice" if len(failed) == 2 else f"{len(failed)} times"
            said = " and ".join(dict.fromkeys(_within(lane.outcome) for lane in failed))
            line = f"{last.model} was asked {times} in vain: {said}."
            if not last.failed:
                line += f" Then it {_within(last.outcome)}."
        else:
            line = f"{last.model} {_within(last.outcome)}."
        held = [lane for lane in group if lane.at_hold]
        if not cost:
            told.append(f"{line} Not charged.")
        elif held:
            told.append(f"{line} Charged {formats.usd(cost)}, as held: {words.NOBODY_KNOWS}.")
        else:
            told.append(f"{line} It cost {formats.usd(cost)}.")
    return told


def _within(sentence: str) -> str:
    return f"{sentence[0].lower()}{sentence[1:]}"


def told_why(why: str, *, before: str = "", pause_us: int = 0) -> str:
    """What made an attempt necessary, as sentences: of ``why`` in the records. ``before`` is the model of the attempt before it,
    which ended ``pause_us`` microseconds before this one began."""
    later = f"{formats.duration(pause_us)} later" if pause_us >= _PAUSE_US else ""
    return "".join(
        f"{_sentence(part, before, later)}. " for part in (one.strip() for one in why.split("; ")) if part
    )


def _sentence(part: str, before: str, later: str) -> str:
    if _PASSED_OVER in part:
        return _passed(part)
    if part.startswith("again "):
        return f"Asked again{f' {later},' if later else ''} {_plainly(part.removeprefix('again '))}"
    if part.startswith("after "):
        return f"Moved on{f' from {before}' if before else ''} {_plainly(part)}"
    if part.startswith("with "):
        return f"Tried {part}"
    return f"{part[0].upper()}{part[1:]}"


def _plainly(part: str) -> str:
    return part.replace("after status ", "after HTTP ")


def _passed_over(why: str) -> Iterator[str]:
    return (_passed(part.strip()) for part in why.split("; ") if _PASSED_OVER in part)


def _passed(part: str) -> str:
    target, _, reason = part.partition(_PASSED_OVER)
    return f"{target} was passed over: {words.PASSED_OVER.get(reason, reason)}"


def told_note(note: str) -> str:
    """What the records note of an attempt, as sentences."""
    parts = [words.NOTES.get(part, part) for part in (one.strip() for one in note.split("; ")) if part]
    return " ".join(f"{part[0].upper()}{part[1:].removesuffix('.')}." for part in parts)


def _credential_names(ids: Collection[str]) -> dict[str, str]:
    """Names by id, for those that still exist; anything else in the record stays as it is."""
    known = []
    for text in ids:
        with suppress(ValueError):
            known.append(UUID(text))
    return {str(pk): name for pk, name in Credential.objects.filter(pk__in=known).values_list("pk", "name")}


def _outcome(one: Attempt, answered: bool, left_open: bool) -> str:
    if left_open:
        return "No outcome was written down"
    if answered:
        return f"Answered with HTTP {one.status}"
    said = words.attempt_words(one.code) if one.code else "It failed"
    return f"{said} (HTTP {one.status})" if one.status else said
