"""What a budget may say. Pure; every refusal is an ``InvalidRequest`` that names the field."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from llmops.budgets.periods import ONCE, PERIODS, zone
from llmops.budgets.scopes import KEY, ORGANISATION, PROJECT, ROUTE, SCOPE_KINDS
from llmops.core.errors import InvalidRequest
from llmops.core.money import MAX_NANO

_SLUG = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_LONGEST_VALUE = 200
_MOST_THRESHOLDS = 20
_HIGHEST_THRESHOLD = 1000
_MOST_ADDRESSES = 20
_LONGEST_RAISE = timedelta(days=366)
_ADDRESS = re.compile(r"[^\s@,;<>\"\x00-\x1f]{1,64}@[A-Za-z0-9.-]{1,180}\.[A-Za-z0-9-]{1,63}")


def checked_slug(slug: str) -> str:
    if not isinstance(slug, str) or not _SLUG.fullmatch(slug):
        raise InvalidRequest(
            "slug: use lowercase letters, digits, dots, underscores and hyphens, at most 63, starting with a letter "
            "or digit.",
            param="slug",
        )
    return slug


def checked_period(period: str) -> str:
    names = [name for name, _ in PERIODS]
    if period not in names:
        raise InvalidRequest(f"period: {period!r} is not one of {', '.join(names)}.", param="period")
    return period


def checked_timezone(timezone: str) -> str:
    if not isinstance(timezone, str) or not timezone:
        raise InvalidRequest("timezone: name a time zone, such as Europe/Berlin or UTC.", param="timezone")
    zone(timezone)
    return timezone


def checked_limit(limit_nano: int) -> int:
    """``limit_nano`` in nanodollars; texts in USD are parsed by ``core.money.parse_usd`` before they come here."""
    if isinstance(limit_nano, bool) or not isinstance(limit_nano, int):
        raise InvalidRequest("limit_usd: the limit is a whole number of nanodollars.", param="limit_usd")
    if not 0 <= limit_nano <= MAX_NANO:
        raise InvalidRequest(
            "limit_usd: the limit must be zero or more, and at most 9.2 billion USD.", param="limit_usd"
        )
    return limit_nano


def checked_thresholds(thresholds: Iterable[int]) -> list[int]:
    """Percentages, ascending and each once."""
    if isinstance(thresholds, str) or not isinstance(thresholds, Iterable):
        raise InvalidRequest(
            "thresholds: write a list of percentages, such as [50, 80, 100].", param="thresholds"
        )
    found = list(thresholds)
    for item in found:
        if isinstance(item, bool) or not isinstance(item, int) or not 1 <= item <= _HIGHEST_THRESHOLD:
            raise InvalidRequest(
                f"thresholds: {str(item)[:40]!r} is not a whole percentage from 1 to {_HIGHEST_THRESHOLD}.",
                param="thresholds",
            )
    if len(found) > _MOST_THRESHOLDS:
        raise InvalidRequest(f"thresholds: at most {_MOST_THRESHOLDS} are kept.", param="thresholds")
    return sorted(set(found))


def checked_addresses(addresses: Iterable[str]) -> list[str]:
    """E-mail addresses, each once, in the order given."""
    if isinstance(addresses, str) or not isinstance(addresses, Iterable):
        raise InvalidRequest(
            "notify: write a list of e-mail addresses, such as [finance@example.com].", param="notify"
        )
    found = list(dict.fromkeys(one.strip() if isinstance(one, str) else one for one in addresses))
    for one in found:
        if not isinstance(one, str) or not _ADDRESS.fullmatch(one):
            raise InvalidRequest(f"notify: {str(one)[:80]!r} is not an e-mail address.", param="notify")
    if len(found) > _MOST_ADDRESSES:
        raise InvalidRequest(f"notify: at most {_MOST_ADDRESSES} addresses are told.", param="notify")
    return found


def checked_route(slug: str) -> str:
    """The slug of a route, or nothing."""
    if not isinstance(slug, str) or (slug and not _SLUG.fullmatch(slug)):
        raise InvalidRequest(
            f"at_limit_route: {str(slug)[:80]!r} can not be the slug of a route. Leave it empty to refuse calls.",
            param="at_limit_route",
        )
    return slug


def checked_carry_over(carry_over_nano: int) -> int:
    if isinstance(carry_over_nano, bool) or not isinstance(carry_over_nano, int):
        raise InvalidRequest(
            "carry_over_usd: the cap is a whole number of nanodollars.", param="carry_over_usd"
        )
    if not 0 <= carry_over_nano <= MAX_NANO // 2:
        raise InvalidRequest(
            "carry_over_usd: the cap must be zero (nothing is carried over) or more, and at most 4.6 billion USD.",
            param="carry_over_usd",
        )
    return carry_over_nano


def checked_raise(
    amount_nano: int, starts_at: datetime, ends_at: datetime, *, now: datetime, limit_nano: int
) -> None:
    """A raise of so much for so long. Moments know their zone."""
    if isinstance(amount_nano, bool) or not isinstance(amount_nano, int) or amount_nano < 1:
        raise InvalidRequest("amount_usd: say by how much, more than zero.", param="amount_usd")
    if amount_nano > MAX_NANO - limit_nano:
        raise InvalidRequest("amount_usd: a limit is at most 9.2 billion USD.", param="amount_usd")
    for name, moment in (("starts_at", starts_at), ("ends_at", ends_at)):
        if moment.tzinfo is None:
            raise InvalidRequest(f"{name}: say in which time zone, such as 2026-12-01T18:00Z.", param=name)
    if ends_at <= now:
        raise InvalidRequest("ends_at: this moment is over already.", param="ends_at")
    if ends_at <= starts_at:
        raise InvalidRequest("ends_at: the raise must end after it starts.", param="ends_at")
    if ends_at > now + _LONGEST_RAISE:
        raise InvalidRequest(
            "ends_at: a raise lasts a year at most. For longer, change the budget's limit.", param="ends_at"
        )


def refuse_without_effect(hard: bool, period: str, at_limit_route: str, carry_over_nano: int) -> None:
    """A soft budget refuses nothing and leases nothing: it has no limit to act at, and nothing exact to carry over."""
    if not hard and at_limit_route:
        raise InvalidRequest(
            "at_limit_route: a soft budget only tells. Make it hard, or leave the route empty.",
            param="at_limit_route",
        )
    if carry_over_nano and not hard:
        raise InvalidRequest(
            "carry_over_usd: only a hard budget carries over. Make it hard, or set zero.",
            param="carry_over_usd",
        )
    if carry_over_nano and period == ONCE:
        raise InvalidRequest(
            "carry_over_usd: a budget that never resets has no next period. Set zero.", param="carry_over_usd"
        )


def checked_scope(kind: str, value: str) -> tuple[str, str]:
    """``(scope kind, value)`` without outer blanks."""
    kinds = [name for name, _ in SCOPE_KINDS]
    if kind not in kinds:
        raise InvalidRequest(f"scope_kind: {kind!r} is not one of {', '.join(kinds)}.", param="scope_kind")
    if not isinstance(value, str):
        raise InvalidRequest("scope_value: this must be text.", param="scope_value")
    value = value.strip()
    if kind == ORGANISATION and value:
        raise InvalidRequest(
            "scope_value: leave this empty, because the budget spans the whole organisation.",
            param="scope_value",
        )
    if kind != ORGANISATION and not value:
        raise InvalidRequest(f"scope_value: say which {kind} the budget is for.", param="scope_value")
    if len(value) > _LONGEST_VALUE or not value.isprintable():
        raise InvalidRequest(
            f"scope_value: at most {_LONGEST_VALUE} printable characters.", param="scope_value"
        )
    if kind == ROUTE and not _SLUG.fullmatch(value):
        raise InvalidRequest(
            f"scope_value: {value[:80]!r} can not be the slug of a route.", param="scope_value"
        )
    return kind, value


def checked_uuid(value: str) -> UUID:
    try:
        return UUID(value)
    except ValueError:
        raise InvalidRequest(
            f"scope_value: {value[:80]!r} is not the id of a service key. Copy it from the key's page.",
            param="scope_value",
        ) from None


def refuse_misplaced_project(kind: str, owner: Any, given: Any) -> None:
    """A project given beside a scope must be the one the scope belongs to; the organisation's has none."""
    if given is None:
        return
    if kind == ORGANISATION:
        raise InvalidRequest(
            "project: leave this empty, because the budget spans the whole organisation.", param="project"
        )
    if kind in (PROJECT, KEY) and given != owner:
        raise InvalidRequest(
            f"project: the {kind} named as the scope belongs to another project, or does not exist.",
            param="project",
        )
