"""What of this room is sealed under master keys. ``settings.SEALED`` names it."""

from __future__ import annotations

from llmops.base.sealed import SealedColumn
from llmops.usage.records import kept_answer_identity, kept_text_identity

KEPT_TEXTS = SealedColumn("usage.KeptText", "sealed", lambda row: kept_text_identity(row.pk))
KEPT_ANSWERS = SealedColumn("usage.KeptAnswer", "sealed", lambda row: kept_answer_identity(row.pk))
