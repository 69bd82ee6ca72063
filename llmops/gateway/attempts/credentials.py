"""Which of a provider's credentials a call uses: refused ones are avoided, those near their rate limit spared.

Kept in each process, by what providers answer: a refusal (401, 403, quota) puts a credential aside for a while, a 429 with
``Retry-After`` lets it rest until then, and the rate-limit headers tell its headroom, by which calls are spread and moved on
before the 429. A credential is never the reason for a failure by itself: with nothing else to go to it is tried all the same.

A 403, or a 402, may be about the request (what somebody before the provider holds against its words, an answer dearer than what is
left): right after others were taken it says nothing of the credential, and until a second project meets it, the first one alone avoids it.
Headers: OpenAI API reference, "Rate limits"; Azure sends the same without resets.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from math import inf

from llmops.gateway.attempts.failures import AUTH, Failure
from llmops.providers.rules import REFUSALS_OF_A_BURST
from llmops.serving.snapshot import CredentialEntry
from llmops.usage.records import LimitTold

#: A refused credential is left alone for so long before one call tries it again; twice as long after each further refusal.
AVOID_S = 15.0
MOST_AVOID_S = 300.0
#: For so long after the provider took a credential, what may be about the request is.
FRESH_S = 30.0
#: A provider may ask for more; after this long one call finds out.
MOST_REST_S = 60.0
#: How fast a limit fills again where the provider does not say: OpenAI's and Azure's are per minute.
_WINDOW_S = 60.0
_MAX_FIGURE = 10**12
#: Credentials and models in one record.
MOST_TOLD = 500

ACCEPTED, REFUSED, QUOTA = "accepted", "refused", "quota"


class Gauge:
    """What is left of a limit. It fills evenly, and is full ``full_in`` seconds after it was seen."""

    __slots__ = ("full_in", "left", "limit", "seen")

    def __init__(self, limit: float, left: float, seen: float, full_in: float) -> None:
        self.limit = limit
        self.left = left
        self.seen = seen
        self.full_in = full_in

    def available(self, now: float) -> float:
        passed = now - self.seen
        if passed >= self.full_in or self.full_in <= 0.0:
            return self.limit
        return self.left + (self.limit - self.left) * passed / self.full_in


class Standing:
    """What is known of a credential, with one model or with all. Moments are monotonic seconds."""

    __slots__ = ("avoid_until", "by", "refusals", "requests", "rest_until", "tokens")

    def __init__(self) -> None:
        self.avoid_until = 0.0
        #: the only project that avoids it; empty: all do
        self.by = ""
        self.refusals = 0
        self.rest_until = 0.0
        self.requests: Gauge | None = None
        self.tokens: Gauge | None = None

    def headroom(self, need: int, now: float) -> float:
        """The share of its limits that is left, 1 for all; 0 or less when a call of ``need`` tokens does not fit."""
        least = 1.0
        if (gauge := self.requests) is not None:
            left = gauge.available(now)
            least = left / gauge.limit if left >= 1.0 else 0.0
        if (gauge := self.tokens) is not None:
            left = gauge.available(now)
            # A call larger than the whole limit fits when nothing of it is used.
            fits = left >= min(need, gauge.limit)
            least = min(least, left / gauge.limit) if fits and left > 0 else 0.0
        return least

    def take(self, need: int) -> None:
        """A call goes out: what it uses is not there for the next one, whose answer may come before its own."""
        if self.requests is not None:
            self.requests.left -= 1.0
        if self.tokens is not None:
            self.tokens.left -= need


class Choice:
    """A credential to use now (``reason`` empty), or why none can be used now: ``wait`` seconds would help."""

    __slots__ = ("credential", "reason", "wait")

    def __init__(self, credential: CredentialEntry, reason: str = "", wait: float = 0.0) -> None:
        self.credential = credential
        self.reason = reason
        self.wait = wait


REFUSED_WHY, RESTING_WHY, SPENT_WHY = "credential refused", "resting after a 429", "rate limit nearly used up"


class Credentials:
    """What this process knows of all credentials. Only those that something was heard of have an entry."""

    def __init__(self) -> None:
        self._of: dict[str, Standing] = {}
        self._with: dict[tuple[str, str], Standing] = {}
        #: when a provider last took a credential with a model
        self._taken: dict[tuple[str, str], float] = {}

    def nothing_known(self, credential: str, model: str) -> bool:
        """Whether no provider has said anything yet that a choice could go by."""
        return credential not in self._of and (credential, model) not in self._with

    def choose(
        self,
        entries: Sequence[CredentialEntry],
        model: str,
        need: int,
        now: float,
        *,
        but: Collection[str] = (),
        project: str = "",
    ) -> Choice | None:
        """The credential with the most headroom for a call of ``project``; None when there is none but those in ``but`` (ids).

        Those in use come first. A draining one is used only where every one in use is refused.
        """
        if len(entries) == 1 and not but:
            only = entries[0]
            standing = self._with.get((only.id, model))
            if standing is None and only.id not in self._of:
                return Choice(only)
        best: Choice | None = None
        most = 0.0
        for entry in entries:
            if entry.id in but:
                continue
            if entry.draining and best is not None and best.reason != REFUSED_WHY:
                break
            choice, headroom = self._judge(entry, model, need, now, project)
            if best is None or _better(choice, headroom, best, most):
                best, most = choice, headroom
        if best is not None and not best.reason:
            self._take(best.credential.id, model, need, now)
        return best

    def _judge(
        self, entry: CredentialEntry, model: str, need: int, now: float, project: str = ""
    ) -> tuple[Choice, float]:
        for standing in (self._of.get(entry.id), self._with.get((entry.id, model))):
            if standing is not None and now < standing.avoid_until and standing.by in ("", project):
                return Choice(entry, REFUSED_WHY), 0.0
        if standing is None:
            return Choice(entry), 1.0
        if now < standing.rest_until:
            return Choice(entry, RESTING_WHY, standing.rest_until - now), 0.0
        headroom = standing.headroom(need, now)
        return (Choice(entry) if headroom > 0.0 else Choice(entry, SPENT_WHY)), headroom

    def _take(self, credential: str, model: str, need: int, now: float) -> None:
        for standing in (self._of.get(credential), self._with.get((credential, model))):
            if standing is None:
                continue
            standing.take(need)
            if standing.avoid_until:
                # This call finds out; until it has, the others go on avoiding it.
                standing.avoid_until = now + AVOID_S

    # ------------------------------------------------------------------ what was heard

    def heard(self, credential: str, model: str, headers: Mapping[str, str], now: float) -> None:
        """Note the rate limits that an answer's headers tell."""
        requests = headers.get("x-ratelimit-remaining-requests")
        tokens = headers.get("x-ratelimit-remaining-tokens")
        if requests is None and tokens is None:
            return
        standing = self._standing(credential, model)
        standing.requests = _gauge(standing.requests, requests, headers, "requests", now)
        standing.tokens = _gauge(standing.tokens, tokens, headers, "tokens", now)

    def told_since(self, since: float, now: float) -> list[LimitTold]:
        """What was heard of limits after ``since``: what is left of them ``now``."""
        found = []
        for (credential, model), standing in self._with.items():
            requests, tokens = standing.requests, standing.tokens
            if max(one.seen if one is not None else -1.0 for one in (requests, tokens)) <= since:
                continue
            found.append(LimitTold(credential, model, *_left(requests, now), *_left(tokens, now)))
            if len(found) == MOST_TOLD:
                break
        return found

    def accepted(self, credential: str, model: str, now: float = -inf) -> bool:
        """The provider took it; whether it had refused it before."""
        self._taken[credential, model] = now
        if not self._of and not self._with:
            return False
        was = False
        standing = self._of.get(credential)
        if standing is not None and standing.refusals:
            del self._of[credential]
            was = True
        standing = self._with.get((credential, model))
        if standing is not None:
            standing.rest_until = 0.0
            if standing.refusals:
                standing.refusals, standing.avoid_until = 0, 0.0
                was = True
        return was

    def failed(self, credential: str, model: str, failure: Failure, now: float, project: str = "") -> str:
        """Put it aside, or let it rest. ``refused`` or ``quota`` when that is news, or makes a burst; else nothing."""
        if failure.status in (402, 403):
            if now < self._taken.get((credential, model), -inf) + FRESH_S:
                return ""
        else:
            project = ""
        if failure.kind == AUTH:
            # A 403 may be about the model, or the country: other models may still be open to it.
            return self._refuse(credential, model if failure.status == 403 else "", REFUSED, now, project)
        if failure.out_of_quota:
            return self._refuse(credential, "", QUOTA, now, project)
        if failure.status == 429 and failure.retry_after:
            standing = self._standing(credential, model)
            standing.rest_until = max(standing.rest_until, now + min(failure.retry_after, MOST_REST_S))
        return ""

    def _refuse(self, credential: str, model: str, code: str, now: float, project: str) -> str:
        standing = self._standing(credential, model) if model else self._of.setdefault(credential, Standing())
        standing.by = project if not standing.refusals or standing.by == project else ""
        # The one that makes it a burst is told as well: by it a rotation is taken back (``providers.rules``).
        news = standing.refusals in (0, REFUSALS_OF_A_BURST - 1)
        standing.avoid_until = now + min(MOST_AVOID_S, AVOID_S * 2.0 ** min(standing.refusals, 10))
        standing.refusals += 1
        return code if news else ""

    def _standing(self, credential: str, model: str) -> Standing:
        found = self._with.get((credential, model))
        if found is None:
            found = self._with[credential, model] = Standing()
        return found

    def refused(self) -> set[str]:
        """The ids of those that a provider refused last, be it for one model only."""
        found = {one for one, standing in self._of.items() if standing.refusals}
        return found | {one for (one, _), standing in self._with.items() if standing.refusals}

    def forget_all_but(self, credentials: Collection[str]) -> None:
        """Drop what is known of credentials that are no longer served."""
        self._of = {one: standing for one, standing in self._of.items() if one in credentials}
        self._with = {key: standing for key, standing in self._with.items() if key[0] in credentials}
        self._taken = {key: at for key, at in self._taken.items() if key[0] in credentials}


def _better(one: Choice, headroom: float, other: Choice, most: float) -> bool:
    if bool(one.reason) != bool(other.reason):
        return not one.reason
    if not one.reason:
        return headroom > most
    # Of those that cannot be used now: one whose limit is only reckoned, then the one that rests the shortest.
    order = (SPENT_WHY, RESTING_WHY, REFUSED_WHY)
    return (order.index(one.reason), one.wait) < (order.index(other.reason), other.wait)


def _gauge(
    known: Gauge | None, remaining: str | None, headers: Mapping[str, str], what: str, now: float
) -> Gauge | None:
    if remaining is None or not remaining.isdecimal():
        return known
    left = float(min(int(remaining), _MAX_FIGURE)) if len(remaining) < 20 else float(_MAX_FIGURE)
    told = headers.get(f"x-ratelimit-limit-{what}")
    if told is not None and told.isdecimal() and len(told) < 20 and int(told) > 0:
        limit = float(int(told))
    else:
        limit = max(left, known.limit if known is not None else 0.0, 1.0)
    limit = max(limit, left)
    full_in = seconds_of(headers.get(f"x-ratelimit-reset-{what}"))
    if full_in is None:
        full_in = _WINDOW_S * (1.0 - left / limit)
    if known is None:
        return Gauge(limit, left, now, full_in)
    known.limit, known.left, known.seen, known.full_in = limit, left, now, full_in
    return known


def _left(gauge: Gauge | None, now: float) -> tuple[int, int]:
    if gauge is None:
        return 0, 0
    limit = int(min(gauge.limit, _MAX_FIGURE))
    return limit, max(0, min(limit, int(gauge.available(now))))


_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")


def seconds_of(text: str | None) -> float | None:
    """Seconds of a reset as providers write it: ``6m0s``, ``1.5s``, ``20ms``, or plain seconds; None for anything else."""
    if not text or len(text) > 30:
        return None
    found = _DURATION.fullmatch(text)
    if found is not None and any(found.groups()):
        days, hours, minutes, seconds, milliseconds = (float(part or 0) for part in found.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds + milliseconds / 1000
    try:
        value = float(text)
    except ValueError:
        return None
    # A moment of the calendar is not a duration.
    return value if 0 <= value < 10_000_000 else None
