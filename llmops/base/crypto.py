"""Secrets at rest: AES-256-GCM under versioned master keys.

A sealed value is the text ``v1.<key id>.<base64url(nonce || ciphertext || tag)>``. The identity of the row that holds it
is the associated data, so a sealed value copied into another row does not open there (NIST SP 800-38D; 96-bit random
nonces, one per sealing). The first key configured seals; every configured key opens, so keys can be rotated online.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from llmops.core.errors import ConfigurationRefused

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_VERSION = "v1"
_NONCE_BYTES = 12
_TAG_BYTES = 16


class MasterKeyUnfit(ConfigurationRefused):
    """What was sealed under ``key_id`` does not open; ``fault`` says why, as the second half of a sentence."""

    def __init__(self, message: str, *, key_id: str, fault: str) -> None:
        super().__init__(message)
        self.key_id, self.fault = key_id, fault


class MasterKeys:
    """The keys this process holds: ``{key id: 32 bytes}``, the first of which is active."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        if not keys:
            raise ConfigurationRefused(
                "No master key is configured. Set CONSOLE_MASTER_KEYS to id:base64-of-32-bytes, for example the output "
                "of: ./dev manage masterkey new"
            )
        for key_id, key in keys.items():
            if len(key) != 32:
                raise ConfigurationRefused(
                    f"Master key {key_id!r} has {len(key)} bytes; 32 are needed (base64 in CONSOLE_MASTER_KEYS)."
                )
        self._keys = dict(keys)
        self._ciphers: dict[str, AESGCM] = {}
        self.active_id = next(iter(keys))

    def __repr__(self) -> str:
        return f"MasterKeys(active={self.active_id!r}, ids={sorted(self._keys)})"

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(self._keys)

    @classmethod
    def parse(cls, text: str) -> MasterKeys:
        """Keys from ``id:base64[,id:base64...]``; refuses with a sentence that never shows key material."""
        keys: dict[str, bytes] = {}
        for position, item in enumerate(filter(None, (part.strip() for part in text.split(","))), start=1):
            key_id, separator, encoded = item.partition(":")
            if not separator or not key_id or "." in key_id:
                raise ConfigurationRefused(
                    f"CONSOLE_MASTER_KEYS, item {position}: expected id:base64-of-32-bytes (the id without dots)."
                )
            if key_id in keys:
                raise ConfigurationRefused(f"CONSOLE_MASTER_KEYS names the key id {key_id!r} twice.")
            try:
                keys[key_id] = base64.b64decode(encoded, validate=True)
            except binascii.Error:
                raise ConfigurationRefused(
                    f"CONSOLE_MASTER_KEYS: the key {key_id!r} is not valid base64."
                ) from None
        return cls(keys)

    def _cipher(self, key_id: str) -> AESGCM:
        if key_id not in self._ciphers:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            self._ciphers[key_id] = AESGCM(self._keys[key_id])
        return self._ciphers[key_id]

    def seal(self, plaintext: str, *, identity: str) -> str:
        """Sealed text of ``plaintext``, bound to ``identity`` (for example ``providers.credential:<id>``)."""
        nonce = os.urandom(_NONCE_BYTES)
        body = self._cipher(self.active_id).encrypt(nonce, plaintext.encode(), identity.encode())
        return f"{_VERSION}.{self.active_id}.{base64.urlsafe_b64encode(nonce + body).decode()}"

    def open(self, sealed: str, *, identity: str) -> str:
        """Plaintext of ``sealed``. Raises ``ConfigurationRefused`` naming the key id that is missing or wrong."""
        key_id, body = split_sealed(sealed)
        if key_id not in self._keys:
            present = ", ".join(sorted(self._keys))
            raise MasterKeyUnfit(
                f"The master key {key_id!r} is needed to read a stored secret and is not in CONSOLE_MASTER_KEYS "
                f"(present: {present}). Add it back.",
                key_id=key_id,
                fault=f"which is not there (only {present})",
            )
        # Loads OpenSSL (7 MB), which processes that never open a secret do without.
        from cryptography.exceptions import InvalidTag

        try:
            return (
                self._cipher(key_id)
                .decrypt(body[:_NONCE_BYTES], body[_NONCE_BYTES:], identity.encode())
                .decode()
            )
        except InvalidTag:
            raise MasterKeyUnfit(
                f"The master key {key_id!r} does not open a secret that was stored under it: the key in "
                "CONSOLE_MASTER_KEYS is not the one that was used, or the stored value was altered.",
                key_id=key_id,
                fault="and what is there under that name is another key",
            ) from None


def split_sealed(sealed: str) -> tuple[str, bytes]:
    """``(key id, nonce || ciphertext || tag)`` of a sealed text."""
    try:
        version, key_id, encoded = sealed.split(".")
        if version != _VERSION:
            raise ValueError(version)
        body = base64.b64decode(encoded, altchars=b"-_", validate=True)
        if len(body) < _NONCE_BYTES + _TAG_BYTES:
            raise ValueError("too short")
        return key_id, body
    except ValueError:
        raise ConfigurationRefused("A stored secret is not in a form this version can read.") from None


def new_master_key(key_id: str) -> str:
    """A fresh entry for CONSOLE_MASTER_KEYS."""
    return f"{key_id}:{base64.b64encode(os.urandom(32)).decode()}"
