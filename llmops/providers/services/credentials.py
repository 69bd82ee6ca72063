"""Provider keys. They go in here and come out only in ``selectors.reveal``; keys in use take effect at once."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.utils import timezone

from llmops.audit.services import record
from llmops.base.live import LIVE_STATE, touch
from llmops.base.master_keys import usable_for_sealing
from llmops.base.transitions import move
from llmops.core.actors import Actor
from llmops.core.digests import sha256_hex
from llmops.core.errors import Conflict, ConsoleError, InvalidRequest
from llmops.providers import probing, secret_stores
from llmops.providers.models import Credential, Provider
from llmops.providers.rules import CREDENTIAL_MOVES, looks_masked, may_activate, origin_of
from llmops.providers.selectors import reveal, sealing_identity
from llmops.providers.services import draft
from llmops.providers.services._open_rotations import (
    close_for_revoked,
    open_rotation,
    refuse_in_rotation,
)

KIND = "providers.credential"
IN_USE = ("active", "draining")


def add_credential(
    actor: Actor,
    *,
    provider: Provider,
    name: str,
    source: str = "sealed",
    secret: str = "",
    reference: str = "",
    activate: bool = False,
) -> Credential:
    """A new key of ``provider``: ``secret`` is sealed here, or ``reference`` leads to it (``env``, ``file``).

    It is staged until it is activated; ``activate`` puts it into use in the same step (a declared key). Raises
    ``InvalidRequest`` naming the field; no message holds the secret.
    """
    with transaction.atomic():
        owner = draft.locked(provider)
        if owner.archived_at is not None:
            raise Conflict(f"{owner.slug} is archived; bring it back before you add a key.")
        now = timezone.now()
        credential = Credential(provider=owner, name=name, state_changed_at=now, set_at=now)
        place(credential, source=source, secret=secret, reference=reference)
        credential.state = "active" if activate else "staged"
        draft.checked(credential)
        draft.inserted(credential)
        if activate:
            touch(LIVE_STATE)
        _event(actor, credential, action="credential.added", after=described(credential))
    return credential


def replace_secret(
    actor: Actor, *, credential: Credential, source: str = "sealed", secret: str = "", reference: str = ""
) -> Credential:
    """Put another secret or reference in the place of the present one.

    A key in use stays in use and the new secret is served at once; a probed one is staged again. To try a key before
    it is used, add a second one instead.
    """
    with transaction.atomic():
        refuse_in_rotation(credential)
        stored = draft.locked(credential)
        if stored.state == "revoked":
            raise Conflict("This key is revoked. Add a new one instead.")
        before = described(stored)
        place(stored, source=source, secret=secret, reference=reference)
        if stored.state == "probed":
            stored.state, stored.state_changed_at = "staged", timezone.now()
        stored.set_at, stored.reminded_at = timezone.now(), None
        stored.last_probe_at, stored.last_probe_result = None, ""
        stored.last_failure_at, stored.last_failure = None, ""
        draft.checked(stored)
        stored.save()
        if stored.state in IN_USE:
            touch(LIVE_STATE)
        old, new = draft.difference(before, described(stored))
        _event(actor, stored, action="credential.replaced", before=old, after=new)
    return stored


def probe_credential(actor: Actor, *, credential: Credential) -> Credential:
    """Try a key with a real, small call and keep the outcome; a staged key that works becomes probed.

    The call is made outside the transaction and takes at most ``probing.DEADLINE_S`` seconds. What came of it stands
    in ``last_probe_result`` and, when it failed, ``last_failure``; a failure raises nothing.
    """
    stored = Credential.objects.select_related("provider").get(pk=credential.pk)
    if stored.state == "revoked":
        raise Conflict("This key is revoked and is not tried any more. Add a new one instead.")
    try:
        outcome = probing.probe(
            stored.provider,
            reveal(stored, to=stored.provider.base_url),
            chat_model=chat_model_of(stored.provider),
        )
    except ConsoleError as error:
        outcome = probing.Outcome(works=False, message=error.message)
    with transaction.atomic():
        # The secret that was tried must still be the one that is kept.
        tried = (stored.source, stored.reference, stored.sealed)
        stored = draft.locked(stored)
        if (stored.source, stored.reference, stored.sealed) != tried:
            raise Conflict("The key was replaced while it was being tried. Probe it again.")
        before = stored.state
        now = timezone.now()
        stored.last_probe_at, stored.last_probe_result = now, outcome.message[:300]
        if outcome.works:
            stored.last_failure_at, stored.last_failure = None, ""
            if stored.state == "staged":
                stored.state, stored.state_changed_at = "probed", now
        else:
            stored.last_failure_at, stored.last_failure = now, outcome.message[:120]
            if stored.state == "probed":
                stored.state, stored.state_changed_at = "staged", now
        stored.save()
        _event(
            actor,
            stored,
            action="credential.probed",
            before={"state": before},
            after={"state": stored.state, "works": outcome.works, "result": outcome.message},
        )
    return stored


def activate_credential(actor: Actor, *, credential: Credential, unprobed_reason: str = "") -> Credential:
    """Use this key from now on. One that was never probed needs a reason, which is kept on the record."""
    with transaction.atomic():
        refuse_in_rotation(credential)
        stored = draft.locked(credential)
        if stored.provider.archived_at is not None:
            raise Conflict(f"{stored.provider.slug} is archived.")
        if problem := may_activate(
            stored.state, probed=stored.state == "probed", unprobed_reason=unprobed_reason
        ):
            raise Conflict(problem)
        return _move(actor, stored, to="active", action="credential.activated", reason=unprobed_reason)


def drain_credential(actor: Actor, *, credential: Credential, reason: str = "") -> Credential:
    """Start no more calls on this key while another is in use; calls under way finish on it."""
    with transaction.atomic():
        refuse_in_rotation(credential)
        return _move(
            actor, draft.locked(credential), to="draining", action="credential.drained", reason=reason
        )


def revoke_credential(actor: Actor, *, credential: Credential, reason: str = "") -> Credential:
    """Never use this key again. A secret that was kept here is wiped; its fingerprint stays.

    A rotation under way in which it takes part is over; if it was the new key, the old one is in use again.
    """
    with transaction.atomic():
        rotation = open_rotation(credential)
        stored = draft.locked(credential)
        revoked = _move(actor, stored, to="revoked", action="credential.revoked", reason=reason, sealed="")
        if rotation is not None:
            close_for_revoked(rotation, revoked)
        return revoked


def remind_after(actor: Actor, *, credential: Credential, days: int | None) -> Credential:
    """When a key is due to be rotated: ``days`` after it was set; None: as the installation has it (``PROVIDER_KEY_DAYS``)."""
    with transaction.atomic():
        stored = draft.locked(credential)
        if stored.state == "revoked":
            raise Conflict("This key is revoked; nothing is due any more.")
        before = {"rotate_after_days": stored.rotate_after_days}
        stored.rotate_after_days, stored.reminded_at = days, None
        draft.checked(stored)
        stored.save()
        _event(
            actor,
            stored,
            action="credential.rescheduled",
            before=before,
            after={"rotate_after_days": days},
        )
    return stored


def read_again(actor: Actor, *, credential: Credential) -> Credential:
    """Have every process read a referenced key from its store anew, now. A key that cannot be read stays as it was read last."""
    with transaction.atomic():
        stored = draft.locked(credential)
        if stored.source == "sealed":
            raise Conflict("This key is kept here; there is no store to read it from. Rotate it instead.")
        if stored.state == "revoked":
            raise Conflict("This key is revoked.")
        stored.set_at, stored.reminded_at = timezone.now(), None
        stored.save()
        if stored.state in IN_USE:
            touch(LIVE_STATE)
        _event(actor, stored, action="credential.reread_requested", after={"reference": stored.reference})
    return stored


def _move(
    actor: Actor, stored: Credential, *, to: str, action: str, reason: str, **change: Any
) -> Credential:
    before = stored.state
    sources = [state for state, targets in CREDENTIAL_MOVES.items() if to in targets]
    move(stored, to=to, allowed_from=sources, state_changed_at=timezone.now(), **change)
    if before in IN_USE or to in IN_USE:
        touch(LIVE_STATE)
    _event(actor, stored, action=action, before={"state": before}, after={"state": to}, reason=reason)
    return stored


def place(credential: Credential, *, source: str, secret: str, reference: str) -> None:
    """Seal ``secret`` or take ``reference`` down, for where the provider is now."""
    if source == "sealed":
        if reference:
            raise InvalidRequest("reference: a key that is kept here has no reference.", param="reference")
        secret = secret.strip()
        if not secret:
            raise InvalidRequest("secret: write the provider's key.", param="secret")
        if looks_masked(secret) or secret == credential.fingerprint:
            raise InvalidRequest(
                "secret: this is a mask, not a key. Leave the field empty to keep the present key.",
                param="secret",
            )
        if not secret_stores.is_header_safe(secret):
            raise InvalidRequest(
                "secret: a key is one line of printable ASCII without spaces, at most "
                f"{secret_stores.MAX_SECRET_CHARS} characters.",
                param="secret",
            )
        credential.sealed = usable_for_sealing().seal(secret, identity=sealing_identity(credential.pk))
        credential.fingerprint = sha256_hex(secret.encode())[:12]
    else:
        if secret:
            raise InvalidRequest(
                "secret: a reference and a secret exclude each other; leave one out.", param="secret"
            )
        secret_stores.check_reference(source, reference)
        credential.sealed = ""
        # What a reference leads to may differ from process to process, so nothing is remembered about it.
        credential.fingerprint = ""
    credential.source, credential.reference = source, reference
    credential.origin = origin_of(credential.provider.base_url)


def chat_model_of(provider: Provider) -> str | None:
    for version in (
        provider.model_configs.filter(current_of__archived_at=None, current_of__isnull=False)
        .order_by("model__slug")
        .only("upstream_model", "capabilities")
    ):
        if "chat" in version.capabilities:
            return version.upstream_model
    return None


def described(credential: Credential) -> dict[str, Any]:
    return {
        "provider": credential.provider.slug,
        "name": credential.name,
        "source": credential.source,
        "reference": credential.reference,
        "fingerprint": credential.fingerprint,
        "origin": credential.origin,
        "state": credential.state,
    }


def _event(actor: Actor, credential: Credential, *, action: str, **members: Any) -> None:
    record(
        actor,
        action=action,
        object_type=KIND,
        object_id=credential.pk,
        object_name=str(credential),
        **members,
    )
