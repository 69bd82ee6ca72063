"""What a tool's definition may say, how dangerous a call of it is, and what identifies a call. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from llmops.core.appearance import written_out
from llmops.core.digests import canonical_json, digest, sha256_hex
from llmops.core.errors import InvalidRequest
from llmops.core.texts import deeper_than, text_problem
from llmops.policies.checks.schema_effort import PATTERN_BYTES, Effort, why_refused
from llmops.tools.expressions import ConditionRefused, parse

READ, WRITE, DESTRUCTIVE, IRREVERSIBLE = "read", "write", "destructive", "irreversible"
#: From the least to the most dangerous.
RISKS = (READ, WRITE, DESTRUCTIVE, IRREVERSIBLE)
RISK_WORDS = {
    READ: "reads only",
    WRITE: "changes something, and it can be changed back",
    DESTRUCTIVE: "changes or removes what is hard to bring back",
    IRREVERSIBLE: "cannot be undone",
}
#: How many must agree where a definition does not say; below the least of a class nobody can go.
APPROVALS = {READ: 0, WRITE: 0, DESTRUCTIVE: 1, IRREVERSIBLE: 2}
LEAST_APPROVALS = {READ: 0, WRITE: 0, DESTRUCTIVE: 1, IRREVERSIBLE: 1}
MOST_APPROVALS = 5
#: Who carries an approved action out: the console, or the service, which redeems a token once.
CONSOLE, SERVICE = "console", "service"
MOST_ARGUMENT_BYTES, MOST_SCHEMA_BYTES, MOST_RULES = 64 * 1024, 100_000, 20
#: Objects and lists in each other: what every page, database and checker can follow, and what a person can judge.
DEEPEST_ARGUMENTS = 32

Risk = Literal["read", "write", "destructive", "irreversible"]


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where ``when`` holds, or cannot be told, the call is at least of the class ``risk``."""

    when: Annotated[str, Meta(min_length=1, max_length=500)]
    risk: Risk


class Definition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that a version of a tool says. ``parameters`` is the JSON Schema of its arguments, ``says`` tells a call in
    words (``Refund {amount} to {customer.name}``), ``callers`` names the service keys that may propose (empty: all of the
    project), ``settings`` are the executor's, ``approvals`` says how many must agree by class.
    """

    description: Annotated[str, Meta(min_length=1, max_length=1000)]
    parameters: dict[str, Any]
    risk: Risk
    executor: Annotated[str, Meta(max_length=40)] = ""
    settings: dict[str, Any] = {}
    execution: Literal["console", "service"] = "console"
    says: Annotated[str, Meta(max_length=300)] = ""
    rules: Annotated[list[Rule], Meta(max_length=MOST_RULES)] = []
    approvals: dict[Risk, Annotated[int, Meta(ge=0, le=MOST_APPROVALS)]] = {}
    approve_within_s: Annotated[int, Meta(ge=60, le=30 * 86_400)] = 86_400
    timeout_s: Annotated[int, Meta(ge=1, le=600)] = 30
    concurrency: Annotated[int, Meta(ge=1, le=100)] = 4
    callers: Annotated[list[Annotated[str, Meta(min_length=1, max_length=80)]], Meta(max_length=50)] = []
    dry_run: bool = False

    def needed(self, risk: str) -> int:
        """How many people must agree to a call of this class."""
        known: Mapping[str, int] = self.approvals  # type: ignore[assignment]
        return max(known.get(risk, APPROVALS[risk]), LEAST_APPROVALS[risk])


@dataclass(frozen=True, slots=True)
class Class:
    """How dangerous a call is. ``rule`` is the condition that set it; empty where the tool's own class stands."""

    risk: str
    rule: str = ""
    unsure: bool = False

    @property
    def words(self) -> str:
        if not self.rule:
            return "the tool's own class"
        return f"{self.rule}" + (
            " (could not be told from these arguments, so it counts)" if self.unsure else ""
        )


def read_definition(value: Mapping[str, Any]) -> Definition:
    """The definition that ``value`` is. Raises ``InvalidRequest`` with the path of what is wrong."""
    try:
        found = msgspec.convert(dict(value), Definition)
    except msgspec.ValidationError as wrong:
        message, _, path = str(wrong).partition(" - at `")
        place = path.removesuffix("`").removeprefix("$").lstrip(".")
        name = f"definition.{place}" if place and place != "." else "definition"
        raise InvalidRequest(f"{name}: {message}.", param=name) from None
    _check_texts(found)
    check_schema(found.parameters)
    for number, rule in enumerate(found.rules):
        name = f"definition.rules[{number}]"
        try:
            parse(rule.when)
        except ConditionRefused as refused:
            raise InvalidRequest(f"{name}.when: {rule.when!r}: {refused}.", param=f"{name}.when") from None
        if RISKS.index(rule.risk) <= RISKS.index(found.risk):
            raise InvalidRequest(
                f"{name}.risk: a rule raises the class; the tool is {found.risk} already.",
                param=f"{name}.risk",
            )
    for risk, number in found.approvals.items():
        if number < LEAST_APPROVALS[risk]:
            name = f"definition.approvals.{risk}"
            raise InvalidRequest(
                f"{name}: at least one other person must agree to what is {risk}.", param=name
            )
    return found


def _check_texts(found: Definition) -> None:
    plain = msgspec.to_builtins(found)
    for name, value in plain.items():
        if problem := text_problem(value, lines=name in ("description", "parameters", "settings")):
            raise InvalidRequest(f"definition.{name}: {problem}.", param=f"definition.{name}")


def check_schema(schema: Any) -> Any:
    """A compiled JSON Schema of arguments, which are an object. Raises ``InvalidRequest``."""
    name = "definition.parameters"
    try:
        size = len(canonical_json(schema))
    except (ValueError, TypeError, RecursionError):
        raise InvalidRequest(f"{name}: this is not JSON.", param=name) from None
    if size > MOST_SCHEMA_BYTES:
        raise InvalidRequest(f"{name}: at most {MOST_SCHEMA_BYTES} bytes.", param=name)
    if schema.get("type") != "object":
        raise InvalidRequest(f'{name}: arguments are an object; write "type": "object".', param=name)
    import jsonschema_rs

    try:
        return jsonschema_rs.validator_for(
            schema,
            offline=True,
            pattern_options=jsonschema_rs.RegexOptions(size_limit=PATTERN_BYTES, dfa_size_limit=2_000_000),
        )
    except jsonschema_rs.ValidationError as wrong:
        raise InvalidRequest(
            f"{name}: not a JSON Schema: {why_refused(wrong.message)}.", param=name
        ) from None
    except jsonschema_rs.ReferencingError:
        raise InvalidRequest(
            f"{name}: it refers to something that is not there; put it under $defs.", param=name
        ) from None
    except (ValueError, RecursionError) as wrong:
        raise InvalidRequest(f"{name}: it cannot be used: {str(wrong)[:200]}.", param=name) from None


def checked_arguments(definition: Definition, arguments: Any) -> dict[str, Any]:
    """``arguments`` if they follow the schema. Raises ``InvalidRequest`` that names the member."""
    if not isinstance(arguments, dict):
        raise InvalidRequest("arguments: an object is needed.", param="arguments")
    if deeper_than(arguments, DEEPEST_ARGUMENTS):
        raise InvalidRequest(
            f"arguments: objects and lists in each other at most {DEEPEST_ARGUMENTS} deep.", param="arguments"
        )
    try:
        size = len(canonical_json(arguments))
    except (ValueError, TypeError, RecursionError):
        raise InvalidRequest(
            "arguments: these cannot be written as JSON (a number out of range?).", param="arguments"
        ) from None
    if size > MOST_ARGUMENT_BYTES:
        raise InvalidRequest(f"arguments: at most {MOST_ARGUMENT_BYTES} bytes.", param="arguments")
    if problem := text_problem(arguments, lines=True):
        raise InvalidRequest(f"arguments: {problem}.", param="arguments")
    if not Effort(definition.parameters, canonical_json(definition.parameters)).allows(arguments, size):
        raise InvalidRequest(
            "arguments: these have too many parts that references, choices or patterns in the tool's schema multiply. Give fewer at once, or "
            "have the schema refer to each part once, with fewer objects to choose from and shorter repetitions in patterns.",
            param="arguments",
        )
    # 5 MB, for those who check arguments.
    import jsonschema_rs

    try:
        check_schema(definition.parameters).validate(arguments)
    except jsonschema_rs.ValidationError as wrong:
        place = ".".join(["arguments", *map(str, wrong.instance_path)])
        raise InvalidRequest(f"{place}: {wrong.message[:300]}.", param=place) from None
    return arguments


def classify(definition: Definition, arguments: Mapping[str, Any]) -> Class:
    """The highest class of the tool's own and those of the rules that hold. A rule that cannot be told counts as holding."""
    found = Class(definition.risk)
    for rule in definition.rules:
        if RISKS.index(rule.risk) <= RISKS.index(found.risk):
            continue
        truth = parse(rule.when)(arguments)
        if truth is not False:
            found = Class(rule.risk, rule.when, unsure=truth is None)
    return found


def looser(before: Definition, after: Definition) -> str:
    """What ``after`` no longer asks agreement for and ``before`` did, in words; empty where it asks for as much."""
    if RISKS.index(after.risk) < RISKS.index(before.risk):
        return f"its class is {after.risk}, and was {before.risk}"
    for risk in RISKS:
        if after.needed(risk) < before.needed(risk):
            return f"{after.needed(risk)} must agree to what is {risk}, and {before.needed(risk)} had to"
    kept = {rule.when: RISKS.index(rule.risk) for rule in after.rules}
    for rule in before.rules:
        if max(kept.get(rule.when, 0), RISKS.index(after.risk)) < RISKS.index(rule.risk):
            return f"{rule.when} no longer makes it {rule.risk}"
    asks = any(after.needed(risk) for risk in (after.risk, *(rule.risk for rule in after.rules)))
    if after.dry_run and not before.dry_run and asks:
        return "a dry run, which nobody agrees to, calls what carries it out"
    return ""


_HOLE = re.compile(r"\{([A-Za-z_][\w-]*(?:\.[A-Za-z_][\w-]*)*)\}")
_LONGEST_HOLE = 80


def in_words(definition: Definition, slug: str, arguments: Mapping[str, Any]) -> str:
    """A call for people, on one line. What stands in the arguments is cut, never read as a hole again, and cannot turn around what
    stands beside it."""

    def fill(match: re.Match[str]) -> str:
        value: Any = arguments
        for step in match[1].split("."):
            value = value.get(step) if isinstance(value, Mapping) else None
        text = value if isinstance(value, str) else canonical_json(value).decode()
        text = written_out(" ".join(text.split()))
        return cut(text, _LONGEST_HOLE)

    if definition.says:
        return cut(_HOLE.sub(fill, definition.says), 200)
    return cut(f"{slug} with {written_out(canonical_json(arguments).decode())}", 200)


def cut(text: str, longest: int) -> str:
    """What is left out is told."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def action_digest(
    *, version: str, arguments: Mapping[str, Any], run: str, requester: Mapping[str, str]
) -> str:
    """What an approval is bound to: SHA-256 of the canonical (tool version, arguments, run, requester).

    ``version`` is the id and the digest of the tool version, ``requester`` who proposes and on whose behalf.
    """
    return digest(
        {
            "tool_version": version,
            "arguments": dict(arguments),
            "run": run,
            "requester": dict(requester),
        }
    )


def person_said(username: str) -> str:
    """What stands for whoever is named as the one for whom a call is asked: the same for a name that has an account as for one that has
    none, so that it tells nobody which there are. Letters that differ in case alone, or in how they are written, are the same."""
    if not username:
        return ""
    folded = unicodedata.normalize("NFKC", username).casefold()
    return f"as:{sha256_hex(folded.encode())[:40]}"


def argument_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Members that differ, as (path, before, after); an empty text where there is none."""
    old, new = dict(_leaves(before)), dict(_leaves(after))
    names = [*new, *(name for name in old if name not in new)]
    return [(name, old.get(name, ""), new.get(name, "")) for name in names if old.get(name) != new.get(name)]


def _leaves(value: Any, path: str = "") -> list[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        return [leaf for key in value for leaf in _leaves(value[key], f"{path}.{key}" if path else str(key))]
    return [(path, canonical_json(value).decode())]
