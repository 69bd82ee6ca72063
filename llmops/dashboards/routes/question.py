"""What is asked about failures, as the address says it. A value that cannot be understood is left out and said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode
from uuid import UUID

from llmops.serving.whatif.shapes import (
    ERRORS,
    FAILURES,
    MODEL,
    NOTHING,
    PROVIDER,
    RATE_LIMITED,
    SLOW,
    Scenario,
)

DAYS = (1, 7, 30)
USUAL_DAYS = 7
LIVE, DRAFT = "live", "draft"
MOST_FACTOR = 100.0


@dataclass(frozen=True, slots=True)
class Question:
    """``by`` is the document that meets the failure: what is live, or what is configured."""

    days: int = USUAL_DAYS
    project: UUID | None = None
    route: str = ""
    by: str = LIVE
    scenario: Scenario = field(default_factory=Scenario)
    problems: tuple[str, ...] = ()

    @property
    def what(self) -> str:
        return f"{self.scenario.kind}:{self.scenario.name}" if self.scenario.name else ""

    @property
    def factor(self) -> str:
        return f"{self.scenario.factor:g}"

    def query(self) -> str:
        """The address's query that asks this; without what holds by default."""
        scenario = self.scenario
        pairs = {
            "days": str(self.days) if self.days != USUAL_DAYS else "",
            "project": str(self.project or ""),
            "route": self.route,
            "by": self.by if self.by != LIVE else "",
            "failure": scenario.failure if scenario.failure != NOTHING else "",
            "what": self.what,
            "percent": str(scenario.percent) if scenario.failure in (RATE_LIMITED, ERRORS) else "",
            "factor": self.factor if scenario.failure == SLOW else "",
        }
        text = urlencode({name: value for name, value in pairs.items() if value})
        return f"?{text}" if text else ""


def parse(data: Mapping[str, str]) -> Question:
    problems = []
    days = data.get("days", "")
    if days and days not in map(str, DAYS):
        problems.append(f"days: choose one of {', '.join(map(str, DAYS))}.")
        days = ""
    project: UUID | None = None
    if text := data.get("project", ""):
        try:
            project = UUID(text)
        except ValueError:
            problems.append("project: this is no project.")
    failure = data.get("failure", "") or NOTHING
    if failure not in dict(FAILURES):
        problems.append(f"failure: {failure[:40]!r} is none that can be asked for.")
        failure = NOTHING
    kind, _, name = data.get("what", "").partition(":")
    if failure != NOTHING and (kind not in (MODEL, PROVIDER) or not name):
        problems.append("what: choose the model or provider to which it happens.")
        failure = NOTHING
    return Question(
        days=int(days or USUAL_DAYS),
        project=project,
        route=data.get("route", "")[:63],
        by=DRAFT if data.get("by") == DRAFT else LIVE,
        scenario=Scenario(
            failure=failure,
            kind=kind if kind in (MODEL, PROVIDER) else MODEL,
            name=name[:63],
            percent=int(_number(data, "percent", 100, 0, 100, problems)),
            factor=_number(data, "factor", 2.0, 1.0, MOST_FACTOR, problems),
        ),
        problems=tuple(problems),
    )


def _number(
    data: Mapping[str, str], name: str, usual: float, least: float, most: float, problems: list[str]
) -> float:
    text = data.get(name, "").strip().replace(",", ".")
    if not text:
        return usual
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not least <= number <= most:
        problems.append(f"{name}: a number from {least:g} to {most:g}.")
        return usual
    return number
