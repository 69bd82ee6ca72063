"""Money as integers.

An amount is a number of **nanodollars** (1 USD = 10**9); a price is nanodollars per **million tokens**. Both fit a
signed 64-bit column up to 9.2 billion USD. Text goes in and out at the edges only; floats never.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from .errors import InvalidRequest

NANO = 10**9
MILLION = 10**6
MAX_NANO = 2**63 - 1


def parse_usd(text: str | int | Decimal, *, field: str = "amount") -> int:
    """Exact nanodollars of a decimal amount of USD such as ``"2.50"``.

    Raises ``InvalidRequest`` naming ``field`` for floats, signs, exponents that lose precision, or overflow.
    """
    if isinstance(text, float | bool):
        raise InvalidRequest(
            f'{field}: write the amount as text, for example "2.50"; floating point cannot hold money exactly.',
            param=field,
        )
    try:
        value = Decimal(text if not isinstance(text, str) else text.strip())
    except (InvalidOperation, ValueError, TypeError):
        raise InvalidRequest(
            f"{field}: {str(text)[:40]!r} is not an amount of USD such as 2.50.", param=field
        ) from None
    if not value.is_finite() or value < 0:
        raise InvalidRequest(f"{field}: an amount of USD must be zero or more.", param=field)
    if value > MAX_NANO // NANO:
        raise InvalidRequest(f"{field}: the amount is larger than this system can hold.", param=field)
    nano = value * NANO
    if nano != nano.to_integral_value():
        raise InvalidRequest(f"{field}: at most 9 decimal places of a USD are kept.", param=field)
    return int(nano)


def format_usd(nano: int, *, places: int | None = None) -> str:
    """Text of an amount without a currency sign: exact by default, at least two decimals.

    With ``places`` the value is rounded half up to that many decimals.
    """
    sign, nano = ("-", -nano) if nano < 0 else ("", nano)
    if places is not None:
        step = 10 ** (9 - places)
        nano = (nano + step // 2) // step * step
        whole, rest = divmod(nano, NANO)
        return (
            f"{sign}{whole}.{rest:09d}"[: len(sign) + len(str(whole)) + 1 + places]
            if places
            else f"{sign}{whole}"
        )
    whole, rest = divmod(nano, NANO)
    decimals = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{decimals}"


def cost_nano(parts: list[tuple[int, int]]) -> int:
    """Cost of a call in nanodollars from ``(tokens, nanodollars per million tokens)`` parts, rounded up once."""
    total = sum(tokens * price for tokens, price in parts)
    return -(-total // MILLION)
