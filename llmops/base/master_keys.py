"""The master keys of this process, and the proof that they are the right ones."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection

from llmops.base.crypto import MasterKeys, MasterKeyUnfit
from llmops.base.models import MasterKeyVerifier
from llmops.core.errors import ConfigurationRefused

_PHRASE = "llmops-console master key"


class MasterKeysLost(ConfigurationRefused):
    """Stored secrets need a master key that was there once; the message says which, and to put it back."""


@lru_cache(maxsize=1)
def _parsed(text: str) -> MasterKeys:
    return MasterKeys.parse(text)


def master_keys() -> MasterKeys:
    """Raises ``ConfigurationRefused`` where there are none, or where what there is cannot be read."""
    try:
        return _parsed(settings.MASTER_KEYS)
    except ConfigurationRefused as refused:
        if lost := _what_is_lost(refused):
            raise MasterKeysLost(lost) from None
        raise


def verify_master_keys() -> None:
    """Check every known key id against its verifier and enrol the active key on first use.

    Raises ``ConfigurationRefused`` naming the key id that is missing or wrong: a process with wrong keys must not
    start, because it would seal what nobody else can read.
    """
    keys = usable_for_sealing()
    for verifier in MasterKeyVerifier.objects.filter(retired_at=None):
        try:
            keys.open(verifier.sealed, identity=f"base.master_key:{verifier.key_id}")
        except MasterKeyUnfit as unfit:
            raise MasterKeysLost(_put_back([unfit.key_id], unfit.fault)) from None
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


def _what_is_lost(refused: ConfigurationRefused) -> str:
    """What to do about master keys that are missing or cannot be read (``refused``), where stored secrets need some that were
    there once; empty where none do, or where no database can be asked."""
    file = connection.settings_dict["NAME"]
    # Looking must not make a database where there is none.
    if connection.vendor == "sqlite" and connection.connection is None and not Path(file).is_file():
        return ""
    try:
        needed = sorted(required_key_ids())
    except (DatabaseError, InterfaceError):
        return ""
    if not needed:
        return ""
    kept = settings.MASTER_KEYS_FILE
    if settings.MASTER_KEYS.strip(", "):
        return _put_back(needed, f"and what is there cannot be read: {refused.message.rstrip('.')}")
    if kept is None:
        return _put_back(needed, "which is not set")
    if not kept.exists():
        return _put_back(needed, "and that file is missing")
    text = kept.read_text(errors="replace").strip()
    if not text:
        return _put_back(needed, "and that file is empty")
    has_line = re.search(r"(?m)^\s*(export\s+)?CONSOLE_MASTER_KEYS\s*=", text)
    return _put_back(needed, f"and that line is {'empty' if has_line else 'missing'}")


def _put_back(key_ids: list[str], fault: str) -> str:
    names = " and ".join(repr(one) for one in key_ids)
    kept = settings.MASTER_KEYS_FILE
    place = "CONSOLE_MASTER_KEYS" if kept is None else f"CONSOLE_MASTER_KEYS in {kept}"
    mend = (
        "Set it to what it was when they were stored"
        if kept is None
        else f"Put the copy of {kept.name} back that belongs to this database"
    )
    return (
        f"The stored secrets need the master key{'s' if len(key_ids) > 1 else ''} {names} of {place}, {fault}. {mend}, then start "
        "again. Without a copy what is encrypted is lost for good: provider keys, secrets of tools and channels, kept texts of "
        "calls and runs. Budgets, calls and their costs, prompts and people are not encrypted; docs/operations.md says how to go on "
        'without, under "A master key is lost".'
    )
