"""The last administrator stays, also when two of them remove each other at the same moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.contrib.auth import get_user_model

from llmops.access.models import Membership
from llmops.access.rules import ADMIN
from llmops.base.locks import lock
from llmops.core.errors import Conflict


@contextmanager
def somebody_must_remain() -> Iterator[None]:
    """Refuse what the block does if it leaves no active superuser, or nobody at all who manages members everywhere.

    Needs a transaction. An organisation that never had a superuser is judged by its administrators alone.
    """
    lock("access.administrators")
    superusers, administrators = _superusers(), _administrators()
    yield
    remaining = _superusers()
    if superusers and not remaining:
        raise Conflict("This is the last active superuser; make somebody else one first.")
    if administrators and not remaining and not _administrators():
        raise Conflict("This is the last administrator of the organisation; appoint somebody else first.")


def _superusers() -> int:
    return get_user_model().objects.filter(is_active=True, is_superuser=True).count()


def _administrators() -> int:
    return Membership.objects.filter(user__is_active=True, project=None, role=ADMIN).count()
