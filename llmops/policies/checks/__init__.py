"""Kinds of checks. A kind is a module here, a line in ``CHECKS`` and a test."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import msgspec

from llmops.core.errors import InvalidRequest
from llmops.policies.checks.base import Check, SettingRefused

CHECKS = {
    "length": "llmops.policies.checks.length.Length",
    "secrets": "llmops.policies.checks.secrets.Secrets",
    "personal_data": "llmops.policies.checks.personal_data.PersonalData",
    "injection": "llmops.policies.checks.injection.Injection",
    "special_tokens": "llmops.policies.checks.special_tokens.SpecialTokens",
    "deny": "llmops.policies.checks.deny.Deny",
    "allow": "llmops.policies.checks.allow.Allow",
    "risk": "llmops.policies.checks.risk.Risk",
    "moderation": "llmops.policies.checks.moderation.Moderation",
    "schema": "llmops.policies.checks.schema.Schema",
    "refusal": "llmops.policies.checks.refusal.Refusal",
    "truncation": "llmops.policies.checks.truncation.Truncation",
    "content_filter": "llmops.policies.checks.content_filter.ContentFilter",
    "lazy": "llmops.policies.checks.lazy.Lazy",
}
_PLACE = re.compile(r" - at `\$(?:\.([^`]*)|(\[[^`]*))`$")
_UNKNOWN = re.compile(r"unknown field `([^`]*)`")
_MISSING = re.compile(r"missing required field `([^`]*)`")


class Description(NamedTuple):
    """A kind for forms and documentation. ``settings`` is the JSON Schema of its settings, with a description each."""

    kind: str
    title: str
    summary: str
    #: stage -> actions
    actions: dict[str, tuple[str, ...]]
    settings: dict[str, Any]


@cache
def check_class(kind: str) -> type[Check]:
    """Raises ``KeyError`` for a kind that there is not."""
    module, _, name = CHECKS[kind].rpartition(".")
    found: type[Check] = getattr(import_module(module), name)
    return found


@cache
def describe(kind: str) -> Description:
    """Raises ``KeyError`` for a kind that there is not."""
    found = check_class(kind)
    (schema,), parts = msgspec.json.schema_components((found.settings_type,), ref_template="#/$defs/{name}")
    top = parts.pop(found.settings_type.__name__, schema)
    if parts:
        top["$defs"] = parts
    return Description(kind, found.title, found.summary, found.actions, top)


def settings_of(kind: str, settings: dict[str, Any], path: str = "settings") -> Any:
    """Settings as their kind's structure, defaults filled in. Raises ``InvalidRequest`` with the path of the wrong one."""
    try:
        return msgspec.convert(settings, check_class(kind).settings_type)
    except msgspec.ValidationError as error:
        said = str(error)
        place = _PLACE.search(said)
        where = path
        if place:
            said = said[: place.start()]
            where = f"{path}.{place[1]}" if place[1] else f"{path}{place[2]}"
        if found := _UNKNOWN.search(said):
            where, said = f"{where}.{found[1]}", "there is no such setting"
        elif found := _MISSING.search(said):
            where, said = f"{where}.{found[1]}", "it is needed"
        raise InvalidRequest(f"{where}: {said[:1].lower()}{said[1:]}.", param=where) from None


def validate(kind: str, stage: str, action: str, settings: Any, *, path: str = "check") -> None:
    """Refuse a check that could not run. Raises ``InvalidRequest`` whose ``param`` is the path of what is wrong
    (``checks[0].settings.rules[1].words``, when ``path`` is ``checks[0]``)."""
    if kind not in CHECKS:
        raise InvalidRequest(
            f"{path}.kind: {kind!r} is not a kind of check. Kinds are {', '.join(CHECKS)}.",
            param=f"{path}.kind",
        )
    found = check_class(kind)
    if stage not in found.actions:
        raise InvalidRequest(
            f"{path}.stage: {found.title} runs {' or '.join(found.actions)}, not {stage!r}.",
            param=f"{path}.stage",
        )
    possible = found.actions[stage]
    if action not in possible:
        raise InvalidRequest(
            f"{path}.action: {action!r} cannot follow {found.title} {stage} the call. "
            f"Possible are {', '.join(possible)}.",
            param=f"{path}.action",
        )
    if not isinstance(settings, dict):
        raise InvalidRequest(f"{path}.settings: must be an object.", param=f"{path}.settings")
    read = settings_of(kind, settings, f"{path}.settings")
    try:
        found.refuse(read, stage, action)
    except SettingRefused as error:
        where = f"{path}.settings.{error.path}" if error.path else f"{path}.settings"
        raise InvalidRequest(f"{where}: {error.message}.", param=where) from None


def compiled(kind: str, stage: str, action: str, settings: dict[str, Any]) -> Check:
    """A check that ``validate`` accepted, ready to run."""
    return check_class(kind)(settings_of(kind, settings), stage, action)
