"""Amounts of money in templates of the admin: exact, as they are stored."""

from __future__ import annotations

from django import template

from llmops.core.money import format_usd

register = template.Library()


@register.filter
def exact_usd(nano: int | None) -> str:
    """Nanodollars as text without a currency sign."""
    return "" if nano is None else format_usd(nano)
