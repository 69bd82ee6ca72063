"""What a version of a policy would have done to stored calls: the shape, and the way to who has them, a room above."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.utils.module_loading import import_string

from llmops.core.actors import Actor
from llmops.core.verdicts import ACTIONS, ALLOW, BLOCK, REDACT, REQUIRE_APPROVAL
from llmops.policies.models import Policy, PolicyVersion
from llmops.policies.wording import check_words

#: Calls of one trial, and those of them that are named.
MOST_CALLS, EXAMPLES = 20_000, 20
#: Where nobody can be shown how far it is, a trial ends after so many seconds.
UNSEEN_S = 8.0
_WORDS = {
    BLOCK: "blocked",
    REQUIRE_APPROVAL: "sent to a person for approval",
    REDACT: "redacted",
}


@dataclass(frozen=True, slots=True)
class Example:
    """A call about which something would have been done; ``names`` are those of the rules that matched."""

    call: UUID
    at: datetime
    route: str
    action: str
    names: tuple[str, ...]

    @property
    def words(self) -> str:
        return _WORDS.get(self.action, "marked")


@dataclass(frozen=True, slots=True)
class StoredTrial:
    """How far a trial of ``of`` calls is: ``looked`` of them, and how many met which action at the strictest; ``checks`` are
    counted a call once each.

    ``over``: nothing follows. ``keeping`` are the projects that keep texts.
    """

    of: int
    looked: int
    unreadable: int
    actions: dict[str, int]
    checks: list[tuple[str, int]]
    examples: tuple[Example, ...]
    seconds: float
    over: bool
    keeping: tuple[str, ...]

    @property
    def words(self) -> str:
        """Such as "would have blocked 3 of 1,000 calls, redacted 12"."""
        parts = [
            f"{_WORDS[action]} {self.actions[action]:,}"
            for action in reversed(ACTIONS)
            if action in _WORDS and self.actions.get(action)
        ]
        if not parts:
            return f"would have let all of {self.looked:,} calls pass as they were"
        first, *others = parts
        told = f"would have {first} of {self.looked:,} calls"
        return ", ".join([told, *others])

    @property
    def by_check(self) -> list[tuple[str, int]]:
        """``checks`` in words: ``("Personal data: redact", 12)``."""
        told = []
        for name, calls in self.checks:
            kind, _, action = name.partition(": ")
            told.append((check_words(kind, action), calls))
        return told

    @property
    def done(self) -> int:
        return self.looked + self.unreadable

    @property
    def stopped(self) -> bool:
        """Whether this is less than was asked for."""
        return self.done < self.of

    @property
    def matched(self) -> int:
        """Calls about which something would have been done."""
        return self.looked - self.actions.get(ALLOW, 0)


def try_stored(
    actor: Actor,
    *,
    policy: Policy,
    version: PolicyVersion,
    projects: Collection[UUID] | None,
    calls: int,
) -> Generator[StoredTrial]:
    """A trial as it goes on; the last one is the outcome, and closing the iterator stops it. ``settings.TRY_ON_CALLS`` names who
    does it. ``projects`` None: all."""
    work: Callable[..., Generator[StoredTrial]] = import_string(settings.TRY_ON_CALLS)
    return work(actor, policy=policy, version=version, projects=projects, calls=calls)


def outcome_of(trials: Generator[StoredTrial], *, seconds: float = UNSEEN_S) -> StoredTrial:
    """What a trial comes to, stopped where it takes longer than ``seconds``."""
    with closing(trials):
        for trial in trials:
            if trial.over or trial.seconds > seconds:
                break
    return trial
