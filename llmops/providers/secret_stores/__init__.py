"""Where a provider key can live outside the database. A store is a module here, a line in ``STORES`` and a test.

A store module has ``check(reference)``, which refuses a reference that can never be read (``InvalidRequest``), and
``read(reference)``, which returns the secret or raises ``SecretUnavailable`` with a sentence that holds no part of it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Protocol, cast

from llmops.core.errors import ConsoleError, InvalidRequest

STORES = {
    "env": "llmops.providers.secret_stores.environment",
    "file": "llmops.providers.secret_stores.files",
    "vault": "llmops.providers.secret_stores.vault",
    "aws": "llmops.providers.secret_stores.aws",
}
#: Those that are asked over a network: what they answered is remembered (``remembered``).
REMOTE = frozenset({"vault", "aws"})
MAX_SECRET_CHARS = 8_000


class SecretUnavailable(ConsoleError):
    """A reference did not lead to a secret now; the message says which reference and why."""

    code = "secret_unavailable"
    status = 422


class StoreAway(SecretUnavailable):
    """The store gave no answer: what it said before is still true, as far as anybody knows."""


class Store(Protocol):
    check: Callable[[str], None]
    read: Callable[[str], str]


def _store(source: str) -> Store:
    if source not in STORES:
        raise InvalidRequest(
            f"source: {source!r} is not a place for secrets. Supported are {supported()}.", param="source"
        )
    return cast(Store, import_module(STORES[source]))


def supported() -> str:
    return ", ".join(f'"{name}:"' for name in STORES) + " references, and secrets kept here encrypted"


def check_reference(source: str, reference: str) -> None:
    """Refuse a reference that no process could read. Raises ``InvalidRequest`` naming the field."""
    _store(source).check(reference)


def read_secret(source: str, reference: str) -> str:
    """The secret behind a reference, ready for a header. Raises ``SecretUnavailable`` or ``InvalidRequest``."""
    store = _store(source)
    store.check(reference)
    secret = store.read(reference).strip()
    if not secret:
        raise SecretUnavailable(f'"{source}:{reference}" is empty.')
    if not is_header_safe(secret):
        raise SecretUnavailable(
            f'"{source}:{reference}" does not hold a key: it must be one line of printable ASCII, '
            f"at most {MAX_SECRET_CHARS} characters."
        )
    return secret


def is_header_safe(secret: str) -> bool:
    """Whether a secret can travel in an HTTP header: visible ASCII only, of bounded length."""
    return 0 < len(secret) <= MAX_SECRET_CHARS and all("!" <= character <= "~" for character in secret)
