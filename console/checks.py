"""System checks: bad settings become a sentence with an id and a hint (invariant 11)."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from llmops.base.crypto import MasterKeys
from llmops.core.errors import ConfigurationRefused


@register()
def settings_are_usable(**_: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    if len(settings.SECRET_KEY) < 32:
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
