"""Every action of the trail is named ``noun.happened``: in the past tense, whichever room records it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.console.changes.admin import ADMIN
from tests.console.changes.api import API
from tests.console.changes.pages import PAGES
from tests.console.test_every_change_leaves_one_event import COMMANDS
from tests.installation import ROOT

_SHAPE = re.compile(r"[a-z_]+\.[a-z_]+")
_RECORDERS = ("record", "record_about", "_audit", "_event", "_move", "_switch")


def recorded() -> Iterator[tuple[str, str]]:
    """(file, action) of every action that the source names where it records one."""
    for path in sorted([*ROOT.glob("llmops/**/*.py"), *ROOT.glob("console/**/*.py")]):
        # The simulator records nothing; its events are those of a stream.
        if "simulator" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            given = [word.value for word in node.keywords if word.arg == "action"]
            given += node.args if name in _RECORDERS else []
            for value in given:
                if isinstance(value, ast.Constant) and _SHAPE.fullmatch(str(value.value)):
                    yield str(path.relative_to(ROOT)), value.value


def happened(action: str) -> bool:
    words = action.partition(".")[2].split("_")
    return any(word.endswith("ed") or word in ("set", "reset", "sent", "brought", "read") for word in words)


def test_actions_say_what_happened() -> None:
    found = list(recorded())
    assert {"budget.created", "route.created", "member.added", "user.password_set"} <= {
        one for _, one in found
    }
    assert [one for one in found if not happened(one[1])] == []


def test_so_do_those_of_every_door() -> None:
    doors = {change.action for table in (API, ADMIN, PAGES) for change in table.values()}
    doors |= {action for _, action in COMMANDS.values()}
    assert [action for action in sorted(doors) if not happened(action)] == []
