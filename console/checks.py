"""System checks: bad settings become a sentence with an id and a hint (invariant 11)."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.core.exceptions import ImproperlyConfigured

from llmops.base.crypto import MasterKeys
from llmops.core.errors import ConfigurationRefused


@register()
def settings_are_usable(**_: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    if len(_secret_key()) < 32:
        found.append(
            Error(
                "CONSOLE_SECRET_KEY is missing or shorter than 32 characters.",
                hint="Set it to a long random text, the same for every process of this installation.",
                id="console.E001",
            )
        )
    try:
        MasterKeys.parse(settings.MASTER_KEYS)
    except ConfigurationRefused as refusal:
        found.append(
            Error(
                refusal.message,
                hint="CONSOLE_MASTER_KEYS=id:base64-of-32-bytes[,older-id:...]",
                id="console.E002",
            )
        )
    return found


def _secret_key() -> str:
    try:
        return settings.SECRET_KEY
    except ImproperlyConfigured:
        # Django refuses to hand out an empty one, with a sentence that does not name the variable.
        return ""
