"""What slows guessing down: django-axes with two more limits, for names sprayed from one address and one name guessed from many.

All count failures of the last quarter of an hour in the database, so that they hold over all processes:
``AXES_FAILURE_LIMIT`` for one name from one address, the higher ``SIGN_IN_ADDRESS_LIMIT`` for all names from one
address, and ``SIGN_IN_NAME_LIMIT`` for one name from all addresses. A pause of one name adds nothing to its address, so one
person who forgot a password cannot use up an office's. While a name is closed it stays open to the addresses from which its
person is signed in, so nobody is kept out by whoever guesses at them.
"""

from __future__ import annotations

import logging
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

from axes.attempts import get_cool_off_threshold
from axes.handlers.database import AxesDatabaseHandler
from axes.helpers import get_failure_limit
from axes.models import AccessAttempt
from django.conf import settings
from django.db.models import Sum
from django.http import HttpRequest

from llmops.access.models import SignIn
from llmops.base.requests import client_ip

log = logging.getLogger(__name__)


def caller_address(request: HttpRequest) -> str:
    """The address that attempts are counted for: an IPv6 caller's whole /64, since one household has all of it."""
    text = client_ip(request)
    try:
        address = ip_address(text)
    except ValueError:
        # A Unix socket has none; PostgreSQL would refuse what is no address.
        return ""
    if not isinstance(address, IPv6Address):
        return text
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ip_network((int(address), 64), strict=False).network_address)


class SignInGuard(AxesDatabaseHandler):
    """The handler of django-axes (``AXES_HANDLER``), which also closes an address that fails with many names."""

    def get_failures(self, request: Any, credentials: dict[str, Any] | None = None) -> int:
        """Failures of this name from this address; at least the limit for a name while the address is closed."""
        failures = int(super().get_failures(request, credentials))
        if _name_is_closed(request, credentials):
            return max(failures, get_failure_limit(request, credentials))
        if _address_failures(request) < settings.SIGN_IN_ADDRESS_LIMIT:
            return failures
        if not getattr(request, "sign_in_address_closed", False):
            request.sign_in_address_closed = True
            log.warning(
                "%s failed to sign in %s times in a quarter of an hour and may not try for as long. If it is your proxy, "
                "everybody shares it: set CONSOLE_TRUSTED_PROXIES.",
                request.axes_ip_address,
                settings.SIGN_IN_ADDRESS_LIMIT,
            )
        return max(failures, get_failure_limit(request, credentials))


def _address_failures(request: Any) -> int:
    recent = AccessAttempt.objects.filter(
        ip_address=request.axes_ip_address or None, attempt_time__gte=get_cool_off_threshold(request)
    )
    return recent.aggregate(failures=Sum("failures_since_start"))["failures"] or 0


def _name_is_closed(request: Any, credentials: dict[str, Any] | None) -> bool:
    """Whether so many addresses together guessed at this name that only those its person is known from may try."""
    name = str((credentials or {}).get("username") or getattr(request, "POST", {}).get("username") or "")
    if not name or "\0" in name:
        return False
    recent = AccessAttempt.objects.filter(
        username__iexact=name, attempt_time__gte=get_cool_off_threshold(request)
    )
    failures = recent.aggregate(failures=Sum("failures_since_start"))["failures"] or 0
    if failures < settings.SIGN_IN_NAME_LIMIT:
        return False
    known = SignIn.objects.filter(user__username__iexact=name, ip=client_ip(request)).exclude(ip="")
    return not known.exists()
