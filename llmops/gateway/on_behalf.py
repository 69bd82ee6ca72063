"""A call that the console makes for a service: with a key of its own, under everything that bounds the key of the service.

The console holds no secret of a service, so what works for one (a run) calls with the project's held key and names the service's in
``x-llmops-for-key``. The call then counts against the limits and budgets of both, goes where both may, and is recorded as the
service's. Only keys that the console holds may name another, and only one of their own project.
"""

from __future__ import annotations

import msgspec

from llmops.core.errors import AuthenticationFailed, PermissionDenied
from llmops.gateway.routing import View
from llmops.serving.snapshot import KeyEntry

HEADER = b"x-llmops-for-key"
_LONGEST = 64
_ALL = "*"


def key_for(view: View, held: KeyEntry, named: bytes, now: float) -> KeyEntry:
    """The key under which the call goes on: that of the service, bounded by both. One object as long as the snapshot is the same.

    Raises ``AuthenticationFailed`` for a key that is not there (yet), ``PermissionDenied`` for one of another project or paused.
    """
    at = (held.id, named[:_LONGEST])
    found = view.joined_keys.get(at)
    if found is None:
        service = _named(view, held, named)
        # Its own name adds nothing: what bounds it holds once.
        found = view.joined_keys[at] = held if service.id == held.id else _joined(held, service)
    if found.expires is not None and found.expires <= now:
        raise _unknown()
    return found


def _named(view: View, held: KeyEntry, named: bytes) -> KeyEntry:
    wanted = named.decode("latin-1")
    live = view.snapshot.live
    for entries in (live.keys, live.paused_keys):
        for one in entries.values():
            key = one.key
            if key.id != wanted or key.replaced:
                continue
            if key.project_id != held.project_id:
                raise _unknown()
            if entries is live.paused_keys:
                why = f": {key.paused}" if key.paused else ""
                raise PermissionDenied(
                    f"The service key {key.name!r}, for which this is asked, is paused by an operator{why}. Try again later, or "
                    "ask an operator to resume it.",
                    code="key_paused",
                )
            return key
    raise _unknown()


def _joined(held: KeyEntry, key: KeyEntry) -> KeyEntry:
    return msgspec.structs.replace(
        key,
        scopes=held.scopes,
        allowed_routes=_both(held.allowed_routes, key.allowed_routes),
        allowed_models=_both(held.allowed_models, key.allowed_models),
        through=held,
    )


def _both(one: frozenset[str], other: frozenset[str]) -> frozenset[str]:
    if _ALL in one:
        return other
    return one if _ALL in other else one & other


def _unknown() -> AuthenticationFailed:
    return AuthenticationFailed(
        "The service key for which this is asked is unknown, expired or revoked. Whoever asked needs another one."
    )
