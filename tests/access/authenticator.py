"""An authenticator in software (ES256), which does what it is told, also what none should."""

from __future__ import annotations

import os
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fido2.cose import ES256
from fido2.utils import sha256, websafe_encode
from fido2.webauthn import AttestationObject, AttestedCredentialData, AuthenticatorData, CollectedClientData

FLAG = AuthenticatorData.FLAG


class Authenticator:
    def __init__(self, *, counter: int = 1) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.credential_id = os.urandom(32)
        #: 0: it counts nothing
        self.counter = counter

    def make(self, options: dict[str, Any], **how: Any) -> dict[str, Any]:
        """Answers ``navigator.credentials.create``."""
        asked = options["publicKey"]
        credential = AttestedCredentialData.create(
            b"\0" * 16, self.credential_id, ES256.from_cryptography_key(self.key.public_key())
        )
        data = self._data(asked["rp"]["id"], FLAG.AT, credential, **how)
        client = self._client(CollectedClientData.TYPE.CREATE, asked["challenge"], **how)
        attested = AttestationObject.create("none", data, {})
        return self._answer(
            client, attestationObject=websafe_encode(bytes(attested)), transports=["usb", "strange"]
        )

    def sign(self, options: dict[str, Any], **how: Any) -> dict[str, Any]:
        """Answers ``navigator.credentials.get``."""
        asked = options["publicKey"]
        if self.counter:
            self.counter += 1
        data = self._data(asked["rpId"], FLAG(0), b"", **how)
        client = self._client(CollectedClientData.TYPE.GET, asked["challenge"], **how)
        signature = self.key.sign(bytes(data) + sha256(bytes(client)), ec.ECDSA(hashes.SHA256()))
        return self._answer(
            client, authenticatorData=websafe_encode(bytes(data)), signature=websafe_encode(signature)
        )

    def _data(self, domain: str, more: Any, credential: bytes, **how: Any) -> AuthenticatorData:
        flags = more | how.get("flags", FLAG.UP | FLAG.UV)
        return AuthenticatorData.create(
            sha256(how.get("rp", domain).encode()), flags, self.counter, credential
        )

    def _client(self, kind: str, asked: str, **how: Any) -> CollectedClientData:
        return CollectedClientData.create(
            how.get("type", kind), how.get("challenge", asked), how.get("origin", "http://localhost:8000")
        )

    def _answer(self, client: CollectedClientData, **response: Any) -> dict[str, Any]:
        named = websafe_encode(self.credential_id)
        return {
            "id": named,
            "rawId": named,
            "type": "public-key",
            "clientExtensionResults": {},
            "response": {"clientDataJSON": websafe_encode(bytes(client)), **response},
        }
