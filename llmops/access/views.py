"""Changing one's own password."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.views import PasswordChangeView
from django.http import HttpResponse, HttpResponseRedirect
from unfold.forms import AdminOwnPasswordChangeForm

from llmops.access import services
from llmops.base.admin_actions import show_refusal
from llmops.base.refusals import REFUSALS
from llmops.base.requests import actor_of


class OwnPasswordView(PasswordChangeView):
    """Django's view, except that a service makes the change. Other sessions of the account end, this one stays."""

    form_class = AdminOwnPasswordChangeForm

    def form_valid(self, form: Any) -> HttpResponse:
        try:
            user = services.change_own_password(
                actor_of(self.request), user=form.user, password=form.cleaned_data["new_password1"]
            )
        except REFUSALS as refused:
            show_refusal(form, refused)
            return self.form_invalid(form)
        update_session_auth_hash(self.request, user)
        services.key_changed(self.request)
        return HttpResponseRedirect(self.get_success_url())
