"""What an ``Idempotency-Key`` stands for: the name of its entry, the cipher of what is kept there, what was asked.

Answers are kept for a day although a project may keep no bodies: so they are sealed with a key made of the installation's secret
and of the ``Idempotency-Key`` itself, which is stored nowhere. Who has the ledger alone has nothing.
"""

from __future__ import annotations

import os
import re
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from llmops.core.errors import InvalidRequest, UnprocessableEntity
from llmops.core.once import quotes
from llmops.gateway.endpoints.base import Members, decode_any
from llmops.gateway.idempotency.ledger import Name

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HEADER = b"idempotency-key"
#: As it stands in errors.
SHOWN = "Idempotency-Key"
MAX_KEY = 255
#: Members of one request that are told apart; the rest of a body with more is one.
MAX_MEMBERS = 100
_KEY = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]{0,%d}[\x21-\x7e])?" % (MAX_KEY - 2))
_NONCE = 12
_SHOWN_MEMBERS = 5
#: Names under which what is no member stands in a fingerprint; no member of a body is called so.
_ENDPOINT, _REST = "\0endpoint", "\0rest"
_canonical = msgspec.json.Encoder(order="sorted").encode
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[str, bytes]).decode

Fingerprint = dict[str, bytes]


class Seal:
    """``installation`` is secret. Raises ``InvalidRequest`` for a key that is none."""

    __slots__ = ("_mac", "_secret", "name")

    def __init__(self, installation: bytes, project: str, key: bytes) -> None:
        key = key.strip()
        if not _KEY.fullmatch(key):
            raise InvalidRequest(
                f"{SHOWN}: must be 1 to {MAX_KEY} printable characters of ASCII, such as a UUID.", param=SHOWN
            )
        told = project.encode() + b"\0" + key
        self.name = Name(
            project, blake2b(told, key=installation, digest_size=16, person=b"idempotency id").digest()
        )
        self._secret = blake2b(told, key=installation, digest_size=32, person=b"idempotency key").digest()
        self._mac = blake2b(key=self._secret, digest_size=8, person=b"member").copy

    def seal(self, data: bytes) -> bytes:
        nonce = os.urandom(_NONCE)
        return nonce + _cipher(self._secret).encrypt(nonce, data, self.name.id)

    def open(self, sealed: bytes) -> bytes:
        """Raises ``ValueError`` for what was not sealed so."""
        from cryptography.exceptions import InvalidTag

        try:
            return _cipher(self._secret).decrypt(sealed[:_NONCE], sealed[_NONCE:], self.name.id)
        except InvalidTag as error:
            raise ValueError("not sealed under this key") from error

    def digest(self, before: bytes, file: bool) -> blake2b:
        """To be updated with the content of a part of a form; ``before`` is of the parts of the same name before it."""
        mac = self._mac()
        mac.update(before + (b"file" if file else b"text"))
        return mac

    def fingerprint(self, endpoint: str, members: Members) -> Fingerprint:
        """What tells a request from others, whatever the order of its members and its white space."""
        found = {_ENDPOINT: endpoint.encode()}
        rest = self._mac()
        for index, name in enumerate(sorted(members)):
            raw = bytes(members[name])
            told = _canonical(decode_any(raw))
            if quotes(told) != quotes(raw):
                # A member of it is given twice: readers may take either, so it is what it is byte by byte.
                told = raw
            if index < MAX_MEMBERS:
                mac = self._mac()
                mac.update(told)
                found[name] = mac.digest()
            else:
                rest.update(_canonical(name) + told)
                found[_REST] = b""
        if _REST in found:
            found[_REST] = rest.digest()
        return found

    def sealed(self, fingerprint: Fingerprint) -> bytes:
        return self.seal(_encode(fingerprint))

    def check(self, fingerprint: Fingerprint, sealed: bytes) -> None:
        """Raises ``UnprocessableEntity`` when the request first sent under the key was another, naming what differs.

        The status is that of draft-ietf-httpapi-idempotency-key-header-07, section 2.7. Raises ``ValueError`` as ``open`` does.
        """
        first = _decode(self.open(sealed))
        if first == fingerprint:
            return
        if first[_ENDPOINT] != fingerprint[_ENDPOINT]:
            what, param = f"one to {first[_ENDPOINT].decode()}", SHOWN
        else:
            names = sorted(
                name for name in first.keys() | fingerprint.keys() if first.get(name) != fingerprint.get(name)
            )
            shown = [name[:64] for name in names if not name.startswith("\0")] or ["a member"]
            more = f" and {len(shown) - _SHOWN_MEMBERS} more" if len(shown) > _SHOWN_MEMBERS else ""
            what, param = f"one that differs in {', '.join(shown[:_SHOWN_MEMBERS])}{more}", shown[0]
        raise UnprocessableEntity(
            f"This {SHOWN} was sent before with another request: {what}. Send that request again, or use a new key for "
            "this one.",
            param=param,
            code="idempotency_key_reused",
        )


def _cipher(secret: bytes) -> AESGCM:
    # Loaded with the first call that has such a key.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(secret)
