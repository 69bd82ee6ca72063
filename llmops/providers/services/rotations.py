"""Rotation of a provider key: a new one is tried and staged, comes into use while the old one drains, and the old one is
revoked when nothing uses it any more. No call fails by it: until then the old key is there for what the new one cannot do.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from llmops.audit.services import record
from llmops.base.live import LIVE_STATE, touch
from llmops.base.transitions import compare_and_set, move
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, InvalidRequest, UnprocessableEntity
from llmops.providers import probing
from llmops.providers.draining import remaining
from llmops.providers.models import Credential, HealthEvent, Rotation
from llmops.providers.models.rotations import CANCELLED, DONE, DRAINING, OPEN, RETURNED, STAGED
from llmops.providers.rules import CREDENTIAL_MOVES, may_activate, next_name
from llmops.providers.selectors import reveal
from llmops.providers.services import draft
from llmops.providers.services._open_rotations import open_rotation
from llmops.providers.services.credentials import chat_model_of, described, place

KIND = "providers.rotation"
MOST_KEPT_MINUTES, MOST_DEADLINE_HOURS = 7 * 24 * 60, 30 * 24

Probe = Callable[..., probing.Outcome]


def begin_rotation(
    actor: Actor,
    *,
    credential: Credential,
    source: str = "sealed",
    secret: str = "",
    reference: str = "",
    keep_minutes: int = 15,
    deadline_hours: int = 24,
    by_itself: bool = True,
    unprobed_reason: str = "",
    reason: str = "",
    probe: Probe = probing.probe,
) -> Rotation:
    """Try a new key with a real call and, if it works, stage it to take the place of ``credential``, which is in use.

    A key that does not work changes nothing: ``UnprocessableEntity`` says what the provider said and what to do. With
    ``unprobed_reason`` (on the record) it is staged untried. See ``Rotation`` for the other settings.
    """
    _check_settings(keep_minutes, deadline_hours)
    old = Credential.objects.select_related("provider").get(pk=credential.pk)
    _must_be_rotatable(old)
    now = timezone.now()
    new = Credential(provider=old.provider, name=next_name(old.name, set()), state_changed_at=now)
    new.set_at, new.rotate_after_days = now, old.rotate_after_days
    place(new, source=source, secret=secret, reference=reference)
    field = "secret" if source == "sealed" else "reference"
    if new.fingerprint and new.fingerprint == old.fingerprint:
        raise InvalidRequest(
            f"secret: this is the key that {old.name} holds already. Make a new one at the provider.",
            param="secret",
        )
    if not unprobed_reason.strip():
        outcome = probe(
            old.provider, reveal(new, to=old.provider.base_url), chat_model=chat_model_of(old.provider)
        )
        if not outcome.works:
            raise UnprocessableEntity(
                f"Nothing was changed, {old.name} is in use as before. {outcome.message} {_what_to_do(outcome)}",
                param=field,
            )
        new.state = "probed"
        new.last_probe_at, new.last_probe_result = now, outcome.message[:300]
    with transaction.atomic():
        if open_rotation(old) is not None:
            raise Conflict(f"{old} is being rotated already.")
        old = draft.locked(old)
        _must_be_rotatable(old)
        taken = Credential.objects.filter(provider=old.provider_id).values_list("name", flat=True)
        new.name = next_name(old.name, set(taken))
        draft.checked(new)
        draft.inserted(new)
        rotation = Rotation(
            provider=old.provider,
            old=old,
            new=new,
            probe_result=new.last_probe_result,
            unprobed_reason=unprobed_reason.strip(),
            keep_minutes=keep_minutes,
            deadline_hours=deadline_hours,
            by_itself=by_itself,
            begun_by=actor.name[:200],
        )
        draft.checked(rotation)
        draft.inserted(rotation)
        _event(
            actor,
            rotation,
            action="rotation.staged",
            after={"old": old.name, "new": described(new), "probe": new.last_probe_result},
            reason=reason or unprobed_reason,
        )
    return rotation


def activate_rotation(actor: Actor, *, rotation: Rotation, reason: str = "") -> Rotation:
    """Use the new key from now on; calls under way, batches and responses in the background end on the old one."""
    with transaction.atomic():
        stored = _locked(rotation, STAGED, "be activated")
        old, new = draft.locked(stored.old), draft.locked(stored.new)
        if old.state != "active":
            raise Conflict(
                f"{old} is {old.state} by now, so there is nothing to take over from. Cancel this rotation."
            )
        if problem := may_activate(
            new.state, probed=new.state == "probed", unprobed_reason=stored.unprobed_reason
        ):
            raise Conflict(problem)
        now = timezone.now()
        _move(new, "active", now)
        _move(old, "draining", now)
        stored.state, stored.activated_at = DRAINING, now
        stored.deadline_at = now + timedelta(hours=stored.deadline_hours)
        stored.save()
        touch(LIVE_STATE)
        _event(
            actor,
            stored,
            action="rotation.activated",
            before={old.name: "active", new.name: "probed"},
            after={old.name: "draining", new.name: "active", "deadline": stored.deadline_at},
            reason=reason,
        )
    return stored


def return_rotation(actor: Actor, *, rotation: Rotation, reason: str) -> Rotation:
    """Put the old key back into use; the new one is staged, to be looked at. Data planes follow within a second."""
    if not reason.strip():
        raise InvalidRequest("reason: say why the old key comes back.", param="reason")
    with transaction.atomic():
        stored = _locked(rotation, DRAINING, "be taken back")
        old, new = draft.locked(stored.old), draft.locked(stored.new)
        now = timezone.now()
        _move(old, "active", now)
        if new.state != "revoked":
            _move(new, "staged", now)
        _close(stored, RETURNED, now, reason.strip())
        touch(LIVE_STATE)
        HealthEvent.objects.create(
            at=now,
            kind="rotation_returned",
            provider=stored.provider.slug[:63],
            credential=new.pk,
            process=stored.pk,
            text=reason.strip()[:500],
        )
        _event(
            actor,
            stored,
            action="rotation.returned",
            before={old.name: "draining", new.name: "active"},
            after={old.name: "active", new.name: new.state},
            reason=reason,
        )
    return stored


def finish_rotation(actor: Actor, *, rotation: Rotation, reason: str = "") -> Rotation:
    """Revoke the old key; the new one takes its name. While something still uses the old one this takes a ``reason``."""
    with transaction.atomic():
        stored = _locked(rotation, DRAINING, "be finished")
        old, new = draft.locked(stored.old), draft.locked(stored.new)
        left = remaining(stored)
        if not left.drained and not reason.strip():
            raise Conflict(
                f"{old.name} is still used: {left.in_words()}. Wait until it is drained, or say why it is revoked all the same.",
                param="reason",
            )
        if new.state != "active":
            raise Conflict(f"{new} is {new.state}; {old} is the one in use. Take the rotation back.")
        now = timezone.now()
        name = old.name
        _move(old, "revoked", now, sealed="", name=_retired_name(old, now))
        # Whoever looks for the key finds the one in use under the name that it always had.
        new.name = name
        new.save(update_fields=["name", "updated_at"])
        _close(stored, DONE, now, reason.strip() or "Nothing used the old key any more.")
        touch(LIVE_STATE)
        _event(
            actor,
            stored,
            action="rotation.finished",
            before={"old": "draining", "still_used": None if left.drained else left.in_words()},
            after={"old": "revoked", "named": {name: new.fingerprint or new.source, old.name: "revoked"}},
            reason=reason,
        )
    return stored


def cancel_rotation(actor: Actor, *, rotation: Rotation, reason: str = "") -> Rotation:
    """Give up a rotation whose new key is not in use: that key is revoked, and wiped if it was kept here."""
    with transaction.atomic():
        stored = _locked(rotation, STAGED, "be cancelled")
        new, now = draft.locked(stored.new), timezone.now()
        if new.state != "revoked":
            _move(new, "revoked", now, sealed="")
        _close(stored, CANCELLED, now, reason.strip() or "Cancelled before the new key was used.")
        _event(
            actor,
            stored,
            action="rotation.cancelled",
            before={"state": STAGED},
            after={"state": CANCELLED},
            reason=reason,
        )
    return stored


def _locked(rotation: Rotation, state: str, what: str) -> Rotation:
    stored = draft.locked(rotation)
    if stored.state != state:
        raise Conflict(
            f"This rotation cannot {what}: {stored.get_state_display().lower()}. Reload to see where it stands."
        )
    return stored


def _must_be_rotatable(old: Credential) -> None:
    if old.provider.archived_at is not None:
        raise Conflict(f"{old.provider.slug} is archived; bring it back first.")
    if old.state != "active":
        raise Conflict(f"{old} is {old.state}: a rotation begins at a key in use.")


def _check_settings(keep_minutes: int, deadline_hours: int) -> None:
    if not 0 <= keep_minutes <= MOST_KEPT_MINUTES:
        raise InvalidRequest(f"keep_minutes: from 0 to {MOST_KEPT_MINUTES} (a week).", param="keep_minutes")
    if not 1 <= deadline_hours <= MOST_DEADLINE_HOURS or keep_minutes > deadline_hours * 60:
        raise InvalidRequest(
            f"deadline_hours: from 1 to {MOST_DEADLINE_HOURS}, and not before the minutes are over for which the old key is "
            "kept.",
            param="deadline_hours",
        )


def _what_to_do(outcome: probing.Outcome) -> str:
    if outcome.status == 401:
        return "Copy the key again at the provider, whole; a key that was just made may need a minute there. Then try again."
    if outcome.status == 403:
        return "Give it the permissions of the present key (its project, its models) at the provider, then try again."
    if outcome.status == 429:
        return "Look at its limits and credit at the provider, then try again."
    return "Mend that, then try again; or say why it is to be staged untried."


def _retired_name(old: Credential, now: datetime) -> str:
    ending = f" until {now:%Y-%m-%d %H:%M:%S}"
    return old.name[: 80 - len(ending)] + ending


def _move(credential: Credential, to: str, now: datetime, **change: Any) -> None:
    sources = [state for state, targets in CREDENTIAL_MOVES.items() if to in targets]
    move(credential, to=to, allowed_from=sources, state_changed_at=now, updated_at=now, **change)


def _close(rotation: Rotation, state: str, now: datetime, outcome: str) -> None:
    if not compare_and_set(
        rotation,
        expect={"state": OPEN},
        change={"state": state, "finished_at": now, "outcome": outcome[:500], "updated_at": now},
    ):
        raise Conflict("Somebody else has just ended this rotation. Reload to see where it stands.")


def _event(actor: Actor, rotation: Rotation, *, action: str, **members: Any) -> None:
    record(
        actor,
        action=action,
        object_type=KIND,
        object_id=rotation.pk,
        object_name=str(rotation),
        **members,
    )
