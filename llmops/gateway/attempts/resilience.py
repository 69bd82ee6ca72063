"""What is tried, again, where and when. Decides, never waits."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from llmops.core.errors import (
    CircuitOpen,
    ConsoleError,
    RateLimited,
    ServiceUnavailable,
    UpstreamAuthFailed,
)
from llmops.gateway.attempts.breakers import Breaker, Breakers, ProjectBreaker
from llmops.gateway.attempts.credentials import RESTING_WHY, Choice, Credentials
from llmops.gateway.attempts.failures import (
    AUTH,
    CONNECT,
    CUT,
    FORBIDDEN,
    MALFORMED,
    POLICY,
    STATUS,
    TIMEOUT,
    Failure,
    describe,
)
from llmops.gateway.attempts.refusals import retry_after
from llmops.gateway.routing import Resolution, Target
from llmops.serving.snapshot import CredentialEntry, Snapshot

__all__ = [
    "AUTH",
    "CONNECT",
    "CUT",
    "FORBIDDEN",
    "MALFORMED",
    "STATUS",
    "TIMEOUT",
    "Breaker",
    "Breakers",
    "Failure",
    "Plan",
    "Step",
    "backoff",
    "describe",
    "retry_after",
]

BACKOFF_BASE_S = 0.25
BACKOFF_CAP_S = 8.0
#: Nothing is begun this close to the deadline: it could not even connect.
LEAST_S = 0.1

PAUSED, NO_CREDENTIAL, OPEN = "paused", "no credential", "circuit open"


@dataclass(slots=True)
class Step:
    """Try ``target`` with ``credential`` after ``delay`` seconds; ``why`` is for the call's story.

    ``probe``: the target's breaker is half-open and waits for this attempt's end. ``larger``: the model was chosen for its
    context window.
    """

    target: Target
    credential: CredentialEntry
    breaker: ProjectBreaker
    delay: float = 0.0
    why: str = ""
    fallback: bool = False
    retry: bool = False
    probe: bool = False
    larger: bool = False
    #: the breaker that waits for a probe's end
    probed: Breaker | None = None

    def ended(self, failure: Failure | None, now: float) -> None:
        """The attempt answered (None) or failed; tells the breaker."""
        breaker: Breaker = self.probed if self.probe and self.probed is not None else self.breaker
        if failure is None:
            breaker.record(True, now, probe=self.probe)
        else:
            breaker.record(not failure.counts, now, probe=self.probe, why=describe(failure))
        self.probe = False

    def tries(self) -> None:
        """The attempt is going to be made: it is the probe if its breaker has just let it pass as one."""
        breaker = self.breaker.asked
        if breaker.probing and breaker.open_until > 0.0:
            self.probe, self.probed = True, breaker

    def dropped(self) -> None:
        """The attempt will not be made, or its end says nothing about the target."""
        if self.probe and self.probed is not None:
            self.probed.forget_probe()
            self.probe = False


@dataclass(slots=True)
class Plan:
    """The attempts of one call: ``first`` once, then ``after`` each failure. None: give up.

    Each target that remains is left one attempt, the rest go to the one at hand. A target that is paused, open, without a
    credential, or whose credentials are all at their rate limit is passed over and costs no attempt; when nothing else is
    left, one of the last kind is waited for, or tried all the same.
    """

    resolution: Resolution
    snapshot: Snapshot
    breakers: Breakers
    deadline: float
    sticky: str = ""
    credentials: Credentials = field(default_factory=Credentials)
    #: tokens of the call, roughly, against the credentials' limits
    need: int = 0
    #: id of the credential to begin with, where it is still in use
    prefers: str = ""
    attempts: int = 0
    skipped: list[tuple[Target, str]] = field(default_factory=list)
    _order: Sequence[Target] = ()
    _index: int = 0
    _on_target: int = 0
    #: credentials that the target at hand refused in this call
    _refused: set[str] = field(default_factory=set)
    _rest: float = 0.0
    _step: Step | None = None

    def first(self, now: float) -> Step:
        """Raises what ``refusal`` says when no target can be used at all."""
        resolution = self.resolution
        order = self._order = resolution.order(self.sticky)
        if not (self.prefers or resolution.degraded) and (step := self._at_once(order[0])) is not None:
            return step
        why = f"the route is degraded: {resolution.degraded}" if resolution.degraded else ""
        step = self._next_target(now, start=0, why=why)
        if step is None:
            raise self.refusal(now)
        return step

    def after(self, failure: Failure, now: float) -> Step | None:
        step = self._step
        assert step is not None
        route = self.resolution.route
        if now + LEAST_S >= self.deadline:
            return None
        if failure.kind == AUTH or failure.out_of_quota:
            self._refused.add(step.credential.id)
            if (another := self._other_credential(step, failure, now)) is not None:
                # Nothing was tried yet but a key: that costs no attempt, and there are only so many keys.
                self.attempts -= 1
                return another
        if self.attempts >= route.attempts:
            return None
        if failure.kind == POLICY:
            return self.changed(f"again after {describe(failure)}", now)
        if (
            failure.status == 429
            and not failure.out_of_quota
            and (another := self._other_credential(step, failure, now)) is not None
        ):
            return another
        named = self._turn_to_named(failure)
        remaining = route.attempts - self.attempts
        others = len(self._order) - self._index - 1
        if failure.retryable and remaining > others:
            delay = backoff(self._on_target, failure.retry_after)
            too_long = others and (failure.retry_after or 0) > BACKOFF_CAP_S
            if now + delay + LEAST_S < self.deadline and not too_long and step.breaker.allows(now):
                return self._take(
                    Step(
                        step.target,
                        step.credential,
                        step.breaker,
                        delay,
                        f"again after {describe(failure)}",
                        fallback=step.fallback,
                        retry=True,
                        larger=step.larger,
                    )
                )
        if failure.elsewhere or named:
            return self._next_target(now, start=self._index + 1, why=f"after {describe(failure)}")
        return None

    def changed(self, why: str, now: float) -> Step | None:
        """The same target once more, because the request itself was changed."""
        step = self._step
        assert step is not None
        if not self.room(now) or not step.breaker.allows(now):
            return None
        return self._take(
            Step(
                step.target,
                step.credential,
                step.breaker,
                0.0,
                why,
                fallback=step.fallback,
                retry=True,
                larger=step.larger,
            )
        )

    def passed_over(self, step: Step, reason: str, now: float) -> Step | None:
        """``step`` will not be made, for ``reason``: what comes in its place."""
        step.dropped()
        self.attempts -= 1
        self.skipped.append((step.target, reason))
        return self._next_target(
            now, start=self._index + 1, why=_joined(step.why, f"{step.target.slug} is passed over: {reason}")
        )

    def larger(self, step: Step, now: float) -> Step | None:
        """In place of ``step``, whose model is too small for the input, the route's larger model; None without one that
        can be used."""
        target = self.resolution.larger
        if target is None or target in self._order[: self._index + 1]:
            return None
        self._follow((target,), keep=False)
        return self.passed_over(step, "the input is longer than its context window", now)

    def room(self, now: float) -> bool:
        """Whether another attempt may be made at all."""
        return self.attempts < self.resolution.route.attempts and now + LEAST_S < self.deadline

    def aside(self, target: Target, why: str, now: float) -> Step | None:
        """A call to another model on the way to the answer: it is no attempt at the answer, and tells nobody's breaker
        but its own. None when that model cannot be used now."""
        if now + LEAST_S >= self.deadline or target.provider.slug in self.snapshot.live.paused_providers:
            return None
        choice = self._choose(target, now)
        if choice is None or choice.wait > 0:
            return None
        breaker = self._breaker(target)
        if not breaker.allows(now):
            return None
        step = Step(target, choice.credential, breaker, 0.0, why)
        step.tries()
        return step

    def moves_on(self, failure_class: str) -> bool:
        """Whether the route has somewhere else to go after a failure of this class."""
        return failure_class in self.resolution.fallbacks_for

    # ------------------------------------------------------------------ targets

    def _turn_to_named(self, failure: Failure) -> bool:
        """Let the fallbacks that the route names for this class of failure follow; whether it names any."""
        resolution = self.resolution
        if not resolution.fallbacks_for and resolution.larger is None:
            return False
        found = failure.failure_class
        named = resolution.fallbacks_for.get(found, ())
        if resolution.larger is not None and failure.code == "context_length_exceeded":
            named = (resolution.larger, *named)
        if not named:
            return False
        self._follow(named, keep=not failure.callers_own)
        return True

    def _follow(self, named: Sequence[Target], *, keep: bool) -> None:
        """``named`` in place of the fallbacks that remain; with ``keep`` after the targets that remain."""
        tried = self._order[: self._index + 1]
        chosen = list(tried)
        if keep:
            chosen += [one for one in self._order[self._index + 1 :] if one in self.resolution.targets]
        away = self.resolution.targets if self.resolution.degraded else ()
        chosen += [one for one in dict.fromkeys(named) if one not in chosen and one not in away]
        self._order = chosen

    def _next_target(self, now: float, *, start: int, why: str) -> Step | None:
        later: list[tuple[float, int, Choice]] = []
        passed: list[str] = []
        for index in range(start, len(self._order)):
            target = self._order[index]
            if target.provider.slug in self.snapshot.live.paused_providers:
                self._pass(target, PAUSED, passed)
                continue
            choice = self._choose(target, now)
            if choice is None:
                self._pass(target, NO_CREDENTIAL, passed)
            elif choice.reason:
                self._pass(target, choice.reason, passed)
                later.append((choice.wait, index, choice))
            elif (step := self._at(index, choice, now, _joined(why, *passed))) is not None:
                return step
            else:
                self._pass(target, OPEN, passed)
        return self._later(later, now, why) if later else None

    def _later(self, later: list[tuple[float, int, Choice]], now: float, why: str) -> Step | None:
        """Nothing can be used right now: the one that may be soonest, after a wait, or tried against the odds."""
        for wait, index, choice in sorted(later, key=lambda one: one[:2]):
            delay = wait + random.uniform(0.0, BACKOFF_BASE_S) if wait else 0.0
            if wait > BACKOFF_CAP_S or now + delay + LEAST_S >= self.deadline:
                self._rest = wait
                return None
            note = f"waited for {choice.credential.name!r}: {choice.reason}" if wait else ""
            step = self._at(index, choice, now, _joined(why, note))
            if step is not None:
                step.delay = delay
                return step
        return None

    def _at(self, index: int, choice: Choice, now: float, why: str) -> Step | None:
        target = self._order[index]
        breaker = self._breaker(target)
        if not breaker.allows(now):
            return None
        self._index, self._on_target = index, 0
        self._refused.clear()
        resolution = self.resolution
        return self._take(
            Step(
                target,
                choice.credential,
                breaker,
                0.0,
                why,
                fallback=target not in resolution.targets,
                larger=target is resolution.larger,
            )
        )

    def _at_once(self, target: Target) -> Step | None:
        """The first target as it nearly always is: in use, its breaker closed, with one credential of which nothing is
        known that speaks against it."""
        live = self.snapshot.live
        provider = target.provider.slug
        entries = live.credentials.get(provider, ())
        if len(entries) != 1 or provider in live.paused_providers:
            return None
        if not self.credentials.nothing_known(entries[0].id, target.entry.upstream_model):
            return None
        breaker = self._breaker(target)
        if breaker.open_until or breaker.common.open_until:
            return None
        return self._take(Step(target, entries[0], breaker))

    def _breaker(self, target: Target) -> ProjectBreaker:
        resolution = self.resolution
        return self.breakers.of(resolution.route, target, resolution.key.project)

    def _pass(self, target: Target, reason: str, passed: list[str]) -> None:
        self.skipped.append((target, reason))
        passed.append(f"{target.slug} is passed over: {reason}")

    def _take(self, step: Step) -> Step:
        self._step = step
        step.tries()
        self.attempts += 1
        self._on_target += 1
        return step

    # ------------------------------------------------------------------ credentials

    def _choose(self, target: Target, now: float) -> Choice | None:
        entries = self.snapshot.live.credentials.get(target.provider.slug, ())
        if not entries:
            return None
        model, project = target.entry.upstream_model, self.resolution.key.project
        if self.prefers and (same := [one for one in entries if one.id == self.prefers]):
            choice = self.credentials.choose(same, model, self.need, now, project=project)
            if choice is not None and not choice.reason:
                return choice
        return self.credentials.choose(entries, model, self.need, now, project=project)

    def _other_credential(self, step: Step, failure: Failure, now: float) -> Step | None:
        entries = self.snapshot.live.credentials.get(step.target.provider.slug, ())
        if len(entries) < 2:
            return None
        choice = self.credentials.choose(
            entries,
            step.target.entry.upstream_model,
            self.need,
            now,
            but={*self._refused, step.credential.id},
            project=self.resolution.key.project,
        )
        if choice is None or (choice.reason and failure.status == 429) or not step.breaker.allows(now):
            return None
        happened = "was refused" if failure.kind == AUTH else f"met {describe(failure)}"
        return self._take(
            Step(
                step.target,
                choice.credential,
                step.breaker,
                0.0,
                f"with the credential {choice.credential.name!r} after {step.credential.name!r} {happened}",
                fallback=step.fallback,
                retry=True,
                larger=step.larger,
            )
        )

    # ------------------------------------------------------------------ nothing left

    def refusal(self, now: float) -> ConsoleError:
        """Why no target can be used at all: ``ServiceUnavailable``, ``UpstreamAuthFailed``, ``CircuitOpen`` or
        ``RateLimited``."""
        name = self.resolution.name
        if not self.skipped:
            return ServiceUnavailable(
                f"The route {name!r} is degraded ({self.resolution.degraded}) and has no fallback. Use another one, or ask an "
                "operator to end the degradation or to give the route a fallback.",
                code="route_degraded",
            )
        target, reason = self.skipped[0]
        reasons = {why for _, why in self.skipped}
        if reasons == {OPEN}:
            opens = min(self._breaker(one).asked.open_until for one, _ in self.skipped)
            return CircuitOpen(
                f"Every provider of {name!r} failed too often just now and is left alone. Try again after the seconds of "
                "retry-after, or use another model; an operator sees why under Breakers and can close them.",
                retry_after=max(1.0, opens - now),
            )
        if RESTING_WHY in reasons:
            return RateLimited(
                f"The providers of {name!r} are at their rate limit: try again later.",
                retry_after=max(1.0, self._rest),
            )
        if reason == PAUSED:
            said = self.snapshot.live.paused_providers[target.provider.slug]
            return ServiceUnavailable(
                paused_words(target.provider.slug, said),
                code="provider_paused",
            )
        return UpstreamAuthFailed(no_credential_words(target.provider.slug))


def paused_words(provider: str, reason: str) -> str:
    return (
        f"The provider {provider!r} is paused by an operator{f': {reason}' if reason else ''}. Use a model of another one, or "
        "try again when it is resumed."
    )


def no_credential_words(provider: str) -> str:
    return (
        f"The provider {provider!r} has no credential in use. Ask an operator to add one, or to activate it, on the "
        "provider's page in the console."
    )


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def backoff(
    tries: int, retry_after: float | None, *, uniform: Callable[[float, float], float] = random.uniform
) -> float:
    """Full jitter (Brooker 2015, "Exponential Backoff and Jitter"); never less than the provider asked for."""
    delay = uniform(0.0, min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2.0 ** max(0, tries - 1)))
    return delay if retry_after is None else max(delay, retry_after)
