"""Answers that must be JSON of a given shape (JSON Schema, draft 2020-12 unless the schema says otherwise).

A schema never leads anywhere: references to other documents are refused, patterns run in linear time. An answer that would
take endless work to check, because references, choices or patterns multiply it, is not checked: a validator cannot be stopped.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from llmops.core.verdicts import MAX_NAME, Finding
from llmops.policies.checks.base import (
    JUDGES_ANSWER,
    Answer,
    AnswerCheck,
    RetrySettings,
    SettingRefused,
)
from llmops.policies.checks.schema_effort import PATTERN_BYTES, Effort, why_refused

MAX_SCHEMA_BYTES = 100_000
_MAX_ERRORS = 5
_MAX_ADVICE = 1_500
#: Of larger answers only the first problem is told.
_MAX_TOLD_WHOLE = 16_384
_decode = msgspec.json.Decoder().decode


class SchemaSettings(RetrySettings, frozen=True, kw_only=True):
    schema: Annotated[
        dict[str, Any] | None,
        Meta(
            description="The JSON Schema that an answer must follow. Without one it is the schema of the request's own "
            "response_format; a request without one is not checked."
        ),
    ] = None


class Schema(AnswerCheck):
    kind = "schema"
    title = "JSON Schema"
    summary = (
        "Finds answers that are not JSON or do not follow a JSON Schema. With the action retry the model is told what is wrong "
        "and tries again; each try is priced and recorded."
    )
    actions = JUDGES_ANSWER
    settings_type = SchemaSettings

    @classmethod
    def refuse(cls, settings: Any, stage: str, action: str) -> None:
        if settings.schema is not None:
            if len(msgspec.json.encode(settings.schema)) > MAX_SCHEMA_BYTES:
                raise SettingRefused("schema", f"larger than {MAX_SCHEMA_BYTES} bytes")
            try:
                validator(settings.schema)
            except ValueError as error:
                raise SettingRefused("schema", str(error)) from None

    def __init__(self, settings: Any, stage: str, action: str) -> None:
        super().__init__(settings, stage, action)
        self._validator = validator(settings.schema) if settings.schema is not None else None
        self._effort = effort_of(settings.schema) if settings.schema is not None else None

    def judge_answer(self, answer: Answer) -> list[Finding]:
        if answer.refusal or (answer.tools and not answer.text):
            return []
        return [Finding(rule) for rule, _ in self._problems(answer)]

    def advice(self, answer: Answer) -> str:
        problems = "\n".join(f"- {said}" for _, said in self._problems(answer))
        return (
            "Your answer does not follow the JSON Schema that was asked for:\n"
            f"{problems[:_MAX_ADVICE]}\nAnswer again with the corrected JSON alone."
        )

    def _problems(self, answer: Answer) -> list[tuple[str, str]]:
        """Rules of the schema that are broken, with a sentence for the model. The rules alone are kept: they are the
        operator's own words, the sentence may quote the answer."""
        own = self._validator is None
        schema = answer.schema if own else self.settings.schema
        if schema is None:
            return []
        try:
            found = _decode(answer.text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return [("not JSON", "it is not JSON")]
        checked: Any = self._validator
        if own:
            # What a caller means by a schema that cannot be used is the caller's own: its provider did not mind.
            encoded = msgspec.json.encode(schema)
            if len(encoded) > MAX_SCHEMA_BYTES or not Effort(schema, encoded).allows(found, len(answer.text)):
                return []
            try:
                checked = validator(schema)
            except ValueError:
                return []
        elif self._effort is not None and not self._effort.allows(found, len(answer.text)):
            return [
                (
                    "too much to check",
                    "it has too many parts that the schema's references, choices or patterns multiply",
                )
            ]
        problems: list[tuple[str, str]] = []
        for error in _errors(checked, found, len(answer.text)):
            rule = "/".join(map(str, error.schema_path))
            place = "/".join(map(str, error.instance_path))
            problems.append((f"/{rule}"[-MAX_NAME:], f"/{place}: {error.message[:200]}"))
            if len(problems) >= _MAX_ERRORS:
                break
        return problems


def effort_of(schema: Any) -> Effort:
    return Effort(schema, msgspec.json.encode(schema))


def _errors(checked: Any, found: Any, size: int) -> Iterable[Any]:
    """What is wrong with an answer. All of it is looked for at once, so of a large answer only the first is."""
    if size <= _MAX_TOLD_WHOLE:
        yield from checked.iter_errors(found)
        return
    import jsonschema_rs

    try:
        checked.validate(found)
    except jsonschema_rs.ValidationError as error:
        yield error


def validator(schema: Any) -> Any:
    """A compiled schema. Raises ``ValueError`` with what is wrong with it."""
    # 5 MB, for schemas alone.
    import jsonschema_rs

    try:
        return jsonschema_rs.validator_for(
            schema,
            offline=True,
            pattern_options=jsonschema_rs.RegexOptions(size_limit=PATTERN_BYTES, dfa_size_limit=2_000_000),
        )
    except jsonschema_rs.ValidationError as error:
        raise ValueError(f"not a JSON Schema: {why_refused(error.message)}") from None
    except jsonschema_rs.ReferencingError:
        raise ValueError(
            "it refers to another document or to something that is not there; put it under $defs"
        ) from None
