"""What of this room is sealed under master keys. ``settings.SEALED`` names it."""

from __future__ import annotations

from llmops.alerts.models import Channel
from llmops.base.master_keys import master_keys
from llmops.base.sealed import SealedColumn
from llmops.core.digests import sha256_hex
from llmops.core.errors import Conflict, ConsoleError


def secret_identity(channel_id: object) -> str:
    """What a sealed secret is bound to: its own row, so that a copy in another row does not open."""
    return f"alerts.channel:{channel_id}"


def secret_of(channel: Channel) -> str:
    """What signs a channel's webhook, or the address of its chat. Raises ``Conflict`` where there is none."""
    if not channel.sealed:
        raise Conflict(f"{channel.slug} has no secret yet. Give it one, and it can be told.")
    return master_keys().open(channel.sealed, identity=secret_identity(channel.pk))


def fingerprint_of(channel: Channel) -> str:
    """What tells one secret from another and gives none away; empty without one, and where its master key is not here."""
    try:
        return sha256_hex(secret_of(channel).encode())[:12] if channel.sealed else ""
    except ConsoleError:
        return ""


CHANNEL_SECRETS = SealedColumn("alerts.Channel", "sealed", lambda row: secret_identity(row.pk))
