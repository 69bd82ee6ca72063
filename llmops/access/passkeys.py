"""Passkeys (WebAuthn Level 2): what is asked of a browser, and whether what it answers is so. Without a database.

The library (``fido2``) checks type, challenge, origin, relying party, presence and signature; what is checked here besides is
that the algorithm was offered, and the counter. It is imported when somebody uses a passkey, since few processes ever see one.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings

from llmops.core.errors import ConfigurationRefused, InvalidRequest

NAME = "LLMOps Console"
#: Of a credential id in bytes (WebAuthn section 5.8.3 bounds it so).
LONGEST_ID = 1023
_LOCAL = re.compile(r"https?://localhost(:\d{1,5})?")
_TRANSPORTS = frozenset(("usb", "nfc", "ble", "smart-card", "hybrid", "internal"))
_NOT_SO = "Your browser's answer could not be taken. Begin again."


@dataclass(frozen=True, slots=True)
class Known:
    """A passkey as it is kept: ``data`` is the attested credential data (AAGUID, id and public key), ``count`` its counter."""

    credential_id: str
    data: bytes
    transports: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Registered:
    credential_id: str
    data: bytes
    count: int
    transports: tuple[str, ...]
    synced: bool


@dataclass(frozen=True, slots=True)
class Asserted:
    credential_id: str
    count: int
    verified: bool


def usable_at(origin: str) -> bool:
    """Whether passkeys work where the console is open as ``origin`` (``https://console.example.com``)."""
    allowed = settings.PASSKEY_ORIGINS
    return origin in allowed if allowed else _LOCAL.fullmatch(origin) is not None


def relying_party() -> str:
    """The domain to which passkeys are bound; with nothing configured they work on ``localhost`` alone."""
    allowed = settings.PASSKEY_ORIGINS
    return settings.PASSKEY_DOMAIN or (urlsplit(allowed[0]).hostname or "" if allowed else "localhost")


def wrong_settings() -> list[str]:
    """What is wrong with the settings, in words."""
    found = []
    for origin in settings.PASSKEY_ORIGINS:
        parts = urlsplit(origin)
        host = parts.hostname or ""
        if parts.scheme not in ("https", "http") or not host or origin != f"{parts.scheme}://{parts.netloc}":
            found.append(f"{origin!r} is no origin such as https://console.example.com.")
        elif parts.scheme == "http" and host != "localhost":
            found.append(f"{origin!r}: browsers use passkeys over TLS only.")
        elif host != relying_party() and not host.endswith(f".{relying_party()}"):
            found.append(f"{origin!r} does not lie in the domain {relying_party()!r} of passkeys.")
        elif re.fullmatch(r"[\d.]+|\[.*\]|.*:.*", host):
            found.append(f"{origin!r}: passkeys are bound to a name, and this is an address.")
    return found


def registration_options(
    *, user_handle: bytes, name: str, shown: str, known: Iterable[Known]
) -> tuple[dict[str, Any], str]:
    """What ``navigator.credentials.create`` is given, and the challenge to keep; those that are ``known`` are not made again."""
    from fido2.webauthn import (
        PublicKeyCredentialUserEntity,
        ResidentKeyRequirement,
        UserVerificationRequirement,
    )

    options, state = _server().register_begin(
        PublicKeyCredentialUserEntity(id=user_handle, name=name, display_name=shown or name),
        credentials=[_descriptor(one) for one in known],
        resident_key_requirement=ResidentKeyRequirement.PREFERRED,
        user_verification=UserVerificationRequirement(settings.PASSKEY_VERIFICATION),
    )
    return dict(options), state["challenge"]


def registered(answer: Mapping[str, Any], *, challenge: str) -> Registered:
    """The new passkey of the browser's ``answer``. Raises ``InvalidRequest`` for whatever is not so."""
    from fido2.cose import UnsupportedKey

    with _refusing():
        made = _server().register_complete(_state(challenge), answer)
        credential = made.credential_data
        if credential is None or isinstance(credential.public_key, UnsupportedKey):
            raise ValueError("no key of a kind that was asked for")
        if not 0 < len(credential.credential_id) <= LONGEST_ID:
            raise ValueError("no credential id")
        given = answer.get("response", {}).get("transports") or []
        return Registered(
            credential_id=text_of(credential.credential_id),
            data=bytes(credential),
            count=made.counter,
            transports=tuple(sorted(_TRANSPORTS & {str(one) for one in given if isinstance(one, str)})),
            synced=bool(made.flags & made.FLAG.BS),
        )


def assertion_options(known: Iterable[Known]) -> tuple[dict[str, Any], str]:
    """What ``navigator.credentials.get`` is given, and the challenge to keep."""
    from fido2.webauthn import UserVerificationRequirement

    options, state = _server().authenticate_begin(
        [_descriptor(one) for one in known],
        user_verification=UserVerificationRequirement(settings.PASSKEY_VERIFICATION),
    )
    return dict(options), state["challenge"]


def asserted(answer: Mapping[str, Any], *, challenge: str, known: Iterable[Known]) -> Asserted:
    """Which of the passkeys that are ``known`` signed ``challenge``. Raises ``InvalidRequest`` for whatever is not so."""
    from fido2.webauthn import AttestedCredentialData, AuthenticationResponse

    with _refusing():
        found = _server().authenticate_complete(
            _state(challenge), [AttestedCredentialData(one.data) for one in known], answer
        )
        data = AuthenticationResponse.from_dict(answer).response.authenticator_data
        return Asserted(text_of(found.credential_id), data.counter, data.is_user_verified())


def text_of(credential_id: bytes) -> str:
    return base64.urlsafe_b64encode(credential_id).rstrip(b"=").decode()


class _refusing:  # noqa: N801 - reads as a statement
    """Whatever goes wrong while a browser's answer is read is the answer's fault."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, raised: BaseException | None, trace: Any) -> None:
        if isinstance(raised, Exception) and not isinstance(raised, InvalidRequest | ConfigurationRefused):
            raise InvalidRequest(f"passkey: {_NOT_SO}", param="passkey") from None


def _server() -> Any:
    from fido2.server import Fido2Server
    from fido2.webauthn import PublicKeyCredentialRpEntity

    return Fido2Server(PublicKeyCredentialRpEntity(id=relying_party(), name=NAME), verify_origin=usable_at)


def _descriptor(one: Known) -> Any:
    from fido2.utils import websafe_decode
    from fido2.webauthn import AuthenticatorTransport, PublicKeyCredentialDescriptor, PublicKeyCredentialType

    return PublicKeyCredentialDescriptor(
        type=PublicKeyCredentialType.PUBLIC_KEY,
        id=websafe_decode(one.credential_id),
        transports=[AuthenticatorTransport(name) for name in one.transports] or None,
    )


def _state(challenge: str) -> dict[str, Any]:
    # Without this, an answer to the empty challenge would fit where none was given out.
    if not challenge:
        raise InvalidRequest(f"passkey: {_NOT_SO}", param="passkey")
    return {"challenge": challenge, "user_verification": settings.PASSKEY_VERIFICATION}
