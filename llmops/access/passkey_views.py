"""Passkeys: added and removed on one's own account, and asked for as the second step of signing in. JSON for our own script."""

from __future__ import annotations

import json
import time
from typing import Any

from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from llmops.access import passkeys, services, signals
from llmops.access.account_views import CODE_WITHIN_S, PENDING, WEAK, account, origin_of, pending_sign_in
from llmops.access.second_factor import STRONG, has_factor, must_have
from llmops.base.requests import actor_of
from llmops.core.errors import ConsoleError, InvalidRequest, PermissionDenied

#: A challenge waits in the session, is taken once, and only for what it was made for.
_NEW, _ASKED = "passkey_new", "passkey_asked"


@login_required
@never_cache
@require_POST
def options(request: HttpRequest) -> HttpResponse:
    """What the browser is to make."""
    try:
        _may_change(request)
        offered, challenge = services.offer_passkey(request.user)
    except ConsoleError as refused:
        return _told(refused)
    _keep(request, _NEW, challenge)
    return JsonResponse(offered)


@login_required
@never_cache
@require_POST
def add(request: HttpRequest) -> HttpResponse:
    """What the browser made."""
    challenge = _taken(request, _NEW)
    try:
        _may_change(request)
        given = _read(request)
        row = services.add_passkey(
            actor_of(request),
            user=request.user,
            name=str(given.get("name") or ""),
            answer=given["credential"],
            challenge=challenge,
        )
    except ConsoleError as refused:
        return _told(refused)
    request.session[STRONG] = True
    messages.success(request, f"The passkey {row.name} is asked for when you sign in from now on.")
    return JsonResponse({"next": reverse("account:account")}, status=201)


@login_required
@require_POST
def remove(request: HttpRequest, passkey: Any) -> HttpResponse:
    try:
        _may_change(request)
        name = services.remove_passkey(
            actor_of(request), user=request.user, passkey=passkey, must_keep_one=must_have(request.user)
        )
    except ConsoleError as refused:
        messages.error(request, refused.message)
        response = account(request)
        response.status_code = refused.status
        return response
    messages.success(request, f"The passkey {name} no longer signs you in.")
    return HttpResponseRedirect(reverse("account:account"))


@never_cache
@require_POST
def ask(request: HttpRequest) -> HttpResponse:
    """What the browser is to sign, after the password was right."""
    found = pending_sign_in(request)
    if found is None:
        return _begin_again()
    _, user = found
    offered, challenge = services.ask_for_passkey(user)
    _keep(request, _ASKED, challenge)
    return JsonResponse(offered)


@never_cache
@require_POST
def check(request: HttpRequest) -> HttpResponse:
    """What it signed. The challenge is taken once, whatever comes of it."""
    found = pending_sign_in(request)
    challenge = _taken(request, _ASKED)
    if found is None:
        return _begin_again()
    pending, user = found
    try:
        how = services.take_passkey(user, answer=_read(request)["credential"], challenge=challenge)
    except ConsoleError as refused:
        signals.code_refused(request, user, reason=refused.message.removeprefix("passkey: "))
        return _told(refused)
    request.signed_in_by = f"password and {how}"  # type: ignore[attr-defined]
    del request.session[PENDING]
    login(request, user, backend=pending["backend"])
    request.session[STRONG] = True
    return JsonResponse({"next": pending["next"]})


def _may_change(request: HttpRequest) -> None:
    if has_factor(request.user) and not request.session.get(STRONG):
        raise PermissionDenied(WEAK)
    if not passkeys.usable_at(origin_of(request)):
        raise InvalidRequest(f"Passkeys work where the console is opened as {passkeys.relying_party()}.")


def _keep(request: HttpRequest, name: str, challenge: str) -> None:
    request.session[name] = {"challenge": challenge, "at": time.time()}


def _taken(request: HttpRequest, name: str) -> str:
    """The challenge that waits, which then waits no longer; one that nobody can know where there is none."""
    kept = request.session.pop(name, None)
    if not kept or time.time() - kept["at"] > CODE_WITHIN_S:
        return ""
    return str(kept["challenge"])


def _read(request: HttpRequest) -> dict[str, Any]:
    try:
        given = json.loads(request.body)
        if not isinstance(given, dict) or not isinstance(given.get("credential"), dict):
            raise ValueError("no credential")
    except (ValueError, RecursionError):
        raise InvalidRequest("passkey: what was sent is no answer of a browser. Begin again.") from None
    return given


def _begin_again() -> HttpResponse:
    said = {"error": "This took too long. Begin again.", "next": reverse("admin:login")}
    return JsonResponse(said, status=401)


def _told(refused: ConsoleError) -> HttpResponse:
    said = refused.message.removeprefix("passkey: ").removeprefix("name: ")
    return JsonResponse({"error": said}, status=refused.status)
