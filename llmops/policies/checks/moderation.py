"""What a moderation model says. The data plane asks it; this file reads its answer.

OpenAI API reference, "Moderations": ``results[].categories`` and ``results[].category_scores``.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta

from llmops.core.verdicts import AFTER, ALLOW, BEFORE, BLOCK, REQUIRE_APPROVAL, Finding
from llmops.policies.checks.base import Remote, Role, Settings


class ModerationSettings(Settings, frozen=True, kw_only=True):
    model: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=100,
            description="The model or route that is asked at /v1/moderations. The calling key must be allowed to use it.",
        ),
    ]
    categories: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=60)], ...],
        Meta(
            max_length=50,
            description="Only these categories count; empty for all. A name also stands for name/...",
        ),
    ] = ()
    threshold: Annotated[
        Annotated[float, Meta(gt=0, le=1)] | None,
        Meta(description="The score from which a category counts; without one, what the model itself flags."),
    ] = None
    timeout_s: Annotated[
        float, Meta(ge=0.1, le=30, description="How long its answer may take, in seconds.")
    ] = 3.0
    on_failure: Annotated[
        Literal["open", "closed"],
        Meta(
            description="Without an answer in time: open lets the call go on with a mark, closed treats it as flagged."
        ),
    ] = "closed"
    roles: Annotated[
        tuple[Role, ...], Meta(description="Before: messages of these roles are shown to the model.")
    ] = ("user",)


class Moderation(Remote):
    kind = "moderation"
    title = "Moderation"
    summary = "Asks a moderation model about what is asked or answered, through this same gateway."
    actions: ClassVar = {BEFORE: (ALLOW, REQUIRE_APPROVAL, BLOCK), AFTER: (ALLOW, BLOCK)}
    settings_type = ModerationSettings

    def judge_opinion(self, opinion: Any) -> list[Finding]:
        found = []
        try:
            for result in opinion["results"]:
                for name, flagged in self._categories(result):
                    if flagged and self._counts(name):
                        found.append(Finding(name))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("not an answer of /v1/moderations") from error
        return found

    def _categories(self, result: Any) -> list[tuple[str, bool]]:
        least = self.settings.threshold
        if least is None:
            return list(result["categories"].items())
        return [(name, score >= least) for name, score in result["category_scores"].items()]

    def _counts(self, name: str) -> bool:
        wanted = self.settings.categories
        return not wanted or name in wanted or name.partition("/")[0] in wanted
