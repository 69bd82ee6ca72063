"""The one admin site."""

from __future__ import annotations

from typing import Any, cast

from django.conf import settings
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from unfold.forms import AuthenticationForm
from unfold.sites import UnfoldAdminSite


class SignInForm(AuthenticationForm):
    """What a person may do is decided by roles (``access.rules``), so signing in asks for a live account only."""

    error_messages = {
        **AuthenticationForm.error_messages,
        "invalid_login": "The user name and the password do not fit together. Both tell capitals from small letters.",
    }

    def clean_username(self) -> str:
        # No account has a longer name, and the columns that count failed attempts hold no more.
        username: str = self.cleaned_data["username"]
        if len(username) > (self.fields["username"].max_length or 150):
            raise self.get_invalid_login_error()
        return username

    def confirm_login_allowed(self, user: Any) -> None:
        if not user.is_active:
            raise self.get_invalid_login_error()


class ConsoleAdminSite(UnfoldAdminSite):
    site_title = site_header = "LLMOps Console"
    login_form = SignInForm
    login_template = "console/sign_in.html"
    logout_template = "console/signed_out.html"

    def has_permission(self, request: HttpRequest) -> bool:
        return request.user.is_active and request.user.is_authenticated

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        # Every page's context asks for all of them, for a list that the navigation stands in place of; it takes a tenth of a page.
        return super().get_app_list(request, app_label) if app_label else []

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return HttpResponseRedirect(reverse("dashboards:overview"))

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if REDIRECT_FIELD_NAME not in request.GET and REDIRECT_FIELD_NAME not in request.POST:
            extra_context = {REDIRECT_FIELD_NAME: reverse("dashboards:overview"), **(extra_context or {})}
        if request.method == "GET" and self.has_permission(request):
            return HttpResponseRedirect(reverse("dashboards:overview"))
        from llmops.access.account_views import SignInView

        request.current_app = self.name
        response: Any = SignInView.as_view(
            template_name=self.login_template,
            authentication_form=self.login_form,
            extra_context={
                **self.each_context(request),
                "app_path": request.get_full_path(),
                "oidc_label": settings.OIDC_LABEL if settings.OIDC_ISSUER and settings.OIDC_CLIENT_ID else "",
                **(extra_context or {}),
            },
        )(request)
        # The sign-in page is one of our own: it gets along without what the admin's policy allows.
        response._csp_config = settings.CONTENT_SECURITY_POLICY["DIRECTIVES"]
        return cast(HttpResponse, response)

    def password_change(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        from llmops.access.views import OwnPasswordView

        request.current_app = self.name
        changing = OwnPasswordView.as_view(
            template_name=self.password_change_template or "registration/password_change_form.html",
            success_url=reverse(f"{self.name}:password_change_done"),
            extra_context={**self.each_context(request), **(extra_context or {})},
        )
        return cast(HttpResponse, changing(request))
