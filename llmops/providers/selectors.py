"""Reading what is configured about providers. Secrets are read here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from llmops.base.master_keys import master_keys
from llmops.providers import secret_stores
from llmops.providers.models import (
    Credential,
    CredentialHeadroom,
    CredentialTrouble,
    HealthEvent,
    Model,
    OpenBreaker,
    Price,
    Provider,
    Rotation,
    Route,
)
from llmops.providers.models.rotations import OPEN
from llmops.providers.pricing import BASE_CLASSES
from llmops.providers.rules import origin_of
from llmops.providers.secret_stores import remembered

#: A data plane repeats what it cannot read every 30 s; what was not repeated for so long is over, or its process is.
TROUBLE_LASTS = timedelta(seconds=90)
#: A breaker half-opens after its cool-down and waits for a call; after this long nobody cares.
BREAKER_LASTS = timedelta(hours=1)
REFUSAL_LASTS = timedelta(days=1)


def route_exists(slug: str) -> bool:
    """Whether there is a route of this name that is not archived; it stays so until the caller's transaction ends.

    ``settings.ROUTE_EXISTS`` points here.
    """
    return Route.objects.select_for_update().filter(slug=slug, archived_at=None).first() is not None


def routes_naming_policy(policy: str) -> list[str]:
    """Routes that are not archived and name ``policy``. ``settings.ROUTES_NAMING_POLICY`` points here."""
    routes = Route.objects.filter(archived_at=None).order_by("slug").values_list("slug", "policies")
    return [slug for slug, policies in routes if policy in policies]


def sealing_identity(credential_id: object) -> str:
    """What a sealed provider key is bound to: its own row, so that a copy in another row does not open."""
    return f"providers.credential:{credential_id}"


def given_for(credential: Credential, base_url: str) -> bool:
    """Whether a key was given for the place that ``base_url`` leads to."""
    return credential.origin == origin_of(base_url)


def keys_given_elsewhere(provider: Provider) -> list[Credential]:
    """Keys that may still be used and were given for another place than where ``provider`` is configured to be now."""
    keys = Credential.objects.filter(provider=provider).exclude(state="revoked").order_by("name")
    return [key for key in keys if not given_for(key, provider.base_url)]


def reveal_remembered(credential: Credential, *, to: str, wait: bool) -> str:
    """``reveal`` for the transport: what a store over a network answered is remembered, so that nobody waits for it.

    ``wait``: read what is not known yet now; otherwise it is read beside, and this raises ``SecretUnavailable``.
    """
    if credential.source not in secret_stores.REMOTE:
        return reveal(credential, to=to)
    _refuse_elsewhere(credential, to)
    return remembered.MEMORY.value(
        str(credential.pk),
        source=credential.source,
        reference=credential.reference,
        generation=credential.set_at.isoformat() if credential.set_at else "",
        wait=wait,
    )


def reveal(credential: Credential, *, to: str) -> str:
    """The secret of a credential, for the transport and the probe only; ``to`` is the URL to which it will be sent.

    Raises ``ConfigurationRefused`` (master key missing or wrong), ``SecretUnavailable`` (the reference leads nowhere, or the key
    was given for another place) or ``InvalidRequest``, each with a sentence that holds no part of the secret.
    """
    _refuse_elsewhere(credential, to)
    if credential.source == "sealed":
        return master_keys().open(credential.sealed, identity=sealing_identity(credential.pk))
    return secret_stores.read_secret(credential.source, credential.reference)


def _refuse_elsewhere(credential: Credential, to: str) -> None:
    """Whoever may change where a provider is must not be able to have its keys sent there."""
    if not given_for(credential, to):
        raise secret_stores.SecretUnavailable(
            f"This key was given for {credential.origin or 'another place'} and is not sent to {origin_of(to) or to}. "
            "Give it anew with Replace secret, or add the key of the new place."
        )


def with_troubles(credentials: QuerySet[Credential]) -> QuerySet[Credential]:
    """``credentials`` so that ``troubles_of`` asks nothing more of the database."""
    return credentials.prefetch_related("troubles")


def troubles_of(credential: Credential) -> list[CredentialTrouble]:
    """What data planes cannot do with a key at present, a process each; empty for a key that is not in use."""
    found = list(credential.troubles.all()) if credential.state in ("active", "draining") else []
    if not found:
        return []
    oldest = timezone.now() - TROUBLE_LASTS
    return [trouble for trouble in found if trouble.seen_at >= oldest]


def unreadable() -> list[tuple[Credential, Sequence[CredentialTrouble], bool]]:
    """Keys in use that data planes cannot read, with who cannot and why, and whether the provider has no other key in use
    that all can read."""
    if not CredentialTrouble.objects.exists():
        return []
    in_use = list(
        with_troubles(Credential.objects.filter(state__in=("active", "draining"), provider__archived_at=None))
        .select_related("provider")
        .order_by("provider__slug", "name")
    )
    troubled = {credential.pk: troubles_of(credential) for credential in in_use}
    served = {credential.provider_id for credential in in_use if not troubled[credential.pk]}
    return [
        (credential, troubled[credential.pk], credential.provider_id not in served)
        for credential in in_use
        if troubled[credential.pk]
    ]


def open_breakers(route: str | None = None) -> list[OpenBreaker]:
    """Targets that data planes leave alone now: of a route, or of all. What came to its end long ago and was not probed since
    is left out: no call has gone there."""
    found = OpenBreaker.objects.filter(until__gte=timezone.now() - BREAKER_LASTS)
    return list(found if route is None else found.filter(route=route))


def headroom(within: timedelta) -> list[tuple[Credential, CredentialHeadroom]]:
    """What providers said within that time is left of the limits of keys that are in use, the nearest to its limit first."""
    rows = CredentialHeadroom.objects.filter(at__gte=timezone.now() - within)
    in_use = Credential.objects.filter(state__in=("active", "draining"), provider__archived_at=None)
    keys = {one.pk: one for one in in_use.select_related("provider")}
    found = [(keys[row.credential], row) for row in rows if row.credential in keys]
    return sorted(found, key=lambda one: (-one[1].used[0], str(one[0]), one[1].model))


def heard_of(credential: Credential, last: int = 10) -> list[HealthEvent]:
    """What the provider said about a key lately, the newest first."""
    return list(HealthEvent.objects.filter(credential=credential.pk)[:last])


def refused_credentials() -> list[tuple[Credential, HealthEvent]]:
    """Keys in use whose last word from their provider, within a day, was a refusal, and that word."""
    recent = HealthEvent.objects.filter(credential__isnull=False, at__gte=timezone.now() - REFUSAL_LASTS)
    last: dict[object, HealthEvent] = {}
    for event in recent.order_by("at", "id"):
        last[event.credential] = event
    refused = {key: event for key, event in last.items() if event.kind != "credential_accepted"}
    if not refused:
        return []
    in_use = Credential.objects.filter(pk__in=list(refused), state__in=("active", "draining"))
    return [
        (credential, refused[credential.pk])
        for credential in in_use.select_related("provider").order_by("provider__slug", "name")
        # A key that was put in its place since then is another one.
        if credential.state_changed_at is None or credential.state_changed_at < refused[credential.pk].at
    ]


@dataclass(frozen=True)
class DueKey:
    """A key in use that is older than it is to become; ``days`` is its age, ``after`` the age at which it was due."""

    credential: Credential
    days: int
    after: int

    def in_words(self) -> str:
        return f"{self.days:,} days old; it was due after {self.after:,}"


def age_of(credential: Credential, now: datetime) -> int:
    """Days since the key was set (or, by a reference, last read on request)."""
    return (now - (credential.set_at or credential.created_at)).days


def due_after(credential: Credential) -> int | None:
    """Days after which a key is due; None: never."""
    days: int = (
        settings.PROVIDER_KEY_DAYS if credential.rotate_after_days is None else credential.rotate_after_days
    )
    return days or None


def keys_due(now: datetime) -> list[DueKey]:
    """Keys in use that are due to be rotated, the oldest first; a simulator's key never is, nor one that is being rotated."""
    in_use = (
        Credential.objects.filter(state="active", provider__archived_at=None)
        .exclude(provider__kind="simulator")
        .exclude(rotations_away__state__in=OPEN)
        .select_related("provider")
    )
    found = [
        DueKey(one, age_of(one, now), after)
        for one in in_use
        if (after := due_after(one)) is not None and age_of(one, now) >= after
    ]
    return sorted(found, key=lambda one: -one.days)


def rotation_of(credential: Credential) -> Rotation | None:
    """The rotation under way in which a key takes part."""
    takes_part = Q(old=credential.pk) | Q(new=credential.pk)
    return Rotation.objects.filter(takes_part, state__in=OPEN).select_related("old", "new").first()


def returned_rotations(now: datetime) -> list[Rotation]:
    """Rotations that were taken back within a day and not begun again since."""
    recent = Rotation.objects.filter(state="returned", finished_at__gte=now - REFUSAL_LASTS)
    return [
        one
        for one in recent.select_related("old__provider", "new__provider")
        if not Rotation.objects.filter(old=one.old_id, created_at__gt=one.created_at).exists()
    ]


def switched() -> list[tuple[Provider | Route, str, str]]:
    """Providers and routes whose live switch is on, whether they are ``paused`` or ``degraded``, and why."""
    providers = Provider.objects.filter(paused_at__isnull=False, archived_at=None)
    routes = list(Route.objects.filter(archived_at=None).exclude(paused_at=None, degraded_at=None))
    return [
        *((row, "paused", row.pause_reason) for row in providers),
        *((row, "paused", row.pause_reason) for row in routes if row.paused_at),
        *((row, "degraded", row.degrade_reason) for row in routes if row.degraded_at),
    ]


def unpriced_models() -> QuerySet[Model]:
    """Models in use without a price: what their calls cost is not known, so that they cannot be called under any budget."""
    priced = Price.objects.filter(
        model=OuterRef("pk"), token_class__in=BASE_CLASSES, effective_from__lte=timezone.now()
    )
    return Model.objects.filter(~Exists(priced), archived_at=None).order_by("slug")
