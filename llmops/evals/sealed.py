"""What of this room is sealed under master keys. ``settings.SEALED`` names it."""

from __future__ import annotations

import json
from typing import Any

from llmops.base.master_keys import master_keys, usable_for_sealing
from llmops.base.sealed import SealedColumn


def expected_identity(case_id: object) -> str:
    return f"evals.case.expected:{case_id}"


def text_identity(case_id: object) -> str:
    return f"evals.case_text:{case_id}"


def seal(value: Any, *, identity: str) -> str:
    return usable_for_sealing().seal(json.dumps(value), identity=identity)


def opened(sealed: str, *, identity: str) -> Any:
    return json.loads(master_keys().open(sealed, identity=identity))


EXPECTED = SealedColumn("evals.Case", "sealed_expected", lambda row: expected_identity(row.pk))
CASE_TEXTS = SealedColumn("evals.CaseText", "sealed", lambda row: text_identity(row.pk))
