"""``env:NAME``: a variable of the environment of the process that makes the call."""

from __future__ import annotations

import os
import re

from llmops.core.errors import InvalidRequest
from llmops.providers import secret_stores

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
#: The console's own secrets: whoever may add a provider must not be able to have them sent to it.
_OWN = (
    "CONSOLE_",
    "DATABASE_URL",
    "REDIS_URL",
    "DJANGO_",
    "PGPASS",
    "CELERY_",
    "AWS_",
    "VAULT_",
    "EMAIL_URL",
)


def check(reference: str) -> None:
    if not _NAME.fullmatch(reference):
        raise InvalidRequest(
            "reference: after env: comes the name of an environment variable (letters, digits, underscores).",
            param="reference",
        )
    if reference.upper().startswith(_OWN):
        raise InvalidRequest(
            f"reference: {reference} belongs to the console itself and cannot be a provider's key. "
            "Put the provider's key into a variable of its own, such as OPENAI_API_KEY.",
            param="reference",
        )


def read(reference: str) -> str:
    value = os.environ.get(reference)
    if value is None:
        raise secret_stores.SecretUnavailable(
            f"The environment variable {reference} is not set in this process. Set it for every process of the "
            "data plane and the console, then restart them."
        )
    return value
