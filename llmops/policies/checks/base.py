"""What a check is. Pure: a check sees texts and says what it found; it changes nothing and asks nobody.

Three shapes: ``TextCheck`` finds places in a text, so that they can be redacted, on streams too; ``AskedCheck`` judges a
request as a whole, ``AnswerCheck`` an answer as a whole. ``Remote`` names a model that must be asked; the data plane does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import msgspec
from msgspec import Meta

from llmops.core.verdicts import AFTER, ALLOW, BEFORE, BLOCK, REDACT, REQUIRE_APPROVAL, RETRY, Finding

Role = Literal["system", "developer", "user", "assistant", "tool"]

#: Stages with the actions that may follow there.
Actions = dict[str, tuple[str, ...]]
FINDS_PLACES: Actions = {BEFORE: (ALLOW, REDACT, REQUIRE_APPROVAL, BLOCK), AFTER: (ALLOW, REDACT, BLOCK)}
JUDGES_ASKED: Actions = {BEFORE: (ALLOW, REQUIRE_APPROVAL, BLOCK)}
JUDGES_ANSWER: Actions = {AFTER: (ALLOW, RETRY, BLOCK)}


class SettingRefused(ValueError):
    """A setting is wrong: ``path`` within the settings (``rules[0].words``), and a sentence for whoever set it."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path
        self.message = message


class Settings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Settings of a kind: fields with a description each, a default where there is a sensible one."""


class TextSettings(Settings, frozen=True, kw_only=True):
    roles: Annotated[
        tuple[Role, ...],
        Meta(description="Before: only messages of these roles are looked at; empty for all."),
    ] = ()


class RetrySettings(Settings, frozen=True, kw_only=True):
    attempts: Annotated[
        int,
        Meta(
            ge=1,
            le=3,
            description="With the action retry: how many more attempts there may be, each one priced.",
        ),
    ] = 1
    otherwise: Annotated[
        Literal["block", "allow"],
        Meta(description="With the action retry: what follows when the last attempt is no better."),
    ] = "block"


class Text(NamedTuple):
    """A text of a request: who says it and where it stands, as in ``messages[2].content[0].text``."""

    role: str
    text: str
    where: str


class Asked(NamedTuple):
    """A request as the checks see it. ``messages`` is how many of them there are."""

    texts: Sequence[Text]
    messages: int = 1


class Answer(NamedTuple):
    """One choice of an answer. ``finish`` is OpenAI's finish reason; ``schema`` the JSON Schema that the request set."""

    text: str
    finish: str = ""
    refusal: str = ""
    #: the model calls tools: an empty text is then no fault
    tools: bool = False
    schema: Any = None


class Span(NamedTuple):
    """Something found in UTF-8 text, by byte offsets; ``name`` is what it is, never what stands there.

    ``since`` is where that begins by which it was recognised, when that is before it (-1 otherwise).
    """

    start: int
    end: int
    name: str
    since: int = -1


class Check:
    """Base of every kind. An instance is one check of a policy, compiled once and used by many calls at a time."""

    kind: ClassVar[str]
    title: ClassVar[str]
    #: what it finds and what it is for, in a sentence or two for operators
    summary: ClassVar[str]
    #: the stages it can run at, each with the actions it allows there
    actions: ClassVar[Actions]
    settings_type: ClassVar[type[Settings]]
    #: of a check that judges texts one by one, an expression (``Pattern.wide``) that matches in every text in which it finds
    #: anything: others are not shown to it; empty when every text must be
    hint = ""

    def __init__(self, settings: Any, stage: str, action: str) -> None:
        self.settings = settings
        self.stage = stage
        self.action = action

    @classmethod
    def refuse(cls, settings: Any, stage: str, action: str) -> None:
        """What the types of the settings cannot say. Raises ``SettingRefused``."""


class TextCheck(Check):
    """Finds places in texts. ``reversible``: the answer gets the values back that were redacted."""

    reversible = False
    #: equal values get equal, numbered placeholders
    numbered = False
    #: an expression (``Pattern.wide_opening``) that matches, at the end of a text, at least where ``open_at`` says that a
    #: match may have begun; empty when it must be asked itself
    opening = ""

    def reads(self, role: str) -> bool:
        roles = self.settings.roles
        return not roles or role in roles

    def spans(self, data: bytes, start: int = 0) -> list[Span]:
        """What stands at or after ``start``, from left to right, without overlaps; what is before is only looked back at."""
        raise NotImplementedError

    def open_at(self, data: bytes, start: int = 0) -> int:
        """The first place from which more text could still make a match: what is before it is decided."""
        raise NotImplementedError

    def mask(self, data: bytes, span: Span) -> str:
        """What a redacted place says."""
        return f"[{span.name.upper().replace(' ', '_')}]"


class AskedCheck(Check):
    def passes(self, characters: int, messages: int) -> bool:
        """Whether nothing is found in a request of no more than so many characters, whatever it says."""
        return False

    def judge_asked(self, asked: Asked) -> list[Finding]:
        raise NotImplementedError


class AnswerCheck(Check):
    def judge_answer(self, answer: Answer) -> list[Finding]:
        raise NotImplementedError

    def advice(self, answer: Answer) -> str:
        """With the action retry: what the model is told before its next attempt; empty to ask the same again."""
        return ""


class Remote(Check):
    """Needs a model's opinion: the data plane asks ``settings.model`` at ``/v1/moderations``."""

    def judge_opinion(self, opinion: Any) -> list[Finding]:
        """Findings in a decoded answer of the model. Raises ``ValueError`` when it is not one."""
        raise NotImplementedError
