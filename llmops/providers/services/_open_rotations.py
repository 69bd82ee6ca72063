"""What a rotation under way means for the keys in it, whoever changes them otherwise."""

from __future__ import annotations

from django.db.models import Q
from django.utils import timezone

from llmops.base.live import LIVE_STATE, touch
from llmops.base.transitions import compare_and_set
from llmops.core.errors import Conflict
from llmops.providers.models import Credential, Rotation
from llmops.providers.models.rotations import CANCELLED, DRAINING, OPEN


def open_rotation(credential: Credential) -> Rotation | None:
    """The rotation under way in which a key takes part; its row is locked, before the rows of keys, until the transaction
    ends."""
    takes_part = Q(old=credential.pk) | Q(new=credential.pk)
    return Rotation.objects.select_for_update().filter(takes_part, state__in=OPEN).order_by("pk").first()


def refuse_in_rotation(credential: Credential) -> None:
    """Keys of a rotation move with it, or else nobody could say what it has come to. Revoking one is always possible."""
    if open_rotation(credential) is not None:
        raise Conflict(
            f"{credential} takes part in a rotation. Go on with that, or cancel it or take it back first; to end a key that "
            "leaked, revoke it."
        )


def close_for_revoked(rotation: Rotation, credential: Credential) -> None:
    """A key of ``rotation`` was revoked by hand: the rotation is over. If it was the new one, the old one is in use again."""
    now = timezone.now()
    left = ""
    if rotation.state == DRAINING and credential.pk == rotation.new_id:
        back = Credential.objects.filter(pk=rotation.old_id, state="draining")
        if back.update(state="active", state_changed_at=now, updated_at=now):
            left = f" {rotation.old} is in use again."
            touch(LIVE_STATE)
    compare_and_set(
        rotation,
        expect={"state": OPEN},
        change={
            "state": CANCELLED,
            "finished_at": now,
            "outcome": f"{credential.name} was revoked by hand.{left}",
        },
    )
