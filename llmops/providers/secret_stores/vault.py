"""``vault:PATH#FIELD``: a field of a secret in HashiCorp Vault, such as ``vault:kv/data/llmops/openai#key``.

PATH is the path of Vault's HTTP API without ``/v1/`` (of a KV engine of version 2 it has ``data`` behind the mount), and may end
with ``?version=N``. Only paths below ``CONSOLE_VAULT_PATHS`` are read: whoever may add a provider key must not be able to have
another secret sent to a provider. Vault, "KV secrets engine - version 2 (API)".
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from django.conf import settings

from llmops.core.errors import InvalidRequest
from llmops.providers import secret_stores
from llmops.providers.secret_stores.asking import ask

_REFERENCE = re.compile(
    r"(?P<path>[A-Za-z0-9_.~-]+(?:/[A-Za-z0-9_.~-]+)+)(?:\?version=(?P<version>\d{1,9}))?#(?P<field>[A-Za-z0-9_.-]{1,100})"
)
_MOST_TOKEN_BYTES = 4096


def check(reference: str) -> None:
    found = _REFERENCE.fullmatch(reference)
    if found is None or any(part.strip(".") == "" for part in found["path"].split("/")):
        raise InvalidRequest(
            "reference: after vault: comes path#field, such as kv/data/llmops/openai#key (the path as in Vault's API, with "
            "data behind the mount of a KV engine of version 2).",
            param="reference",
        )
    if not any(found["path"].startswith(prefix) for prefix in settings.VAULT_PATHS if prefix):
        raise InvalidRequest(
            f"reference: provider keys are read below {', '.join(settings.VAULT_PATHS) or 'no path'} only. "
            "CONSOLE_VAULT_PATHS names others.",
            param="reference",
        )


def read(reference: str) -> str:
    found = _REFERENCE.fullmatch(reference)
    assert found is not None, "checked before it is read"
    if not settings.VAULT_ADDR:
        raise secret_stores.SecretUnavailable(
            "This process does not know where Vault is: set CONSOLE_VAULT_ADDR for every process of the data plane and the "
            "console."
        )
    headers = {"X-Vault-Token": _token(), "X-Vault-Request": "true"}
    if settings.VAULT_NAMESPACE:
        headers["X-Vault-Namespace"] = settings.VAULT_NAMESPACE
    url = f"{settings.VAULT_ADDR.rstrip('/')}/v1/{found['path']}"
    if found["version"]:
        url += f"?version={found['version']}"
    status, body = ask("Vault", "GET", url, headers=headers, ca_file=settings.VAULT_CA_FILE)
    if status != 200:
        raise _refusal(status, found["path"])
    try:
        data: Any = json.loads(body)["data"]
    except (ValueError, KeyError, TypeError):
        raise secret_stores.SecretUnavailable(
            f"Vault answered {found['path']} with something that is no secret."
        ) from None
    # Version 2 of the engine wraps the fields once more, beside their metadata.
    if isinstance(data, dict) and isinstance(data.get("metadata"), dict) and "data" in data:
        data = data["data"]
    value = data.get(found["field"]) if isinstance(data, dict) else None
    if not isinstance(value, str):
        raise secret_stores.SecretUnavailable(
            f"The secret {found['path']} in Vault has no field {found['field']!r} that is a text."
        )
    return value


def _token() -> str:
    if not settings.VAULT_TOKEN_FILE:
        if settings.VAULT_TOKEN:
            return str(settings.VAULT_TOKEN)
        raise secret_stores.SecretUnavailable(
            "This process has no token for Vault: set CONSOLE_VAULT_TOKEN_FILE (the sink of a Vault agent) or "
            "CONSOLE_VAULT_TOKEN."
        )
    # Read each time: an agent renews it.
    try:
        with Path(settings.VAULT_TOKEN_FILE).open("rb") as file:
            token = file.read(_MOST_TOKEN_BYTES).strip().decode("ascii")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not a token"
        raise secret_stores.SecretUnavailable(
            f"The file of CONSOLE_VAULT_TOKEN_FILE cannot be read: {why}."
        ) from None
    if not secret_stores.is_header_safe(token):
        raise secret_stores.SecretUnavailable("The file of CONSOLE_VAULT_TOKEN_FILE does not hold a token.")
    return token


def _refusal(status: int, path: str) -> secret_stores.SecretUnavailable:
    if status in (429, 472, 473, 500, 502, 503, 504):
        why = " (it is sealed or in maintenance)" if status == 503 else ""
        return secret_stores.StoreAway(f"Vault answered {status}{why}.")
    if status == 403:
        return secret_stores.SecretUnavailable(
            f"Vault refused to show {path} (403): the token may have run out, or its policy does not allow read there."
        )
    if status == 404:
        return secret_stores.SecretUnavailable(
            f"Vault has nothing at {path} (404). With a KV engine of version 2 the path has data behind the mount."
        )
    return secret_stores.SecretUnavailable(f"Vault answered {path} with {status}.")
