"""What of this room is sealed under master keys. ``settings.SEALED`` names it."""

from __future__ import annotations

import json
from typing import Any

from llmops.base.crypto import MasterKeys
from llmops.base.master_keys import master_keys, usable_for_sealing
from llmops.base.sealed import SealedColumn


def key_identity(row_id: object) -> str:
    return f"playground.project_key:{row_id}"


def piece_identity(row_id: object) -> str:
    return f"playground.piece:{row_id}"


def setup_identity(row_id: object) -> str:
    return f"playground.setup:{row_id}"


def seal(value: Any, *, identity: str, keys: MasterKeys | None = None) -> str:
    """``keys``: found usable before, where much is sealed at once."""
    return (keys or usable_for_sealing()).seal(json.dumps(value), identity=identity)


def opened(sealed: str, *, identity: str) -> Any:
    return json.loads(master_keys().open(sealed, identity=identity))


PROJECT_KEYS = SealedColumn("playground.ProjectKey", "sealed", lambda row: key_identity(row.pk))
PIECES = SealedColumn("playground.Piece", "sealed", lambda row: piece_identity(row.pk))
SETUPS = SealedColumn("playground.Setup", "sealed", lambda row: setup_identity(row.pk))
