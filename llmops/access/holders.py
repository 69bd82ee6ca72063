"""Who holds the secret of a service key, as far as anybody can know: whoever it was shown to."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.utils.dateparse import parse_datetime

from llmops.access.models import ServiceKey
from llmops.audit.models import Event
from llmops.audit.selectors import type_of

_SHOWN = ("service_key.created", "service_key.rotated")
#: A key may have been made by who holds another, and that one by who holds a third.
_DEEPEST = 5


def holders_of_key(key_id: str, at: datetime) -> set[str]:
    """Accounts that were shown a secret of the key which worked at ``at``: who made it, and who renewed it since.

    A key that another key made is held by that one's holders. Read off the trail, which nobody can change. Secrets that came from outside
    (``manage.py apply``) and those that the console keeps to itself were shown to no account.
    """
    found: set[str] = set()
    looked_at, left = set[str](), [key_id]
    for _ in range(_DEEPEST):
        left = [one for one in left if one not in looked_at]
        looked_at.update(left)
        following = list[str]()
        for one in left:
            people, keys = _shown_to(one, at)
            found |= people
            following += keys
        left = following
    return found


def _shown_to(key_id: str, at: datetime) -> tuple[set[str], list[str]]:
    if not _is_id(key_id) or ServiceKey.objects.filter(pk=key_id, held_by_console=True).exists():
        return set(), []
    events = list(
        Event.objects.filter(object_type=type_of(ServiceKey), object_id=key_id, action__in=_SHOWN).order_by(
            "sequence"
        )
    )
    people, keys = set[str](), list[str]()
    for place, event in enumerate(events):
        following = events[place + 1] if place + 1 < len(events) else None
        if event.at > at or (following is not None and _worked_until(following) < at):
            continue
        if event.actor_kind == "user":
            people.add(event.actor_id)
        elif event.actor_kind == "service_key":
            keys.append(event.actor_id)
    return people, keys


def _worked_until(rotation: Event) -> datetime:
    """Until when the secret before this rotation worked."""
    grace = (rotation.after or {}).get("previous_valid_until")
    return (parse_datetime(str(grace)) if grace else None) or rotation.at


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
