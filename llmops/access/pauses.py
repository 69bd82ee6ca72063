"""Pauses of sign-in on the record.

Imported after ``signals``: importing what django-axes sends connects its own receivers, and the attempt that brings a pause about is
told before it is known to do so.
"""

from __future__ import annotations

from typing import Any

from axes.signals import user_locked_out
from django.contrib.auth import get_user_model
from django.dispatch import receiver

from llmops.access.signals import REFUSALS_WINDOW, once
from llmops.base.requests import client_ip


@receiver(user_locked_out, dispatch_uid="access.locked_out")
def locked_out(sender: Any, request: Any, username: str | None = None, **_: Any) -> None:
    """One event when a pause begins, not one for each attempt within it."""
    if request is None:
        return
    after = {"minutes": int(REFUSALS_WINDOW.total_seconds() // 60)}
    if getattr(request, "sign_in_address_closed", False):
        ip = client_ip(request)
        once(request, "session.locked_out", object_id=ip, object_name=f"everybody from {ip}", after=after)
        return
    name = username or ""
    user = get_user_model().objects.filter(username=name).first() if "\0" not in name else None
    once(
        request,
        "session.locked_out",
        object_id=str(user.pk) if user else "",
        object_name=user.get_username() if user else "an account that does not exist",
        after=after,
    )
