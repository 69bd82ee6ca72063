"""What a call's record says of the quality of its answer. Pure.

``Call.signals`` holds them as bits, so that SQL counts and finds them; rollups have a count for each. What only a policy can see
(a refusal by the model, a lazy answer, one that breaks its schema) shows where a policy checks for it. ``capped`` are answers
that were cut off at the cap that their caller had set: that is as asked for, so they are not ``truncated``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llmops.core.verdicts import ALLOW, BLOCK, REDACT, REQUIRE_APPROVAL, RETRY, Verdict

#: In the order of their bits, which never changes: stored calls have them.
SIGNALS = (
    "truncated",
    "filtered",
    "declined",
    "schema_failed",
    "lazy",
    "repaired",
    "flagged",
    "redacted",
    "blocked",
    "capped",
)
BIT = {name: 1 << place for place, name in enumerate(SIGNALS)}
#: Finish reasons of chat and of responses.
TRUNCATED = frozenset(("length", "max_output_tokens"))
_FILTERED = "content_filter"
_FILTERED_CODES = frozenset((_FILTERED, "upstream_filtered"))
#: kind of a policy's check -> what it sees
_SEEN = {
    "refusal": "declined",
    "schema": "schema_failed",
    "lazy": "lazy",
    "truncation": "truncated",
    "content_filter": "filtered",
}
#: action of a verdict -> what was done
_DONE = {
    ALLOW: "flagged",
    REDACT: "redacted",
    RETRY: "repaired",
    REQUIRE_APPROVAL: "blocked",
    BLOCK: "blocked",
}


def signals_of(
    *, status: str, finish: str, code: str, verdicts: Sequence[Verdict], capped: bool = False
) -> int:
    """Bits of ``SIGNALS``. ``repaired``: a policy had the model asked again, and an answer came of it that was passed on.
    ``capped``: it is the caller's own cap that a cut off answer was cut off at."""
    found = 0
    if finish in TRUNCATED:
        found |= BIT["capped" if capped else "truncated"]
    if finish == _FILTERED or code in _FILTERED_CODES:
        found |= BIT["filtered"]
    for verdict in verdicts:
        if (seen := _SEEN.get(verdict.check)) is not None:
            found |= BIT[seen]
        done = _DONE.get(verdict.action)
        if done is not None and (done != "repaired" or status == "ok"):
            found |= BIT[done]
    if found & BIT["capped"]:
        found &= ~BIT["truncated"]
    return found


def counts_of(signals: int) -> tuple[int, ...]:
    """0 or 1 for each of ``SIGNALS``."""
    return _COUNTS[signals] if 0 <= signals < len(_COUNTS) else _COUNTS[0]


def mask_of(names: Iterable[str]) -> int:
    """The bits of all these; 0 for none. Raises ``KeyError`` for a name that is no signal."""
    found = 0
    for name in names:
        found |= BIT[name]
    return found


_COUNTS = tuple(
    tuple(bits >> place & 1 for place in range(len(SIGNALS))) for bits in range(1 << len(SIGNALS))
)
