"""Tools in the declarative file: made, continued as new versions, and without the secret that signs their webhooks."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from console.declarative import schema
from console.declarative.apply import apply_text
from console.declarative.checks import BadFile
from console.declarative.export import export_text
from console.declarative.state import read_state
from llmops.access import services as access
from llmops.tools import services as tools
from llmops.tools.models import Tool
from tests.cast import no_event, one_event
from tests.configuring import OPERATOR

pytestmark = [pytest.mark.django_db, pytest.mark.any_engine]

FILE = """
version: 1
projects:
  - {slug: support, name: Support}
tools:
  - slug: refund
    project: support
    description: Gives money back.
    parameters: {type: object, properties: {amount: {type: number}}, additionalProperties: false}
    risk: write
    rules:
      - {when: amount > 100, risk: destructive}
    approvals: {irreversible: 2}
    says: "Refund {amount}"
    executor: webhook
    settings: {url: "https://tools.example.com/refunds"}
    approve_within: 3600
    timeout: 20
"""
STRICTER = FILE.replace("amount > 100,", "amount > 50,")


def apply(text: str, **how: Any) -> Any:
    return apply_text(OPERATOR, text, with_publish=False, **how)


def words(done: Any) -> list[str]:
    return [
        line
        for step in done.plan.steps
        for line in str(step).splitlines()
        if "tool" in line or "rules" in line
    ]


def test_from_the_file_to_a_tool_and_back() -> None:
    planned = apply(FILE, dry_run=True)
    assert "+ tool support/refund" in words(planned) and not Tool.objects.exists()
    apply(FILE)
    tool = Tool.objects.get()
    assert tool.current is not None and tool.current.definition["timeout_s"] == 20
    assert tool.current.definition["settings"]["allow_private_network"] is False
    with no_event():
        assert apply(FILE).nothing_to_do
    exported = export_text(read_state())
    assert "webhook" in exported and "allow_private_network" not in exported and "execution" not in exported
    with no_event():
        assert apply(exported).nothing_to_do
    with one_event("tool.version_added"):
        done = apply(STRICTER)
    assert words(done)[0] == "~ tool support/refund" and "amount > 50" in words(done)[1]
    assert Tool.objects.get().current.number == 2  # type: ignore[union-attr]


def test_no_secret_leaves_and_none_that_is_there_goes() -> None:
    done = apply(FILE)
    assert any("not signed yet" in note for note in done.plan.notes)
    secret = tools.rotate_secret(OPERATOR, tool=Tool.objects.get())
    sealed = Tool.objects.get().sealed
    exported = export_text(read_state())
    assert secret not in exported and sealed not in exported and "whsec" not in exported
    again = apply(STRICTER)
    assert Tool.objects.get().sealed == sealed and not again.plan.notes


def test_what_was_put_away_and_is_named_comes_back() -> None:
    apply(FILE)
    tools.archive_tool(OPERATOR, tool=Tool.objects.get())
    assert "tools" not in yaml.safe_load(export_text(read_state()))
    assert "+ tool support/refund: bring back" in words(apply(FILE))
    assert Tool.objects.get().archived_at is None
    # What stands for a moment is not configuration.
    tools.pause_tool(OPERATOR, tool=Tool.objects.get(), reason="stock taking")
    assert apply(FILE).nothing_to_do and Tool.objects.get().paused_at is not None


@pytest.mark.parametrize(
    ("instead", "by", "line", "reason"),
    [
        ("risk: write", "risk: harmless", 10, "one of read, write"),
        ("amount > 100,", "amount >> 100,", 12, "amount >> 100"),
        ("{type: object,", "{type: string,", 9, "arguments are an object"),
        ("irreversible: 2", "irreversible: 0", 13, "at least one other person"),
        ("timeout: 20", "timeout: 0", 18, "from 1 to 600"),
        ("    risk: write\n", "", 6, "'risk' is missing"),
        ("project: support\n", "project: other\n", 7, "no project 'other'"),
        ("https://tools", "ftp://tools", 16, "start it with https://"),
        ("executor: webhook", "executor: magic", 15, "'magic' is none"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(instead: str, by: str, line: int, reason: str) -> None:
    with no_event(), pytest.raises(BadFile) as refused:
        apply(FILE.replace(instead, by))
    told = [(one.line, str(one)) for one in refused.value.found]
    assert told[0][0] == line and reason in told[0][1], told
    assert not Tool.objects.exists()


def test_two_of_a_name_in_a_project_are_refused() -> None:
    access.create_project(OPERATOR, slug="other")
    twice = FILE + FILE[FILE.index("  - slug: refund") :]
    with pytest.raises(BadFile):
        schema.read(twice)
    both = FILE + FILE[FILE.index("  - slug: refund") :].replace("project: support", "project: other")
    assert len([entry for entry in schema.read(both) if entry.kind == "tool"]) == 2
