"""Canonical JSON and SHA-256 digests.

Canonical form: the JSON Canonicalization Scheme (RFC 8785) restricted to what the product hashes: objects with text
keys sorted by code point, no white space, UTF-8, integers in full, no NaN or infinity. Floats keep Python's shortest
representation, which agrees with RFC 8785 for the magnitudes configuration uses; amounts are integers anyway.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any


def canonical_json(value: Any) -> bytes:
    """UTF-8 bytes of ``value`` in canonical form. Raises ``ValueError``/``TypeError`` for what JSON cannot hold."""
    return json.dumps(
        value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    ).encode()


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest(value: Any) -> str:
    """SHA-256 (64 lowercase hex digits) of the canonical JSON of ``value``."""
    return sha256_hex(canonical_json(value))


def equal(left: str | bytes, right: str | bytes) -> bool:
    """Constant-time comparison of two secrets or digests."""
    as_bytes = [item.encode() if isinstance(item, str) else item for item in (left, right)]
    return hmac.compare_digest(*as_bytes)


def short_digest(text: str) -> int:
    """64 bits that stand for ``text`` where very many are kept, as the signed integer that databases have (BLAKE2b)."""
    return int.from_bytes(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big", signed=True
    )
