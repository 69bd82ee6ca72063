"""Signing in, one's own second factor and one's own sessions. Pages of our own, under the strict policy."""

from __future__ import annotations

import io
import time
from typing import Any

import segno
from django.contrib import messages
from django.contrib.auth import get_user_model, login
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.safestring import SafeString, mark_safe
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from llmops.access import services, signals
from llmops.access.models import SecondFactor
from llmops.access.second_factor import STRONG, has_factor, must_have
from llmops.base.requests import actor_of
from llmops.core import one_time
from llmops.core.errors import ConsoleError, RateLimited

#: After the password, so long may the code take.
CODE_WITHIN_S = 300
_PENDING = "pending_sign_in"
ISSUER = "LLMOps Console"


class SignInView(LoginView):
    """Django's view, except that who has a second factor is asked for it before the session is theirs."""

    def form_valid(self, form: Any) -> HttpResponse:
        user = form.get_user()
        if not has_factor(user):
            return super().form_valid(form)
        # The password was right, and nothing but the code page may follow from that.
        self.request.session.flush()
        self.request.session[_PENDING] = {
            "user": str(user.pk),
            "backend": user.backend,
            "at": time.time(),
            "next": self.get_success_url(),
        }
        return HttpResponseRedirect(reverse("account:code"))


@sensitive_post_parameters("code")
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def code(request: HttpRequest) -> HttpResponse:
    """The second step of signing in."""
    pending = request.session.get(_PENDING)
    if not pending or time.time() - pending["at"] > CODE_WITHIN_S:
        request.session.pop(_PENDING, None)
        return HttpResponseRedirect(reverse("admin:login"))
    user = get_user_model().objects.filter(pk=pending["user"], is_active=True).first()
    if user is None:
        return HttpResponseRedirect(reverse("admin:login"))
    problem, status = "", 200
    if request.method == "POST":
        try:
            how = services.take_code(user, request.POST.get("code", ""))
        except ConsoleError as refused:
            problem, status = refused.message.removeprefix("code: "), 200
            if isinstance(refused, RateLimited):
                status = 429
            else:
                signals.code_refused(request, user)
        else:
            request.signed_in_by = f"password and {how}"  # type: ignore[attr-defined]
            del request.session[_PENDING]
            login(request, user, backend=pending["backend"])
            request.session[STRONG] = True
            return HttpResponseRedirect(pending["next"])
    return render(request, "console/account/code.html", {"problem": problem}, status=status)


@login_required
@never_cache
def account(request: HttpRequest) -> HttpResponse:
    """One's own second factor and sessions."""
    factor = SecondFactor.objects.filter(user=request.user).first()
    return render(
        request,
        "console/account/account.html",
        {
            "factor": factor,
            "codes_left": len(factor.recovery_hashes) if factor else 0,
            "asked": must_have(request.user),
            "sessions": services.sign_ins_of(request.user),
            "this": request.session.session_key,
        },
    )


@sensitive_post_parameters("code", "seed")
@login_required
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def factor(request: HttpRequest) -> HttpResponse:
    """Turn the second factor on: a seed to scan, and the first code to confirm it."""
    if has_factor(request.user):
        return HttpResponseRedirect(reverse("account:account"))
    problem = ""
    offered = request.POST.get("seed", "")
    try:
        if request.method == "POST":
            codes = services.add_factor(
                actor_of(request), user=request.user, offered=offered, code=request.POST.get("code", "")
            )
            request.session[STRONG] = True
            return _codes_once(request, codes)
    except ConsoleError as refused:
        problem = refused.message.removeprefix("code: ").removeprefix("seed: ")
    try:
        seed = services.opened_offer(request.user, offered)
    except ConsoleError:
        offered, seed = services.offer_factor(request.user)
    uri = one_time.provisioning_uri(seed, issuer=ISSUER, account=request.user.get_username())
    context = {
        "problem": problem,
        "offered": offered,
        "typed": one_time.shown_seed(seed),
        "picture": _picture(uri),
        "asked": must_have(request.user),
        # Read by whoever asks whether a form was taken.
        "form": {"errors": problem},
    }
    return render(request, "console/account/factor.html", context)


@sensitive_post_parameters("code")
@login_required
@require_POST
def remove_factor(request: HttpRequest) -> HttpResponse:
    return _with_code(request, services.remove_own_factor, "Your second factor is off.")


@sensitive_post_parameters("code")
@login_required
@never_cache
@require_POST
def renew_codes(request: HttpRequest) -> HttpResponse:
    try:
        codes = services.renew_recovery_codes(
            actor_of(request), user=request.user, code=request.POST.get("code", "")
        )
    except ConsoleError as refused:
        return _refused(request, refused)
    return _codes_once(request, codes)


@login_required
@require_POST
def end_session(request: HttpRequest, sign_in: Any) -> HttpResponse:
    try:
        services.end_own_session(actor_of(request), user=request.user, sign_in=sign_in)
    except ConsoleError as refused:
        return _refused(request, refused)
    messages.success(request, "That session is signed out.")
    return HttpResponseRedirect(reverse("account:account"))


@login_required
@require_POST
def end_others(request: HttpRequest) -> HttpResponse:
    ended = services.end_other_sessions(
        actor_of(request), user=request.user, but=request.session.session_key or ""
    )
    messages.success(request, f"{ended} other {'session is' if ended == 1 else 'sessions are'} signed out.")
    return HttpResponseRedirect(reverse("account:account"))


def _with_code(request: HttpRequest, change: Any, said: str) -> HttpResponse:
    try:
        change(actor_of(request), user=request.user, code=request.POST.get("code", ""))
    except ConsoleError as refused:
        return _refused(request, refused)
    messages.success(request, said)
    return HttpResponseRedirect(reverse("account:account"))


def _refused(request: HttpRequest, refused: ConsoleError) -> HttpResponse:
    messages.error(request, refused.message.removeprefix("code: "))
    response = account(request)
    response.status_code = refused.status
    return response


def _codes_once(request: HttpRequest, codes: list[str]) -> HttpResponse:
    response = render(request, "console/account/codes.html", {"codes": codes})
    response["Cache-Control"] = "no-store"
    return response


def _picture(uri: str) -> SafeString:
    """The QR code as SVG without styles, which the strict policy would not apply."""
    out = io.BytesIO()
    segno.make(uri, error="m").save(
        out, kind="svg", xmldecl=False, svgns=True, scale=5, border=3, dark="#000", light="#fff", omitsize=False,
        title="QR code for an authenticator app",
    )  # fmt: skip
    return mark_safe(out.getvalue().decode())  # noqa: S308 - made of a seed and an escaped name
