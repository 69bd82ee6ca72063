"""The fixed vocabulary of providers, and decisions about models that need no database."""

from __future__ import annotations

import re

PROVIDER_KINDS = [
    ("openai", "OpenAI"),
    ("azure", "Azure OpenAI"),
    ("compatible", "OpenAI-compatible"),
    ("simulator", "Simulator (not a real model)"),
]
CREDENTIAL_SOURCES = [
    ("sealed", "Kept here, encrypted"),
    ("env", "Environment variable"),
    ("file", "File"),
    ("vault", "HashiCorp Vault"),
    ("aws", "AWS Secrets Manager"),
]
CREDENTIAL_STATES = [
    ("staged", "Staged"),
    ("probed", "Probed"),
    ("active", "Active"),
    ("draining", "Draining"),
    ("revoked", "Revoked"),
]
#: state -> states it may become
CREDENTIAL_MOVES: dict[str, frozenset[str]] = {
    "staged": frozenset({"probed", "active", "revoked"}),
    "probed": frozenset({"active", "revoked"}),
    "active": frozenset({"draining", "revoked"}),
    "draining": frozenset({"active", "revoked"}),
    "revoked": frozenset(),
}

INPUT, CACHED_INPUT, CACHE_WRITE, OUTPUT, REASONING = (
    "input",
    "cached_input",
    "cache_write",
    "output",
    "reasoning",
)
TOKEN_CLASSES = [
    (INPUT, "Input"),
    (CACHED_INPUT, "Cached input"),
    (CACHE_WRITE, "Cache write"),
    (OUTPUT, "Output"),
    (REASONING, "Reasoning"),
    ("audio_input", "Audio input"),
    ("audio_output", "Audio output"),
    ("image_input", "Image input"),
    ("image_output", "Image output"),
    ("batch_input", "Batch input"),
    ("batch_output", "Batch output"),
]

CAPABILITIES = ("chat", "stream", "tools", "json_schema", "vision", "audio", "reasoning", "embeddings")

_DATED = re.compile(r"(\d{4}-\d{2}-\d{2}|-\d{4}$|@\d+|:[0-9a-f]{8,}|-\d{3}$)")


def looks_floating(kind: str, upstream_model: str) -> bool:
    """Whether a name may change its meaning at the provider: OpenAI's and Azure's names without a date do.

    Embedding models carry their generation in the name and are not re-pointed; simulator and self-hosted names are
    whatever their operator says.
    """
    if kind not in ("openai", "azure"):
        return False
    if upstream_model.startswith(("text-embedding-", "ft:")):
        return False
    return _DATED.search(upstream_model) is None
