"""System checks: bad settings become a sentence with an id and a hint (invariant 11)."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.core.exceptions import ImproperlyConfigured

from llmops.access.rules import ROLES
from llmops.base.master_keys import MasterKeysLost, master_keys
from llmops.base.requests import trusted_networks
from llmops.core.errors import ConfigurationRefused


@register()
def settings_are_usable(**_: Any) -> list[CheckMessage]:
    found = [*_keys(), *_proxies()]
    found += _gateway_url()
    found += _sign_in()
    found += [
        Error(
            f"{variable} is {value}; it must be at least {least}.",
            hint="docs/operations.md says what it stands for.",
            id="console.E004",
        )
        for variable, value, least in _lower_bounds()
        if value < least
    ]
    return found


def _keys() -> list[CheckMessage]:
    found: list[CheckMessage] = []
    secret_key = _secret_key()
    if len(secret_key) < 32:
        found.append(
            Error(
                "CONSOLE_SECRET_KEY is missing or shorter than 32 characters.",
                hint="Set it to a long random text, the same for every process of this installation.",
                id="console.E001",
            )
        )
    try:
        master_keys()
    except ConfigurationRefused as refusal:
        # Both stand in the file that is to be put back, so that is all there is to say.
        if isinstance(refusal, MasterKeysLost) and not secret_key and settings.MASTER_KEYS_FILE:
            found.clear()
        found.append(Error(refusal.message, id="console.E002"))
    return found


def _gateway_url() -> list[CheckMessage]:
    with suppress(ValueError):
        parts = urlsplit(settings.GATEWAY_URL)
        plain = not (parts.query or parts.fragment or parts.username)
        if parts.scheme in ("http", "https") and parts.hostname and plain and parts.port != 0:
            return []
    return [
        Error(
            "CONSOLE_GATEWAY_URL is no address of a data plane.",
            hint="Such as http://gateway:8000/v1, as the process that serves pages reaches it.",
            id="console.E009",
        )
    ]


def _proxies() -> list[CheckMessage]:
    try:
        trusted_networks(tuple(settings.TRUSTED_PROXIES))
    except ValueError as refusal:
        return [
            Error(
                f"CONSOLE_TRUSTED_PROXIES cannot be read: {refusal}.",
                hint="Addresses or networks with commas, such as 10.0.0.0/8,192.0.2.1; unix for a Unix socket.",
                id="console.E003",
            )
        ]
    return []


def _sign_in() -> list[CheckMessage]:
    found: list[CheckMessage] = []
    unknown = sorted(set(settings.SECOND_FACTOR_REQUIRED) - {"all", *ROLES})
    if unknown:
        found.append(
            Error(
                f"CONSOLE_SECOND_FACTOR_REQUIRED names {unknown[0]!r}, which is no role.",
                hint=f"all, or some of {', '.join(ROLES)} with commas.",
                id="console.E005",
            )
        )
    if settings.PASSKEY_VERIFICATION not in ("preferred", "required", "discouraged"):
        found.append(
            Error(
                f"CONSOLE_PASSKEY_VERIFICATION is {settings.PASSKEY_VERIFICATION!r}.",
                hint="preferred, required or discouraged.",
                id="console.E007",
            )
        )
    if settings.PASSKEY_ORIGINS:
        from llmops.access.passkeys import wrong_settings

        found += [
            Error(
                f"CONSOLE_PASSKEY_ORIGINS: {wrong}",
                hint="Such as https://console.example.com, as the browser's address bar has it.",
                id="console.E008",
            )
            for wrong in wrong_settings()
        ]
    if settings.OIDC_ISSUER:
        # Reading tokens takes a library that only this sign-in needs.
        from llmops.access.oidc import role_mapping

        try:
            refusal = (
                ""
                if role_mapping(settings.OIDC_ROLES)
                else "CONSOLE_OIDC_ROLES is empty: nobody could sign in."
            )
        except ConfigurationRefused as refused:
            refusal = refused.message
        if not settings.OIDC_CLIENT_ID:
            refusal = "CONSOLE_OIDC_CLIENT_ID is missing."
        if refusal:
            found.append(
                Error(
                    refusal,
                    hint="Such as llmops-admins=admin,support-ops=operator@support",
                    id="console.E006",
                )
            )
    return found


def _lower_bounds() -> list[tuple[str, int, int]]:
    return [
        ("CONSOLE_LEASE_SECONDS", settings.LEASE_SECONDS, 10),
        ("CONSOLE_CALL_RETENTION_DAYS", settings.CALL_RETENTION_DAYS, 1),
        ("CONSOLE_MINUTE_ROLLUP_DAYS", settings.MINUTE_ROLLUP_DAYS, 0),
        ("CONSOLE_MAX_REQUEST_BYTES", settings.MAX_REQUEST_BYTES, 1024),
        ("CONSOLE_MAX_MEDIA_BYTES", settings.MAX_MEDIA_BYTES, 1024),
        ("CONSOLE_MAX_API_BYTES", settings.MAX_API_BYTES, 1024),
        # Half of it is for one key alone, which must be able to send what may be sent.
        ("CONSOLE_BODY_BYTES", settings.BODY_BYTES, 2 * settings.MAX_REQUEST_BYTES),
        (
            "CONSOLE_SPOOL_BYTES",
            settings.SPOOL_BYTES,
            2 * max(settings.MAX_UPLOAD_BYTES, settings.MAX_MEDIA_BYTES),
        ),
        ("CONSOLE_CACHE_BYTES", settings.CACHE_BYTES, 0),
        ("CONSOLE_IDEMPOTENCY_SECONDS", settings.IDEMPOTENCY_SECONDS, 1),
        ("CONSOLE_IDEMPOTENCY_BYTES", settings.IDEMPOTENCY_BYTES, 0),
        ("CONSOLE_DRAIN_SECONDS", settings.DRAIN_SECONDS, 0),
        ("CONSOLE_PLAYGROUND_RUN_HOURS", settings.PLAYGROUND_RUN_HOURS, 1),
        ("CONSOLE_PLAYGROUND_SETUP_DAYS", settings.PLAYGROUND_SETUP_DAYS, 1),
        ("CONSOLE_PLAYGROUND_RUNS_PER_MINUTE", settings.PLAYGROUND_RUNS_PER_MINUTE, 1),
        ("CONSOLE_PLAYGROUND_UNWATCHED_SECONDS", settings.PLAYGROUND_UNWATCHED_SECONDS, 15),
    ]


def _secret_key() -> str:
    try:
        return settings.SECRET_KEY
    except ImproperlyConfigured:
        # Django refuses to hand out an empty one, with a sentence that does not name the variable.
        return ""
