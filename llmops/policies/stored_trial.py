"""What a version of a policy would have done to stored calls: the shape, and the way to who has them, a room above."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.utils.module_loading import import_string

from llmops.core.actors import Actor
from llmops.core.verdicts import ACTIONS, ALLOW, BLOCK, REDACT, REQUIRE_APPROVAL
from llmops.policies.models import Policy, PolicyVersion

#: Calls that are named.
EXAMPLES = 20
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
    """``looked`` calls, and how many of them met which action at the strictest; ``checks`` are counted a call once each.

    ``stopped``: the time was up before all of them were looked at. ``keeping`` are the projects that keep texts.
    """

    looked: int
    unreadable: int
    actions: dict[str, int]
    checks: list[tuple[str, int]]
    examples: tuple[Example, ...]
    seconds: float
    stopped: bool
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
    def passed(self) -> int:
        return self.actions.get(ALLOW, 0)


def try_stored(
    actor: Actor,
    *,
    policy: Policy,
    version: PolicyVersion,
    projects: Collection[UUID] | None,
    calls: int,
) -> StoredTrial:
    """``settings.TRY_ON_CALLS`` names who does it. ``projects`` None: all."""
    work: Callable[..., Any] = import_string(settings.TRY_ON_CALLS)
    found: StoredTrial = work(actor, policy=policy, version=version, projects=projects, calls=calls)
    return found
