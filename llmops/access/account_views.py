"""Signing in, one's own second factor and one's own sessions. Pages of our own, under the strict policy."""

from __future__ import annotations

import io
import secrets
import time
from functools import partial
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import get_user_model, login
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import LoginView
from django.core.exceptions import PermissionDenied as ForbiddenHere
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.safestring import SafeString, mark_safe
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from llmops.access import oidc, passkeys, services, signals
from llmops.access.models import Passkey, SecondFactor
from llmops.access.second_factor import STRONG, has_factor, must_have
from llmops.base.requests import actor_of
from llmops.core import one_time
from llmops.core.errors import ConsoleError, PermissionDenied, RateLimited

#: After the password, so long may the code take.
CODE_WITHIN_S = 300
PENDING, _OIDC = "pending_sign_in", "oidc_sign_in"
ISSUER = "LLMOps Console"
#: Said to a session that began with the password alone, when its person has a second factor meanwhile.
WEAK = "Sign in again with your second factor to change how you sign in."


class SignInView(LoginView):
    """Django's view, except that who has a second factor is asked for it before the session is theirs."""

    def form_valid(self, form: Any) -> HttpResponse:
        user = form.get_user()
        if not has_factor(user):
            return super().form_valid(form)
        # The password was right, and nothing but the code page may follow from that.
        self.request.session.flush()
        self.request.session[PENDING] = {
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
    found = pending_sign_in(request)
    if found is None:
        return HttpResponseRedirect(reverse("admin:login"))
    pending, user = found
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
            del request.session[PENDING]
            login(request, user, backend=pending["backend"])
            request.session[STRONG] = True
            return HttpResponseRedirect(pending["next"])
    ways = {
        "app": SecondFactor.objects.filter(user=user).exists(),
        "passkey": Passkey.objects.filter(user=user).exists(),
        "usable": passkeys.usable_at(origin_of(request)),
    }
    return render(request, "console/account/code.html", {"problem": problem, **ways}, status=status)


def pending_sign_in(request: HttpRequest) -> tuple[dict[str, Any], Any] | None:
    """What the password page left for the second step, and whose it is; None where there is nothing, or no longer."""
    pending = request.session.get(PENDING)
    if not pending or time.time() - pending["at"] > CODE_WITHIN_S:
        request.session.pop(PENDING, None)
        return None
    user = get_user_model().objects.filter(pk=pending["user"], is_active=True).first()
    return None if user is None else (pending, user)


def origin_of(request: HttpRequest) -> str:
    return f"{request.scheme}://{request.get_host()}"


@never_cache
@require_safe
def oidc_start(request: HttpRequest) -> HttpResponse:
    """Off to the organisation's own sign-in."""
    if not oidc.configured():
        raise Http404
    try:
        started = oidc.start(request.build_absolute_uri(reverse("account:oidc_callback")))
    except ConsoleError as refused:
        return _not_signed_in(request, refused)
    target = request.GET.get("next", "")
    if not url_has_allowed_host_and_scheme(target, {request.get_host()}, require_https=request.is_secure()):
        target = reverse("dashboards:overview")
    request.session[_OIDC] = {
        "state": started.state,
        "nonce": started.nonce,
        "verifier": started.verifier,
        "at": time.time(),
        "next": target,
    }
    return HttpResponseRedirect(started.address)


@never_cache
@require_safe
def oidc_callback(request: HttpRequest) -> HttpResponse:
    """Back from there. The state is taken once, whatever comes of it."""
    if not oidc.configured():
        raise Http404
    kept = request.session.pop(_OIDC, None)
    try:
        if (
            not kept
            or time.time() - kept["at"] > CODE_WITHIN_S
            or not secrets.compare_digest(request.GET.get("state", "").encode(), kept["state"].encode())
            or request.GET.get("iss", settings.OIDC_ISSUER) != settings.OIDC_ISSUER
        ):
            raise PermissionDenied("This sign-in was not begun here, or took too long. Begin again.")
        if request.GET.get("error") or not request.GET.get("code"):
            raise PermissionDenied("The sign-in service did not sign you in. Begin again.")
        identity = oidc.finish(
            code=request.GET["code"],
            callback=request.build_absolute_uri(reverse("account:oidc_callback")),
            nonce=kept["nonce"],
            verifier=kept["verifier"],
        )
        user = services.account_of(identity)
    except ConsoleError as refused:
        return _not_signed_in(request, refused)
    request.signed_in_by = "oidc"  # type: ignore[attr-defined]
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    if settings.OIDC_IS_STRONG:
        request.session[STRONG] = True
    return HttpResponseRedirect(kept["next"])


def _not_signed_in(request: HttpRequest, refused: ConsoleError) -> HttpResponse:
    if isinstance(refused, PermissionDenied):
        signals.code_refused(request, None)
    return render(
        request, "console/account/not_signed_in.html", {"problem": refused.message}, status=refused.status
    )


@login_required
@never_cache
def account(request: HttpRequest) -> HttpResponse:
    """One's own second factor and sessions."""
    factor = SecondFactor.objects.filter(user_id=request.user.pk or 0).first()
    return render(
        request,
        "console/account/account.html",
        {
            "factor": factor,
            "codes_left": len(factor.recovery_hashes) if factor else 0,
            "asked": must_have(request.user),
            "passkeys": Passkey.objects.filter(user_id=request.user.pk or 0),
            "usable": passkeys.usable_at(origin_of(request)),
            "domain": passkeys.relying_party(),
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
    if SecondFactor.objects.filter(user_id=request.user.pk or 0).exists():
        return HttpResponseRedirect(reverse("account:account"))
    if has_factor(request.user) and not request.session.get(STRONG):
        raise ForbiddenHere(WEAK)
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
        "usable": passkeys.usable_at(origin_of(request)),
    }
    return render(request, "console/account/factor.html", context, status=400 if problem else 200)


@sensitive_post_parameters("code")
@login_required
@require_POST
def remove_factor(request: HttpRequest) -> HttpResponse:
    remove = partial(services.remove_own_factor, must_keep_one=must_have(request.user))
    return _with_code(request, remove, "Your authenticator app is off.")


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
    import segno

    out = io.BytesIO()
    segno.make(uri, error="m").save(
        out, kind="svg", xmldecl=False, svgns=True, scale=1, border=3, dark="#000", light="#fff", omitsize=True,
        title="QR code for an authenticator app",
    )  # fmt: skip
    return mark_safe(out.getvalue().decode())  # noqa: S308 - made of a seed and an escaped name
