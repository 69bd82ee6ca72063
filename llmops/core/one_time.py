"""One-time passwords by time (RFC 6238, on RFC 4226), and recovery codes. Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import struct
from urllib.parse import quote, urlencode

STEP_S, DIGITS, SEED_BYTES = 30, 6, 20
#: Clocks of phones are off; so many steps before and after the present one are taken.
WINDOW = 1
RECOVERY_CODES = 10


def new_seed() -> bytes:
    return secrets.token_bytes(SEED_BYTES)


def code_at(seed: bytes, step: int, *, digits: int = DIGITS) -> str:
    """The code of a step (30 s since 1970)."""
    mac = hmac.new(seed, struct.pack(">Q", step), hashlib.sha1).digest()
    offset = mac[-1] & 0x0F
    number = struct.unpack(">I", mac[offset : offset + 4])[0] & 0x7FFFFFFF
    return str(number % 10**digits).zfill(digits)


def step_of(seed: bytes, code: str, now: float, *, after: int = 0) -> int | None:
    """The step whose code this is, around ``now`` (Unix seconds) and later than the step ``after``; None: it is none.

    Whoever asks keeps the step: a code is taken once (RFC 6238, 5.2).
    """
    present = int(now) // STEP_S
    found = None
    for step in range(present - WINDOW, present + WINDOW + 1):
        # All are compared, so that the time taken says nothing.
        if hmac.compare_digest(code_at(seed, step).encode(), code.encode()) and step > after:
            found = step
    return found


def shown_seed(seed: bytes) -> str:
    """The seed as people type it into an app: base32 in groups of four."""
    text = base64.b32encode(seed).decode()
    return " ".join(text[at : at + 4] for at in range(0, len(text), 4))


def provisioning_uri(seed: bytes, *, issuer: str, account: str) -> str:
    """What the QR code holds (Google Authenticator's "Key URI Format")."""
    label = quote(f"{issuer}:{account}")
    asked = {"secret": base64.b32encode(seed).decode(), "issuer": issuer, "digits": DIGITS, "period": STEP_S}
    return f"otpauth://totp/{label}?{urlencode(asked, quote_via=quote)}"


def new_recovery_codes() -> list[str]:
    """Codes of 80 random bits each, so that a plain fast hash of them may be stored."""
    made = []
    for _ in range(RECOVERY_CODES):
        text = base64.b32encode(secrets.token_bytes(10)).decode().lower()
        made.append("-".join(text[at : at + 4] for at in range(0, 16, 4)))
    return made


def recovery_hash(code: str) -> str | None:
    """SHA-256 hex of a recovery code however it was typed; None for what is none."""
    plain = "".join(code.lower().split()).replace("-", "")
    if len(plain) != 16 or not plain.isascii() or not plain.isalnum():
        return None
    return hashlib.sha256(plain.encode()).hexdigest()
