"""Policies on texts that grow: what may still become a match waits, what is decided goes out.

Nearly every piece of every text holds nothing that any check looks for. So a text is looked at for all checks together, by
two automata: one tells whether any of them could find something, one where the earliest beginning of a match stands that
more text could complete. Only while there may be something do the checks look one after the other, each at what the one
before it let go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llmops.core.verdicts import ALLOW, BLOCK, REDACT, Finding
from llmops.policies.decisions import PLACEHOLDER, Decision, Placeholders, Rule, as_bytes, as_text, masked
from llmops.policies.sieve import Openings, sieve_of

if TYPE_CHECKING:
    from llmops.policies.engine import Guard

#: Bytes that are kept to look back at. A cut character at their beginning is no letter, and nothing looks back so far.
_LOOK_BACK = 16


class Together:
    """All checks of a guard that find places in answers, compiled to be asked at once."""

    __slots__ = ("_counting", "_holding", "_sieve", "_unsieved", "rules")

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = rules
        checks: list[Any] = [rule.check for rule in rules]
        self._sieve = sieve_of(tuple(check.hint for check in checks))
        self._unsieved = [check for check, bit in zip(checks, self._sieve.bits, strict=True) if not bit]
        self._holding = Openings([check for check in checks if check.action != ALLOW])
        self._counting = Openings([check for check in checks if check.action == ALLOW])

    def any(self, data: bytes, start: int) -> bool:
        """Whether a check might find something in a text, of which what is before ``start`` is only looked back at."""
        return bool(self._sieve.find(data)) or any(check.spans(data, start) for check in self._unsieved)

    def open_at(self, data: bytes, start: int, counted: int) -> tuple[int, int]:
        """Where what must be held begins, and where what must be counted again when more has come; nothing before
        ``start`` and ``counted`` is looked at."""
        held = self._holding.open_at(data, start)
        if not self._counting:
            return held, held
        return held, min(held, self._counting.open_at(data, counted))


class _Stage:
    """One check on one text that grows. What it lets go is final: no more text could make a match of it."""

    __slots__ = ("_placeholders", "blocked", "data", "found", "rule", "start")

    def __init__(self, rule: Rule, placeholders: Placeholders) -> None:
        self.rule = rule
        self._placeholders = placeholders
        #: what is looked at: a little that was let go already, to look back at, and what is held from ``start`` on
        self.data = b""
        self.start = 0
        #: how often each was found
        self.found: dict[str, int] = {}
        self.blocked = False

    @property
    def holds(self) -> bool:
        return self.start < len(self.data)

    def put(self, data: bytes, start: int) -> None:
        keep = max(0, start - _LOOK_BACK)
        self.data, self.start = data[keep:], start - keep

    def feed(self, more: bytes, *, last: bool = False) -> bytes:
        check: Any = self.rule.check
        data = self.data = self.data + more if more else self.data
        at = self.start
        decided = len(data) if last else check.open_at(data, at)
        out: list[bytes] = []
        for span in check.spans(data, at):
            # A match that borders on what is not known yet, or on another that may still come, waits.
            since = span.start if span.since < 0 else span.since
            if since >= decided and not last:
                break
            if not last and (span.end > decided or span.end + 2 > len(data)):
                decided = since
                break
            self.found[span.name] = self.found.get(span.name, 0) + 1
            if check.action == BLOCK:
                self.blocked = True
                return b""
            out.append(data[at : span.start])
            if check.action == REDACT:
                out.append(masked(check, data, span, self._placeholders))
            else:
                out.append(data[span.start : span.end])
            at = span.end
        if decided > at:
            out.append(data[at:decided])
            at = decided
        self.put(data, at)
        if check.action == ALLOW:
            # Only counted: nothing need wait for it.
            return more
        return b"".join(out)


class _PutBack:
    """Placeholders in a text that grows."""

    __slots__ = ("_data", "_placeholders")

    def __init__(self, placeholders: Placeholders) -> None:
        self._placeholders = placeholders
        self._data = b""

    def feed(self, more: bytes, *, last: bool = False) -> bytes:
        if not self._data and b"[" not in more:
            return more
        data = self._data + more
        decided = len(data) if last else PLACEHOLDER.open_at(data)
        self._data = data[decided:]
        return self._placeholders.put_back(data[:decided])


class Channel:
    """One text of a streamed answer on its way through all checks."""

    __slots__ = (
        "_by_stages",
        "_counted",
        "_data",
        "_placeholders",
        "_put_back",
        "_start",
        "_together",
        "blocked",
        "stages",
        "where",
    )

    def __init__(self, together: Together, placeholders: Placeholders, where: str) -> None:
        self._together = together
        self._placeholders = placeholders
        self._put_back = _PutBack(placeholders) if placeholders.values else None
        self.where = where
        self.blocked = False
        #: made when there is something to be found; their counts stay
        self.stages: list[_Stage] = []
        self._by_stages = False
        #: While no check has found anything in it: a little that was let go, to look back at, what is held from ``_start``
        #: on, and what those that only count must look at again, from ``_counted`` on.
        self._data = b""
        self._start = self._counted = 0

    def feed(self, text: str, *, last: bool = False) -> str:
        """What may go out now that ``text`` has come. Nothing more after ``blocked``."""
        more = as_bytes(text)
        if self._by_stages or self._together.any(data := self._data + more, self._counted):
            out = self._feed_stages(more, last=last)
        else:
            out = self._let_go(data, last=last)
        if self._put_back is not None:
            out = self._put_back.feed(out, last=last)
        return text if out == more else as_text(out)

    def _let_go(self, data: bytes, *, last: bool) -> bytes:
        """There is nothing in ``data``; what may not become a part of something goes out."""
        start = self._start
        if last:
            held = counted = len(data)
        else:
            held, counted = self._together.open_at(data, start, self._counted)
        keep = max(0, counted - _LOOK_BACK)
        self._data, self._start, self._counted = data[keep:], held - keep, counted - keep
        return data[start:held]

    def _feed_stages(self, more: bytes, *, last: bool) -> bytes:
        if not self._by_stages:
            self._enter()
        for stage in self.stages:
            more = stage.feed(more, last=last)
            if stage.blocked:
                self.blocked = True
                return b""
        self._leave()
        return more

    def _enter(self) -> None:
        """Let the checks look one after the other, from where all of them stand."""
        if not self.stages:
            self.stages = [_Stage(rule, self._placeholders) for rule in self._together.rules]
        data, start, counted = self._data, self._start, self._counted
        for stage in self.stages:
            if stage.rule.check.action == ALLOW:
                stage.put(data, counted)
            else:
                stage.put(data, start)
                # The first that holds has not shown it to the others.
                data, counted = data[:start], min(counted, start)
        self._by_stages = True

    def _leave(self) -> None:
        """Let all checks be asked together again, if there is nothing for them in what they know, and it is the same."""
        holders = [stage for stage in self.stages if stage.holds]
        if len(holders) > 1:
            return
        shown = holders[0] if holders else self.stages[0]
        data, start = shown.data, shown.start
        end = len(data)
        for stage in self.stages:
            if not stage.holds:
                if stage.data != data[max(0, end - _LOOK_BACK) : end]:
                    return
            elif stage.rule.check.action != ALLOW:
                # Those after it have not seen what it holds.
                end = start
        if self._together.any(data, 0):
            return
        self._data, self._start, self._counted = data, end, start
        self._by_stages = False


class Stream:
    """The texts of one streamed answer, each under a key of its own."""

    __slots__ = ("_channels", "_placeholders", "_together", "blocked")

    def __init__(self, guard: Guard, placeholders: Placeholders) -> None:
        self._together = guard.together
        self._placeholders = placeholders
        self._channels: dict[Any, Channel] = {}
        self.blocked = False

    def feed(self, key: Any, where: str, text: str, *, last: bool = False) -> str:
        """What of a text may go out now that more of it has come. Nothing more after ``blocked``."""
        channel = self._channels.get(key)
        if channel is None:
            channel = self._channels[key] = Channel(self._together, self._placeholders, where)
        out = channel.feed(text, last=last)
        if channel.blocked:
            self.blocked = True
        return out if not self.blocked else ""

    @property
    def many(self) -> int:
        """How many texts there are so far."""
        return len(self._channels)

    def texts(self) -> list[Any]:
        """The keys of all texts so far."""
        return list(self._channels)

    def decision(self) -> Decision:
        """What was found so far."""
        decision = Decision()
        for place, rule in enumerate(self._together.rules):
            findings = [
                Finding(name, channel.where, count)
                for channel in self._channels.values()
                if channel.stages
                for name, count in channel.stages[place].found.items()
            ]
            if findings:
                decision.add(rule.verdict(rule.check.action, findings))
        return decision
