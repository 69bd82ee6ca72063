"""What a policy said about a call: which check matched, by name, and what followed. Never the text that matched.

Actions from mild to strict: ``allow`` (mark it), ``redact`` (take it out), ``retry`` (another attempt; answers only),
``require_approval`` (a person must agree), ``block``. The strictest of all verdicts decides.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

BEFORE, AFTER = "before", "after"
STAGES = (BEFORE, AFTER)
ALLOW, REDACT, RETRY, REQUIRE_APPROVAL, BLOCK = "allow", "redact", "retry", "require_approval", "block"
#: from mild to strict
ACTIONS = (ALLOW, REDACT, RETRY, REQUIRE_APPROVAL, BLOCK)
_STRICTNESS = {action: place for place, action in enumerate(ACTIONS)}

#: What is kept of one call; a text full of matches must not fill the journal.
MAX_VERDICTS = 32
MAX_FINDINGS = 16
MAX_NAME = 80


class Finding(msgspec.Struct, omit_defaults=True):
    """What matched, by the name of its rule (``email``, a deny rule's own name), where in the request or answer
    (``messages[2].content``), how often."""

    name: str
    where: str = ""
    count: int = 1


class Verdict(msgspec.Struct, omit_defaults=True):
    """One check of one policy version matched. ``action`` is what was done, ``note`` adds to it in a few words."""

    policy: str
    version: int
    stage: str
    check: str
    action: str
    findings: list[Finding] = []
    note: str = ""


def strictest(actions: Iterable[str]) -> str:
    """The strictest of some actions; ``allow`` of none."""
    return max(actions, key=_STRICTNESS.__getitem__, default=ALLOW)


def bounded(findings: Iterable[Finding]) -> list[Finding]:
    """Findings of one name and place added up, and no more than are kept."""
    found: dict[tuple[str, str], Finding] = {}
    for one in findings:
        key = (one.name[:MAX_NAME], one.where[:MAX_NAME])
        if (known := found.get(key)) is not None:
            known.count += one.count
        elif len(found) < MAX_FINDINGS:
            found[key] = Finding(*key, one.count)
    return list(found.values())
