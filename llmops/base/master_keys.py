"""The master keys of this process, and the proof that they are the right ones."""

from __future__ import annotations

from functools import lru_cache

from django.conf import settings

from llmops.base.crypto import MasterKeys
from llmops.base.models import MasterKeyVerifier
from llmops.core.errors import ConfigurationRefused

_PHRASE = "llmops-console master key"


@lru_cache(maxsize=1)
def _parsed(text: str) -> MasterKeys:
    return MasterKeys.parse(text)


def master_keys() -> MasterKeys:
    return _parsed(settings.MASTER_KEYS)


def verify_master_keys() -> None:
    """Check every known key id against its verifier and enrol the active key on first use.

    Raises ``ConfigurationRefused`` naming the key id that is missing or wrong: a process with wrong keys must not
    start, because it would seal what nobody else can read.
    """
    keys = usable_for_sealing()
    for verifier in MasterKeyVerifier.objects.filter(retired_at=None):
        keys.open(verifier.sealed, identity=f"base.master_key:{verifier.key_id}")
    MasterKeyVerifier.objects.get_or_create(
        key_id=keys.active_id,
        defaults={"sealed": keys.seal(_PHRASE, identity=f"base.master_key:{keys.active_id}")},
    )


def usable_for_sealing() -> MasterKeys:
    """The keys of this process, when what it seals can be read by all others. Raises ``ConfigurationRefused`` for a process
    that was not restarted since its active key was retired."""
    keys = master_keys()
    if MasterKeyVerifier.objects.filter(key_id=keys.active_id, retired_at__isnull=False).exists():
        raise ConfigurationRefused(
            f"The master key {keys.active_id!r} is retired, and this process would seal under it. Give it the present "
            "CONSOLE_MASTER_KEYS and restart it."
        )
    return keys


def required_key_ids() -> set[str]:
    """Ids of the master keys that stored secrets still need."""
    return set(MasterKeyVerifier.objects.filter(retired_at=None).values_list("key_id", flat=True))
