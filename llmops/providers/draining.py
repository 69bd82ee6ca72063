"""What still uses a key that is draining. Reads only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.utils.module_loading import import_string

from llmops.base.clock import database_now
from llmops.providers.models import Credential, CredentialUse, HealthEvent, Rotation

#: Data planes say what they do on a draining key every two seconds; what was not repeated for so long is not known.
USE_LASTS = timedelta(seconds=15)


@dataclass(frozen=True)
class ProcessUse:
    """One data plane's use; ``known`` is False for one that has not said anything since the key began to drain."""

    host: str
    process: UUID
    calls: int = 0
    background: int = 0
    known: bool = True


@dataclass(frozen=True)
class Remaining:
    """``work`` is what goes on at the provider (batches, responses in the background), as kind -> how many."""

    processes: Sequence[ProcessUse]
    work: Mapping[str, int]

    @property
    def calls(self) -> int:
        return sum(one.calls + one.background for one in self.processes)

    @property
    def silent(self) -> int:
        return sum(not one.known for one in self.processes)

    @property
    def drained(self) -> bool:
        return not self.calls and not self.silent and not any(self.work.values())

    def in_words(self) -> str:
        said = []
        if self.calls:
            said.append(_many(self.calls, "call under way", "calls under way"))
        said += [_many(number, *_named(kind)) for kind, number in sorted(self.work.items()) if number]
        if self.silent:
            said.append(
                _many(self.silent, "data plane that has not said yet", "data planes that have not said yet")
            )
        return ", ".join(said) or "nothing"


def remaining(rotation: Rotation) -> Remaining:
    """What still uses the old key of a rotation whose new key is in use."""
    return remaining_on(rotation.old)


def remaining_on(credential: Credential) -> Remaining:
    now = database_now()
    uses = {one.process: one for one in CredentialUse.objects.filter(credential=credential.pk)}
    known = [
        ProcessUse(one.host, one.process, one.calls, one.background)
        for one in uses.values()
        if one.seen_at >= now - USE_LASTS
    ]
    told = {one.process for one in known}
    silent = [
        ProcessUse(host, process, known=False)
        for process, host in import_string(settings.DATA_PLANES)()
        if process not in told
    ]
    work: dict[str, int] = import_string(settings.WORK_ON_CREDENTIAL)(str(credential.pk))
    return Remaining(sorted([*known, *silent], key=lambda one: (one.host, str(one.process))), work)


def heard_since(credential: Credential, rotation: Rotation, *, sure: bool = False) -> list[tuple[UUID, str]]:
    """What data planes heard of a key since the new one of ``rotation`` is in use: process and ``refused`` or ``accepted``.

    ``sure``: without refusals by 403, which may be about what somebody asked and not about the key.
    """
    if rotation.activated_at is None:
        return []
    events = HealthEvent.objects.filter(
        credential=credential.pk,
        at__gte=rotation.activated_at,
        kind__in=("credential_refused", "credential_accepted"),
    ).order_by("at", "id")
    if sure:
        events = events.exclude(kind="credential_refused", text="status 403")
    return [(one.process, one.kind.removeprefix("credential_")) for one in events]


def _named(kind: str) -> tuple[str, str]:
    words = {
        "batch": ("open batch", "open batches"),
        "response": ("background response", "background responses"),
    }
    return words.get(kind, (f"open {kind}", f"open {kind}s"))


def _many(number: int, one: str, more: str) -> str:
    return f"{number:,} {one if number == 1 else more}"
