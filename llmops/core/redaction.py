"""Taking secrets out of what is about to be shown or written.

Key shapes as published by their makers (November 2026). Detection of personal data belongs to policies.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MASK = "[redacted]"

SECRET_FIELDS = re.compile(
    r"(secret|password|passwd|api_?key|authorization|token$|private_key|ciphertext|credential_value|cookie|session_?key|csrf)",
    re.IGNORECASE,
)
#: Fields whose name looks secret but whose value is a count or a limit.
_NOT_SECRET = re.compile(
    r"(max|min|total|input|output|cached|prompt|completion|reasoning)_.*tokens?$", re.IGNORECASE
)

SECRET_SHAPES = re.compile(
    r"""(?x)
    \bsk-(?:proj-|svcacct-|admin-|ant-[a-z0-9]+-)?[A-Za-z0-9_-]{20,}   # OpenAI, Anthropic
    | \bllmops_[a-z0-9]{8}_[A-Za-z0-9_-]{20,}                            # service keys of this console
    | \bgh[pousr]_[A-Za-z0-9]{36,}\b | \bgithub_pat_[A-Za-z0-9_]{40,}  # GitHub
    | \b(?:AKIA|ASIA)[0-9A-Z]{16}\b                                    # AWS access key ids
    | \bxox[abprs]-[A-Za-z0-9-]{10,}                                   # Slack
    | \bAIza[0-9A-Za-z_-]{35}                                          # Google
    | \bhvs\.[A-Za-z0-9_-]{20,}                                        # HashiCorp Vault
    | \beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}     # JSON Web Token
    | -----BEGIN[A-Z ]*PRIVATE\ KEY-----[\s\S]*?(?:-----END[A-Z ]*PRIVATE\ KEY-----|$)
    | (?<=[Bb]earer\ )[A-Za-z0-9._~+/=-]{12,}
    """
)
_URL_PASSWORD = re.compile(r"(?<=://)([^:/@\s]+):([^@/\s]+)@")


def redact_text(text: str) -> str:
    """``text`` with everything that has the shape of a secret replaced by ``[redacted]``."""
    return _URL_PASSWORD.sub(rf"\1:{MASK}@", SECRET_SHAPES.sub(MASK, text))


def redact(value: Any) -> Any:
    """A copy of JSON-like ``value``: values of secret-named fields masked, all text passed through ``redact_text``."""
    if isinstance(value, Mapping):
        return {
            key: MASK
            if isinstance(key, str)
            and item not in (None, "", [], {})
            and not isinstance(item, bool)
            and SECRET_FIELDS.search(key)
            and not _NOT_SECRET.search(key)
            else redact(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact(item) for item in value]
    if isinstance(value, str):
        return redact_text(value)
    return value
