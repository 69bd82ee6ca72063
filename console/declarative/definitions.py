"""The shapes of policies, tools and prompts, which their own rooms check as a whole. Pure."""

from __future__ import annotations

from typing import Any

import yaml
from msgspec import to_builtins

from console.declarative.checks import (
    BAD,
    Item,
    Member,
    Report,
    choice,
    json_text,
    list_of,
    mapping_of,
    node_at,
    record,
    slug,
    text,
    whole,
    yes_or_no,
)
from llmops.core.errors import InvalidRequest
from llmops.core.verdicts import ACTIONS, STAGES
from llmops.policies.checks import CHECKS, validate
from llmops.policies.rules import MOST_CHECKS
from llmops.prompts import content as contents
from llmops.prompts.content import LARGEST_CEILING, MOST_SAMPLES
from llmops.prompts.rendering import LAYERS
from llmops.prompts.templating import MOST_SOURCE
from llmops.tools.rules import CONSOLE, MOST_APPROVALS, MOST_RULES, RISKS, SERVICE, read_definition

CHECK = {
    "kind": Member(choice(*CHECKS), required=True),
    "stage": Member(choice(*STAGES), required=True),
    "action": Member(choice(*ACTIONS), required=True),
    "settings": Member(mapping_of(json_text), dict),
}


def _policy_check(node: yaml.Node, path: str, report: Report) -> Any:
    """One check of a policy, as its kind accepts it; what is wrong is told with the line of that very setting."""
    item = record(CHECK)(node, path, report)
    if item is BAD:
        return BAD
    try:
        validate(item["kind"], item["stage"], item["action"], item["settings"], path=path)
    except InvalidRequest as refused:
        where = refused.param or path
        reason = refused.message.removeprefix(f"{where}: ").removesuffix(".")
        return report.bad(node_at(node, where.removeprefix(path)), where, reason)
    return item.values


POLICY = {
    "slug": Member(slug, required=True),
    "description": Member(text(most=300), ""),
    "everywhere": Member(yes_or_no, False),
    "checks": Member(list_of(_policy_check, most=MOST_CHECKS), required=True),
}
_TOOL_RULE = {
    "when": Member(text(most=500, blank=False), required=True),
    "risk": Member(choice(*RISKS), required=True),
}
TOOL = {
    "slug": Member(slug, required=True),
    "project": Member(slug, required=True),
    "description": Member(text(most=1_000, lines=True, blank=False), required=True),
    "parameters": Member(mapping_of(json_text), required=True),
    "risk": Member(choice(*RISKS), required=True),
    "rules": Member(list_of(record(_TOOL_RULE), most=MOST_RULES), list),
    "approvals": Member(mapping_of(whole(0, MOST_APPROVALS), allowed=RISKS), dict),
    "says": Member(text(most=300), ""),
    "executor": Member(text(most=40), ""),
    "settings": Member(mapping_of(json_text), dict),
    "execution": Member(choice(CONSOLE, SERVICE), CONSOLE),
    "approve_within": Member(whole(60, 30 * 86_400), 86_400),
    "timeout": Member(whole(1, 600), 30),
    "concurrency": Member(whole(1, 100), 4),
    "callers": Member(list_of(text(most=80, blank=False), most=50), list),
    "dry_run": Member(yes_or_no, False),
}
#: Members that the file has under other names, as it has every duration.
TOOL_SECONDS = {"approve_within": "approve_within_s", "timeout": "timeout_s"}


def tool(node: yaml.Node, path: str, report: Report) -> Any:
    """A tool with its definition, checked as a whole; what is wrong is told with the line of that very member."""
    item = record(TOOL)(node, path, report)
    if item is BAD:
        return BAD
    given = {
        TOOL_SECONDS.get(name, name): value
        for name, value in item.values.items()
        if name not in ("slug", "project")
    }
    given["rules"] = [rule.values for rule in item["rules"]]
    try:
        kept = to_builtins(read_definition(given))
    except InvalidRequest as refused:
        where = (refused.param or "definition").removeprefix("definition")
        reason = refused.message.removeprefix(f"definition{where}: ").removesuffix(".")
        return report.bad(node_at(node, where), f"{path}{where}", reason)
    if kept["executor"] == "webhook":
        kept["settings"] = {"allow_private_network": False, **kept["settings"]}
    return Item(item.line, {"slug": item["slug"], "project": item["project"], "definition": kept}, item.lines)


PROMPT_VERSION = {
    "note": Member(text(most=300), ""),
    **{name: Member(text(most=MOST_SOURCE, lines=True), "") for name in LAYERS},
    "output_schema": Member(mapping_of(json_text)),
    "variables": Member(list_of(json_text)),
    "route": Member(slug),
    "parameters": Member(mapping_of(json_text), dict),
    "token_ceiling": Member(whole(1, LARGEST_CEILING)),
    "samples": Member(list_of(json_text, most=MOST_SAMPLES), list),
}


def _prompt_version(node: yaml.Node, path: str, report: Report) -> Any:
    """One version of a prompt, checked as a whole; what is wrong is told with the line of that very member."""
    item = record(PROMPT_VERSION)(node, path, report)
    if item is BAD:
        return BAD
    content = {name: value for name, value in item.values.items() if name != "note"}
    try:
        kept = contents.checked({**content, "route": content["route"] or ""})
        contents.proved(kept)
    except InvalidRequest as refused:
        where = refused.param or ""
        reason = refused.message.removeprefix(f"{where}: ").removesuffix(".")
        return report.bad(node_at(node, f".{where}"), f"{path}.{where}", reason)
    return {"note": item["note"].strip(), "content": kept}


PROMPT = {
    "slug": Member(slug, required=True),
    "project": Member(slug),
    "description": Member(text(most=300), ""),
    "versions": Member(list_of(_prompt_version, most=1_000), required=True),
    "labels": Member(mapping_of(whole(1, 1_000_000)), dict),
}
