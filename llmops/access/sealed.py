"""What of this room is sealed under master keys. ``settings.SEALED`` names it."""

from __future__ import annotations

from llmops.base.sealed import SealedColumn


def factor_identity(factor_id: object) -> str:
    """What a sealed seed is bound to: its own row."""
    return f"access.second_factor:{factor_id}"


def offered_identity(user_id: object) -> str:
    """What a seed is bound to that somebody was shown and has not confirmed."""
    return f"access.second_factor_offered:{user_id}"


SECOND_FACTORS = SealedColumn("access.SecondFactor", "sealed", lambda row: factor_identity(row.pk))
