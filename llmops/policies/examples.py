"""A check of each kind that one can start from: pages and documentation show it. Pure.

Where it finds words that an operator must choose, the example only marks: saved as it is, it stops nobody's traffic.
"""

from __future__ import annotations

from typing import Any

from llmops.core.verdicts import AFTER, ALLOW, BEFORE, BLOCK, REDACT, RETRY


def _example(kind: str, stage: str, action: str, **settings: Any) -> dict[str, Any]:
    return {"kind": kind, "stage": stage, "action": action, "settings": settings}


#: kind -> check
EXAMPLES: dict[str, dict[str, Any]] = {
    example["kind"]: example
    for example in (
        _example("length", BEFORE, BLOCK, max_characters=100_000, max_messages=200),
        _example("secrets", BEFORE, REDACT),
        _example(
            "personal_data",
            BEFORE,
            REDACT,
            kinds=["email", "phone", "card"],
            reversible=True,
            except_ending=["@example.com"],
        ),
        _example("injection", BEFORE, BLOCK, threshold=60),
        _example("special_tokens", BEFORE, REDACT),
        _example(
            "deny",
            AFTER,
            ALLOW,
            rules=[
                {"name": "competitors", "words": ["Acme", "Globex Corporation"]},
                {"name": "order number", "expressions": ["ORD-[0-9]{6,10}"]},
            ],
        ),
        _example("allow", BEFORE, ALLOW, rules=[{"name": "our subject", "words": ["invoice", "refund"]}]),
        _example(
            "risk",
            BEFORE,
            ALLOW,
            rules=[{"name": "payments", "words": ["wire transfer", "change of bank account"]}],
        ),
        _example(
            "moderation",
            BEFORE,
            BLOCK,
            model="moderation",
            categories=["self-harm", "violence"],
            threshold=0.7,
        ),
        _example(
            "schema",
            AFTER,
            RETRY,
            schema={"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]},
            attempts=2,
        ),
        _example("refusal", AFTER, ALLOW),
        _example("truncation", AFTER, RETRY, attempts=1, otherwise="allow"),
        _example("content_filter", AFTER, BLOCK),
        _example("lazy", AFTER, RETRY, min_characters=20),
    )
}
