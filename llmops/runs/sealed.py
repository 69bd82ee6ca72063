"""What of this room is sealed under master keys. ``settings.SEALED`` names it."""

from __future__ import annotations

import json
from typing import Any

from llmops.base.master_keys import master_keys, usable_for_sealing
from llmops.base.sealed import SealedColumn


def key_identity(row_id: object) -> str:
    return f"runs.project_key:{row_id}"


def asked_identity(run_id: object) -> str:
    return f"runs.run:{run_id}"


def answer_identity(run_id: object) -> str:
    return f"runs.run.answer:{run_id}"


def saying_identity(run_id: object) -> str:
    return f"runs.run.saying:{run_id}"


def step_identity(step_id: object) -> str:
    return f"runs.step:{step_id}"


def seal(value: Any, *, identity: str) -> str:
    return usable_for_sealing().seal(json.dumps(value), identity=identity)


def opened(sealed: str, *, identity: str) -> Any:
    """None where the text was removed, its time being over."""
    return json.loads(master_keys().open(sealed, identity=identity)) if sealed else None


PROJECT_KEYS = SealedColumn("runs.ProjectKey", "sealed", lambda row: key_identity(row.pk))
ASKED = SealedColumn("runs.Run", "sealed", lambda row: asked_identity(row.pk))
ANSWERS = SealedColumn("runs.Run", "sealed_answer", lambda row: answer_identity(row.pk))
SAYINGS = SealedColumn("runs.Run", "sealed_saying", lambda row: saying_identity(row.pk))
STEPS = SealedColumn("runs.Step", "sealed", lambda row: step_identity(row.pk))
