"""What of this room is sealed under master keys. ``settings.SEALED`` names it."""

from __future__ import annotations

from llmops.base.sealed import SealedColumn
from llmops.providers.selectors import sealing_identity

CREDENTIALS = SealedColumn("providers.Credential", "sealed", lambda row: sealing_identity(row.pk))
