"""Who must have a second factor, and what they may reach until they have one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.urls import reverse

from llmops.access import services
from llmops.access.models import Membership, Passkey, SecondFactor
from llmops.access.rules import ADMIN

#: Of a session: it began with a second factor, or with a sign-in that vouches for one.
STRONG = "second_factor"


def must_have(user: Any) -> bool:
    """Whether the installation asks a second factor of this person (``CONSOLE_SECOND_FACTOR_REQUIRED``)."""
    asked = set(settings.SECOND_FACTOR_REQUIRED)
    if not asked or not user.is_active:
        return False
    if "all" in asked or (user.is_superuser and ADMIN in asked):
        return True
    return Membership.objects.filter(user=user, role__in=asked).exists()


def has_factor(user: Any) -> bool:
    """An app or a passkey."""
    return SecondFactor.objects.filter(user=user).exists() or Passkey.objects.filter(user=user).exists()


class SecondFactorMiddleware:
    """Leads whoever must have a second factor and has none to the page where it is turned on, and nowhere else."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        # A service key brings no session, and asking who its user is would read one.
        if settings.SESSION_COOKIE_NAME in request.COOKIES and request.user.is_authenticated:
            services.note_seen(request)
            if settings.SECOND_FACTOR_REQUIRED and (held_back := self._hold_back(request)) is not None:
                return held_back
        return self._get_response(request)

    def _hold_back(self, request: HttpRequest) -> HttpResponse | None:
        if request.session.get(STRONG) or not must_have(request.user):
            return None
        path, account = request.path_info, reverse("account:factor")
        if has_factor(request.user):
            # The session is older than the factor, or began past it.
            logout(request)
            return HttpResponseRedirect(reverse("admin:login"))
        turning_on = (account, reverse("account:passkey_options"), reverse("account:add_passkey"))
        if path in (*turning_on, reverse("admin:logout")) or path.startswith(
            f"/{settings.STATIC_URL.strip('/')}/"
        ):
            return None
        if path.startswith("/api/"):
            message = f"A second factor is needed. Turn it on at {account} first."
            return JsonResponse({"error": {"code": "permission_denied", "message": message}}, status=403)
        return HttpResponseRedirect(account)
