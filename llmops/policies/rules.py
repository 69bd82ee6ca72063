"""What a list of checks may be. Pure."""

from __future__ import annotations

from typing import Any

from llmops.core.digests import canonical_json
from llmops.core.errors import InvalidRequest
from llmops.core.texts import text_problem
from llmops.policies.checks import check_class, validate
from llmops.policies.checks.base import Remote

MEMBERS = ("kind", "stage", "action", "settings")
MOST_CHECKS = 50
MOST_BYTES = 500_000


def checked(checks: object) -> list[dict[str, Any]]:
    """``checks`` as a version keeps them: each with all of ``MEMBERS``, the settings as they were given.

    Raises ``InvalidRequest`` whose ``param`` is the path of the first thing that is wrong (``checks[1].settings.kinds[0]``),
    with all of them, one a check, under ``problems`` in its data.
    """
    if not isinstance(checks, list | tuple):
        raise InvalidRequest("checks: give a list of checks.", param="checks")
    if not checks:
        raise InvalidRequest("checks: a policy has at least one check.", param="checks")
    if len(checks) > MOST_CHECKS:
        raise InvalidRequest(f"checks: a policy has at most {MOST_CHECKS} checks.", param="checks")
    kept: list[dict[str, Any]] = []
    problems: dict[str, str] = {}
    for index, one in enumerate(checks):
        try:
            kept.append(_check(one, f"checks[{index}]"))
        except InvalidRequest as refused:
            problems[refused.param or "checks"] = refused.message
    if problems:
        param, message = next(iter(problems.items()))
        raise InvalidRequest(message, param=param, data={"problems": problems})
    if len(canonical_json(kept)) > MOST_BYTES:
        raise InvalidRequest(
            f"checks: at most {MOST_BYTES} bytes are kept of a policy; spread long lists over several.",
            param="checks",
        )
    return kept


def asked_model(kind: str, settings: dict[str, Any]) -> str:
    """The model or route that a valid check asks for its opinion; empty for checks that decide alone."""
    return str(settings["model"]) if issubclass(check_class(kind), Remote) else ""


def _check(given: object, path: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise InvalidRequest(f"{path}: give an object with {', '.join(MEMBERS)}.", param=path)
    for name in given:
        if name not in MEMBERS:
            raise InvalidRequest(
                f"{path}: there is no member {str(name)[:60]!r} of a check. Members are {', '.join(MEMBERS)}.",
                param=path,
            )
    for name in ("kind", "stage", "action"):
        if not isinstance(given.get(name), str):
            raise InvalidRequest(f"{path}.{name}: it is needed, as text.", param=f"{path}.{name}")
    kind, stage, action = (str(given[name]) for name in ("kind", "stage", "action"))
    settings = given.get("settings", {})
    if problem := text_problem([kind, stage, action]):
        raise InvalidRequest(f"{path}: {problem}.", param=path)
    try:
        problem = text_problem(settings, lines=True)
        canonical_json(settings)
    except (ValueError, TypeError, RecursionError):
        problem = "JSON cannot hold one of the values"
    if problem:
        raise InvalidRequest(f"{path}.settings: {problem}.", param=f"{path}.settings")
    validate(kind, stage, action, settings, path=path)
    return {"kind": kind, "stage": stage, "action": action, "settings": settings}
