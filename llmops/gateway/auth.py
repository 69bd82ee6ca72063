"""Bearer key -> service key, from the snapshot alone."""

from __future__ import annotations

from hashlib import sha256

from llmops.core.errors import AuthenticationFailed, PermissionDenied
from llmops.serving.snapshot import HashEntry, KeyEntry, Snapshot

INFERENCE = "inference"
_MAX_KEY = 512


def authenticate(snapshot: Snapshot, authorization: bytes | None, now: float) -> KeyEntry:
    """The key of an ``Authorization`` header at ``now`` (Unix seconds), which may call models.

    Raises as ``key_of`` does, and ``PermissionDenied`` for a key that is not meant for the data plane.
    """
    entry = key_of(snapshot, authorization, now)
    check_scope(entry)
    return entry


def check_scope(entry: KeyEntry) -> None:
    """Raises ``PermissionDenied`` for a key that is not meant for the data plane."""
    if INFERENCE not in entry.scopes:
        raise PermissionDenied(
            f"The service key {entry.name!r} has no scope {INFERENCE!r}, which calling models takes. Use a key that has it: "
            "an operator gives scopes when a key is made (Service keys in the console)."
        )


def key_of(snapshot: Snapshot, authorization: bytes | None, now: float) -> KeyEntry:
    """The key of an ``Authorization`` header, whatever it may do. Raises ``AuthenticationFailed`` without saying what was
    wrong with it."""
    if not authorization:
        raise AuthenticationFailed(
            "No service key was sent. Send it as the header Authorization: Bearer YOUR_KEY "
            "(the api_key of an OpenAI client)."
        )
    scheme, _, key = authorization.partition(b" ")
    key = key.strip()
    if scheme.lower() != b"bearer" or not key or len(key) > _MAX_KEY:
        raise AuthenticationFailed("The Authorization header must have the form: Bearer YOUR_KEY.")
    digest = sha256(key).hexdigest()
    found = snapshot.live.keys.get(digest)
    if found is None:
        raise _paused(snapshot.live.paused_keys.get(digest), now)
    entry = found.key
    if (found.valid_until is not None and found.valid_until <= now) or (
        entry.expires is not None and entry.expires <= now
    ):
        raise _refused()
    return entry


def _paused(found: HashEntry | None, now: float) -> AuthenticationFailed | PermissionDenied:
    """What whoever sends a key that is not in use is told: why it is paused, if it is one that would work otherwise."""
    if (
        found is None
        or (found.valid_until is not None and found.valid_until <= now)
        or (found.key.expires is not None and found.key.expires <= now)
    ):
        return _refused()
    why = f": {found.key.paused}" if found.key.paused else ""
    return PermissionDenied(
        f"The service key {found.key.name!r} is paused by an operator{why}. Try again later, or ask an operator to resume it.",
        code="key_paused",
    )


def _refused() -> AuthenticationFailed:
    return AuthenticationFailed(
        "The service key is not valid: it is unknown, expired or revoked. Make a new one in the console."
    )
