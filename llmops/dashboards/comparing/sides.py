"""Two calls, line by line. Each line is told of both, and says whether they part there. Pure but for the stories it is given."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from llmops.dashboards import formats
from llmops.dashboards.lanes import Lane
from llmops.dashboards.story import Story
from llmops.prompts.wording import SAME, Sides, side_by_side
from llmops.usage.models import Call
from llmops.usage.texts import Texts

NONE = formats.NONE
_LONGEST = 2_000
#: Members of a request that are its texts, which are compared as such.
_TEXTS = frozenset(("messages", "input", "instructions", "prompt", "prediction"))
_ROLES = {
    "system": "System",
    "developer": "Developer",
    "user": "User",
    "assistant": "Assistant",
    "tool": "Tool",
}
_KINDS = {"text": "Answer", "refusal": "Refusal", "tool": "Call of a tool"}


@dataclass(frozen=True, slots=True)
class Line:
    """``of`` are the two sides' words; ``change`` says how far the second is from the first, where that is a figure."""

    name: str
    of: tuple[str, str]
    change: str = ""
    code: bool = False

    @property
    def differs(self) -> bool:
        return self.of[0] != self.of[1]


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    lines: list[Line]

    @property
    def apart(self) -> int:
        return sum(line.differs for line in self.lines)


@dataclass(frozen=True, slots=True)
class TextPair:
    """One text of both; ``sides`` word by word. ``same``: there is nothing to tell apart."""

    name: str
    sides: Sides
    missing: tuple[bool, bool]

    @property
    def same(self) -> bool:
        return not any(self.missing) and all(piece.kind == SAME for piece in self.sides.before)


@dataclass(frozen=True, slots=True)
class ComparedTexts:
    asked: list[TextPair] = field(default_factory=list)
    answered: list[TextPair] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def sections_of(a: Story, b: Story) -> list[Section]:
    both = (a, b)
    found = [
        Section("What was asked of whom", list(_asked_of(both))),
        Section("What came of it", list(_outcome(both))),
        Section("Tokens and cost", list(_costs(both))),
        Section("Where the time went", list(_times(both))),
        Section("What was tried", list(_attempts(both))),
        *_policies(both),
    ]
    # What neither says is no line.
    return [Section(one.title, [line for line in one.lines if line.of != (NONE, NONE)]) for one in found]


def _line(name: str, both: Sequence[Story], told: Callable[[Story], object], *, code: bool = False) -> Line:
    first, second = (str(value) if (value := told(one)) not in (None, "", []) else NONE for one in both)
    return Line(name, (first, second), code=code)


def _figure(
    name: str, both: Sequence[Story], value: Callable[[Call], int | None], shown: Callable[[int | None], str]
) -> Line:
    first, second = (value(one.told.call) for one in both)
    return Line(name, (shown(first), shown(second)), change_between(first, second))


def _size(octets: int | None) -> str:
    return formats.size(octets or 0)


def change_between(first: int | None, second: int | None) -> str:
    """``+12 %``, ``−40 %``, ``×3.2``; nothing where there is nothing to measure by."""
    if not first or second is None or first == second:
        return ""
    if second >= 2 * first:
        return f"×{second / first:.1f}"
    percent = 100 * (second - first) / first
    if abs(percent) < 0.5:
        return ""
    return f"{'+' if percent > 0 else '−'}{abs(percent):.0f} %"


def _asked_of(both: Sequence[Story]) -> Iterator[Line]:
    def call(of: Callable[[Call], object]) -> Callable[[Story], object]:
        return lambda story: of(story.told.call)

    yield _line("Project", both, lambda one: one.told.project.slug if one.told.project else "deleted since")
    yield _line("Service key", both, lambda one: one.told.key.name if one.told.key else "deleted since")
    yield _line("Endpoint", both, call(lambda one: one.endpoint), code=True)
    yield _line("Route", both, call(lambda one: one.route or "none, the model was named"))
    yield _line("Revision", both, call(lambda one: one.revision))
    yield _line("Prompt", both, call(_prompt))
    yield _line("Prompt digest", both, call(lambda one: one.prompt_digest), code=True)
    yield _line("Streamed", both, call(lambda one: "yes" if one.streamed else "no"))
    yield _line("Feature", both, call(lambda one: one.feature))
    yield _line("Session", both, call(lambda one: one.session))
    yield _line("Tags", both, call(lambda one: ", ".join(one.tags)))
    yield _line("End user", both, call(lambda one: one.user_digest), code=True)
    yield _figure("Size of the request", both, lambda one: one.request_bytes, _size)


def _prompt(call: Call) -> str:
    return f"{call.prompt_name} version {call.prompt_version or '–'}" if call.prompt_name else ""


def _outcome(both: Sequence[Story]) -> Iterator[Line]:
    yield _line("Outcome", both, lambda one: f"{one.status_word}, HTTP {one.told.call.http_status or NONE}")
    yield _line("Model", both, lambda one: one.told.call.model)
    yield _line("Version of the model", both, lambda one: one.told.call.model_version)
    yield _line("Provider", both, lambda one: one.told.call.provider)
    yield _line("As the provider names it", both, lambda one: one.told.call.upstream_model, code=True)
    yield _line("Finished because", both, lambda one: one.told.call.finish_reason, code=True)
    yield _line("Error", both, lambda one: one.told.call.error_code, code=True)
    yield _line("Tools called", both, lambda one: ", ".join(one.told.call.tools), code=True)
    yield _line("Response cache", both, lambda one: one.cache_words)
    yield _figure("Output cap", both, lambda one: one.output_cap, formats.count)
    yield _figure("Size of the answer", both, lambda one: one.response_bytes, _size)


def _costs(both: Sequence[Story]) -> Iterator[Line]:
    by_name = [{row.name: row.tokens for row in one.tokens} for one in both]
    for name in dict.fromkeys([*by_name[0], *by_name[1]]):
        first, second = (one.get(name) for one in by_name)
        yield Line(name, (formats.count(first), formats.count(second)), change_between(first, second))
    yield _line("Counted by", both, lambda one: "us" if one.told.call.usage_estimated else "the provider")
    yield _figure("Cost", both, lambda one: one.cost_nano, formats.usd_exact)
    yield _figure("Held for it", both, lambda one: one.held_nano, formats.usd_exact)
    yield _figure("Saved by the cache", both, lambda one: one.saved_nano or None, formats.usd_exact)
    yield _line("Service tier", both, lambda one: one.told.call.service_tier)


def _times(both: Sequence[Story]) -> Iterator[Line]:
    yield _figure("In all", both, lambda one: one.total_us, formats.duration)
    yield _figure("Until the first token", both, lambda one: one.ttft_us, formats.duration)
    by_css = [{part.css: part.microseconds for part in one.parts} for one in both]
    for css, name in (
        ("ours", "This console"),
        ("queue", "Queue"),
        ("provider", "Provider, with the network"),
    ):
        first, second = (one.get(css) for one in by_css)
        yield Line(name, (formats.duration(first), formats.duration(second)), change_between(first, second))
    yield _figure("By the provider's own figure", both, lambda one: one.provider_us, formats.duration)


def _attempts(both: Sequence[Story]) -> Iterator[Line]:
    yield _figure("Attempts", both, lambda one: one.attempt_count, formats.count)
    yield _figure("Retries", both, lambda one: one.retry_count, formats.count)
    yield _figure("Fallbacks", both, lambda one: one.fallback_count, formats.count)
    for n, lanes in enumerate(zip_longest(*(one.lanes for one in both)), start=1):
        first, second = (_lane(lane) for lane in lanes)
        yield Line(f"Attempt {n}", (first, second))


def _lane(lane: Lane | None) -> str:
    if lane is None:
        return NONE
    return f"{lane.model or 'no model'} at {lane.provider}: {lane.outcome}"


def _policies(both: Sequence[Story]) -> Iterator[Section]:
    said = [
        {
            f"{one.check} {one.when}": f"{one.done} ({one.policy} version {one.version}; {', '.join(one.found)})"
            for one in story.verdicts
        }
        for story in both
    ]
    names = list(dict.fromkeys([*said[0], *said[1]]))
    if names:
        lines = [Line(name, (said[0].get(name, NONE), said[1].get(name, NONE))) for name in names]
        yield Section("What policies said", lines)


# Texts ------------------------------------------------------------------------------------------------------------------


def parameters_of(a: Texts | None, b: Texts | None) -> Section | None:
    """Everything else that the two requests say; None where neither is kept whole."""
    requests = [one.request if one is not None else None for one in (a, b)]
    if requests[0] is None and requests[1] is None:
        return None
    names = sorted({name for one in requests for name in one or () if name not in _TEXTS})
    lines = []
    for name in names:
        first, second = (
            "not kept" if one is None else _json(one[name]) if name in one else NONE for one in requests
        )
        lines.append(Line(name, (first, second), code=True))
    return Section("Parameters", lines)


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " …"


def texts_of(a: Texts | None, b: Texts | None) -> ComparedTexts:
    asked = _pairs(*([*one.asked] if one is not None else [] for one in (a, b)), names=_ROLES)
    answered = _pairs(*([*one.answered] if one is not None else [] for one in (a, b)), names=_KINDS)
    notes = []
    for which, one in (("first", a), ("second", b)):
        if one is None:
            notes.append(f"The texts of the {which} call are not kept.")
            continue
        if one.cut:
            notes.append(f"What the {which} call asked is kept without its beginning: it was too long.")
        if one.changed:
            notes.append(f"Something was taken out of what the {which} call asked before it was kept.")
        if one.answer_cut:
            notes.append(f"The answer to the {which} call is kept without its end: it was too long.")
        if not one.answered:
            notes.append(f"No answer to the {which} call is kept.")
    return ComparedTexts(asked, answered, notes)


def _pairs(
    first: list[tuple[str, str]], second: list[tuple[str, str]], *, names: dict[str, str]
) -> list[TextPair]:
    found = []
    for one, other in zip_longest(first, second):
        kinds = dict.fromkeys(names.get(each[0], each[0]) for each in (one, other) if each is not None)
        sides = side_by_side(one[1] if one else "", other[1] if other else "")
        found.append(TextPair(" / ".join(kinds), sides, (one is None, other is None)))
    return found
