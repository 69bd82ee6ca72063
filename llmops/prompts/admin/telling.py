"""What pages say about a prompt: what is live, what waits to be published."""

from __future__ import annotations

from dataclasses import dataclass

from llmops.prompts.models import Prompt
from llmops.prompts.selectors import LivePrompt, live_of


@dataclass(frozen=True)
class LabelLine:
    """Where a label points: ``now`` as configured, ``live`` as published; None for nowhere."""

    name: str
    now: int | None
    live: int | None
    pk: object = None

    @property
    def words(self) -> str:
        if self.now == self.live:
            return f"version {self.now} is live"
        if self.live is None:
            return f"version {self.now}, not published yet"
        if self.now is None:
            return f"version {self.live} is live until the next publish, which removes the label"
        return f"version {self.live} is live; version {self.now} once published"


def label_lines(prompt: Prompt) -> list[LabelLine]:
    """Labels as configured, and those that are still live, by name."""
    live = live_of(prompt)
    published = dict(live.labels) if live else {}
    labels = {label.name: label for label in prompt.labels.all()}
    return [
        LabelLine(
            name,
            labels[name].version.number if name in labels else None,
            published.get(name),
            labels[name].pk if name in labels else None,
        )
        for name in sorted(labels.keys() | published.keys())
    ]


def live_words(prompt: Prompt, live: LivePrompt | None) -> str:
    """``production v3, staging v4``; in a list, where one line has to do."""
    if live is None:
        return "not published"
    return ", ".join(f"{name} v{number}" for name, number in sorted(live.labels.items())) or "by number only"


def waiting(prompt: Prompt) -> bool:
    """Whether labels point elsewhere than data planes think."""
    return any(line.now != line.live for line in label_lines(prompt))
