"""Throwing switches of the whole organisation: felt by every data plane within a second, without publishing."""

from __future__ import annotations

from django.db import IntegrityError, transaction
from django.utils import timezone

from llmops.audit.services import record
from llmops.base.live import LIVE_STATE, touch
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, InvalidRequest
from llmops.core.texts import text_problem
from llmops.serving.models import OrganisationSwitch
from llmops.serving.switches import SWITCHES


def switch_on(actor: Actor, *, name: str, reason: str) -> OrganisationSwitch:
    """Raises ``InvalidRequest`` naming the field, ``Conflict`` where it is on already."""
    reason = _checked(name, reason)
    if not reason:
        raise InvalidRequest("reason: say why; callers and on-call read it.", param="reason")
    with transaction.atomic():
        try:
            with transaction.atomic():
                row = OrganisationSwitch.objects.create(
                    name=name, since=timezone.now(), reason=reason, by=actor.name[:200]
                )
        except IntegrityError:
            raise Conflict(f"{SWITCHES[name].title} is on already.") from None
        _tell(actor, name, on=True, reason=reason)
    return row


def switch_off(actor: Actor, *, name: str, reason: str = "") -> None:
    """Raises ``Conflict`` where it is not on."""
    reason = _checked(name, reason)
    with transaction.atomic():
        if not OrganisationSwitch.objects.filter(name=name).delete()[0]:
            raise Conflict(f"{SWITCHES[name].title} is not on.")
        _tell(actor, name, on=False, reason=reason)


def _checked(name: str, reason: str) -> str:
    if name not in SWITCHES:
        raise InvalidRequest(
            f"name: there is no switch {name[:40]!r}. Switches are {', '.join(SWITCHES)}.", param="name"
        )
    reason = reason.strip()
    if len(reason) > 300:
        raise InvalidRequest("reason: at most 300 characters are kept.", param="reason")
    if problem := text_problem(reason):
        raise InvalidRequest(f"reason: {problem}.", param="reason")
    return reason


def _tell(actor: Actor, name: str, *, on: bool, reason: str) -> None:
    touch(LIVE_STATE)
    record(
        actor,
        action="switch.turned_on" if on else "switch.turned_off",
        object_type="serving.organisationswitch",
        object_id=name,
        object_name=SWITCHES[name].title,
        before={"on": not on},
        after={"on": on},
        reason=reason,
    )
