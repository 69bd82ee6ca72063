"""What of this room is sealed under master keys. ``settings.SEALED`` names it."""

from __future__ import annotations

from llmops.base.master_keys import master_keys
from llmops.base.sealed import SealedColumn
from llmops.core.errors import Conflict
from llmops.tools.models import Tool


def secret_identity(tool_id: object) -> str:
    """What a sealed secret is bound to: its own row, so that a copy in another row does not open."""
    return f"tools.tool:{tool_id}"


def webhook_secret(tool: Tool) -> str:
    """The secret that signs what is sent to the tool. Raises ``Conflict`` where there is none."""
    if not tool.sealed:
        raise Conflict(
            f"{tool.slug} has no signing secret yet. Make one and give it to whoever runs the webhook."
        )
    return master_keys().open(tool.sealed, identity=secret_identity(tool.pk))


WEBHOOK_SECRETS = SealedColumn("tools.Tool", "sealed", lambda row: secret_identity(row.pk))
