"""Shares as people read them, everywhere alike. Pure."""

from __future__ import annotations

_THIN = "\u2009"
NONE = "–"


def share_text(part: int, whole: int) -> str:
    """A share with as many decimals as say something, such as ``26.0 %``; a part that is not zero never reads as 0 %, and one
    that is not the whole never as 100 %. A dash where the whole is zero."""
    if whole == 0:
        return NONE
    share = 100 * part / whole
    if part and share < 0.1:
        return f"<{_THIN}0.1{_THIN}%"
    if share >= 99.95 and part < whole:
        return f">{_THIN}99.9{_THIN}%"
    return f"{share:.1f}{_THIN}%" if share < 99.95 else f"{share:.0f}{_THIN}%"
