"""The form of a service key's secret: ``llmops_<8 lowercase letters or digits>_<43 characters of base64url>``.

The first two parts are the prefix, which may be shown; the third holds 256 random bits. A secret may also be declared by
whoever applies a configuration; it must then be long enough to withstand guessing against a plain hash.
"""

from __future__ import annotations

import re
import secrets
import string

from llmops.core.errors import InvalidRequest

SHORTEST_DECLARED, LONGEST_DECLARED = 24, 200
_FEWEST_DIFFERENT = 8
_ALPHABET = string.ascii_lowercase + string.digits
GENERATED = re.compile(r"llmops_[a-z0-9]{8}_[A-Za-z0-9_-]{43}")
_BEARER = re.compile(r"[A-Za-z0-9._~+/=-]+")


def new_secret() -> str:
    tag = "".join(secrets.choice(_ALPHABET) for _ in range(8))
    return f"llmops_{tag}_{secrets.token_urlsafe(32)}"


def prefix_of(secret: str) -> str:
    """What may be shown of ``secret``: the prefix of a generated one, four characters of a declared one."""
    return secret[:15] if GENERATED.fullmatch(secret) else secret[:4]


def check_declared(secret: str) -> str:
    """``secret`` if it can be a bearer token and withstands guessing; the refusal never repeats it."""
    if not SHORTEST_DECLARED <= len(secret) <= LONGEST_DECLARED:
        raise InvalidRequest(
            f"A declared secret has {SHORTEST_DECLARED} to {LONGEST_DECLARED} characters; this one has {len(secret)}.",
            param="secret",
        )
    # RFC 6750, section 2.1: what a bearer token may be made of.
    if not _BEARER.fullmatch(secret):
        raise InvalidRequest(
            "A declared secret is made of letters, digits and . _ ~ + / = - only, without spaces.",
            param="secret",
        )
    if len(set(secret)) < _FEWEST_DIFFERENT:
        raise InvalidRequest(
            f"A declared secret needs at least {_FEWEST_DIFFERENT} different characters; generate it at random.",
            param="secret",
        )
    return secret
