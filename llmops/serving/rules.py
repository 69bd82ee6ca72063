"""When making something live takes a second person. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from llmops.serving.differences import Change

PUBLISH, RESTORE, BROUGHT = "publish", "restore", "brought"


@dataclass(frozen=True, slots=True)
class Rule:
    """``always``: whatever changes; ``projects``: when prompts of one of these change; ``restore_alone``: going back to an
    earlier revision takes nobody else all the same."""

    always: bool = False
    projects: frozenset[str] = field(default_factory=frozenset)
    restore_alone: bool = True

    @property
    def on(self) -> bool:
        return self.always or bool(self.projects)

    def looser_than(self, other: Rule) -> list[str]:
        """What ``other`` asks a second person for and this one does not, in words."""
        found = []
        if other.always and not self.always:
            found.append("publishing no longer takes a second person whatever changes")
        if not self.always and (gone := sorted(other.projects - self.projects)):
            found.append(f"prompts of {', '.join(gone)} no longer take one")
        if self.restore_alone and not other.restore_alone and other.on:
            found.append("going back to an earlier revision no longer takes one")
        return found

    def words(self) -> str:
        if not self.on:
            return "One person publishes alone."
        what = (
            "Whatever is published"
            if self.always
            else f"What changes prompts of {', '.join(sorted(self.projects))}"
        )
        back = (
            " Going back to an earlier revision does not." if self.restore_alone else " So does going back."
        )
        return f"{what} takes a second person.{back}"


def needed(rule: Rule, what: str, changed: Iterable[Change]) -> str:
    """Why ``what`` takes a second person, as a sentence; empty when it does not."""
    if not rule.on or (what == RESTORE and rule.restore_alone):
        return ""
    if rule.always:
        return "Making something live takes a second person here."
    touched = sorted(
        {
            entry.project
            for change in changed
            if change.kind == "prompt"
            for entry in (change.before, change.after)
            if entry is not None and entry.project in rule.projects
        }
    )
    return f"Prompts of {', '.join(touched)} change, which takes a second person." if touched else ""
