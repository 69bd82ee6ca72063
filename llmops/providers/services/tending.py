"""What happens to rotations and keys without anybody's doing: taken back when the new key is refused, finished when the old
one is drained or its time is over, and reminders of keys that are due."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from django.conf import settings
from django.core.mail import send_mail
from django.db import transaction
from django.utils import timezone

from llmops.access.selectors import addresses_of_administrators
from llmops.core.actors import Actor
from llmops.core.errors import ConsoleError
from llmops.providers import probing
from llmops.providers.draining import heard_since, remaining
from llmops.providers.models import Credential, Rotation
from llmops.providers.models.rotations import DRAINING
from llmops.providers.rules import refused_for_good, still_refused
from llmops.providers.selectors import keys_due, reveal
from llmops.providers.services.credentials import chat_model_of
from llmops.providers.services.rotations import Probe, finish_rotation, return_rotation

log = logging.getLogger(__name__)

#: Who does not act on a reminder is reminded again.
REMIND_EVERY = timedelta(days=7)


def tend_rotations(actor: Actor, *, now: datetime | None = None, probe: Probe = probing.probe) -> int:
    """Take back or finish rotations for which it is time; how many. Any number of workers may run this at once."""
    moved = 0
    under_way = Rotation.objects.filter(state=DRAINING).select_related("provider", "old", "new")
    for rotation in under_way.order_by("pk"):
        try:
            moved += _tend(actor, rotation, now or timezone.now(), probe)
        except ConsoleError as refused:
            # Somebody was quicker, or moved a key by hand; the next look sees what has become of it.
            log.warning("the rotation %s was left as it is: %s", rotation, refused.message)
    return moved


def _tend(actor: Actor, rotation: Rotation, now: datetime, probe: Probe) -> bool:
    if why := _refused(rotation, probe):
        with transaction.atomic():
            return_rotation(actor, rotation=rotation, reason=why)
            _tell_administrators(
                f"{rotation.old} is in use again: its new key was refused",
                [
                    f"The rotation of {rotation.old} was taken back by itself. {why}",
                    "No call failed by it while the old key could answer. The new key is staged: probe it, mend it at the",
                    "provider, and rotate again.",
                ],
                f"{settings.PUBLIC_URL}/admin/providers/rotation/{rotation.pk}/change/",
            )
        return True
    assert rotation.activated_at is not None and rotation.deadline_at is not None
    if now >= rotation.deadline_at:
        finish_rotation(
            actor,
            rotation=rotation,
            reason=f"Its time was over ({rotation.deadline_hours} h); still used: {remaining(rotation).in_words()}.",
        )
        return True
    kept = rotation.activated_at + timedelta(minutes=rotation.keep_minutes)
    if rotation.by_itself and now >= kept and remaining(rotation).drained:
        finish_rotation(actor, rotation=rotation)
        return True
    return False


def _refused(rotation: Rotation, probe: Probe) -> str:
    """Why the new key is to be taken back; empty when it is not."""
    heard = heard_since(rotation.new, rotation)
    if not still_refused(heard):
        return ""
    if still_refused(heard_since(rotation.old, rotation, sure=True)):
        # The provider refuses both: going back would help nobody, and say that it had.
        return ""
    if refused_for_good(heard_since(rotation.new, rotation, sure=True)):
        return "Data planes met a burst of 401 on the new key."
    try:
        outcome = probe(
            rotation.provider,
            reveal(rotation.new, to=rotation.provider.base_url),
            chat_model=chat_model_of(rotation.provider),
        )
    except ConsoleError as error:
        return f"A data plane was refused with the new key, and it cannot be read: {error.message}"
    if outcome.status in (401, 403):
        return f"A data plane was refused with the new key, and a probe was, too. {outcome.message}"
    return ""


def remind_of_keys(*, now: datetime | None = None) -> int:
    """One e-mail about the keys that are due to be rotated and were not told of lately; how many keys it names."""
    now = now or timezone.now()
    due = [
        one
        for one in keys_due(now)
        if one.credential.reminded_at is None or one.credential.reminded_at <= now - REMIND_EVERY
    ]
    if not due:
        return 0
    with transaction.atomic():
        claimed = [
            one
            for one in due
            if Credential.objects.filter(pk=one.credential.pk, reminded_at=one.credential.reminded_at).update(
                reminded_at=now
            )
        ]
        if claimed:
            _tell_administrators(
                f"{len(claimed)} provider {'key is' if len(claimed) == 1 else 'keys are'} due to be rotated",
                [f"{one.credential}: {one.in_words()}" for one in claimed]
                + ["", "Open the key and press Rotate; no call fails by it."],
                f"{settings.PUBLIC_URL}/admin/providers/credential/",
            )
    return len(claimed)


def _tell_administrators(subject: str, lines: list[str], address: str) -> None:
    """By e-mail, once the present transaction is committed. What it says stands on the pages as well."""
    text = "\n".join([*lines, "", address, ""])
    transaction.on_commit(_sending(subject, text, addresses_of_administrators()))


def _sending(subject: str, text: str, addresses: list[str]) -> Callable[[], None]:
    def send() -> None:
        for one in addresses:
            try:
                send_mail(subject, text, None, [one])
            except Exception:
                log.exception("an e-mail about keys was not sent")

    return send
