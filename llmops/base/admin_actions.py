"""Buttons of the admin that change something: a page asks first, only its POST acts, and a service does the work."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError
from django.forms import Form
from django.http import HttpRequest, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods
from unfold.enums import ActionVariant

from llmops.base.refusals import REFUSALS, as_console_error
from llmops.base.requests import actor_of
from llmops.core.redaction import redact_text

log = logging.getLogger(__name__)

#: A text for the page that follows, an answer, or (``shows``) what the page shows beside its form.
Work = Callable[..., "str | HttpResponseBase | dict[str, Any]"]


def admin_action(
    *,
    label: str,
    question: str,
    permission: str | None = None,
    form: type[Form] | None = None,
    icon: str | None = None,
    danger: bool = False,
    available: Callable[[Any], bool] | None = None,
    shows: bool = False,
    template: str = "base/action.html",
    facts: Callable[[Any, HttpRequest, Any], dict[str, Any]] | None = None,
    initial: Callable[[Any], dict[str, Any]] | None = None,
    confirm: str = "",
) -> Callable[[Work], Any]:
    """Make a method ``(self, request, actor, obj, data) -> str | HttpResponse`` a confirmed action of a ``ServiceAdmin``.

    Name the method in ``actions_detail`` (``obj`` is the row) or ``actions_list`` (``obj`` is None). The page shows
    ``question`` (``{obj}`` is filled in) and ``form``, whose cleaned data arrive as ``data``; the text that the method
    returns becomes the message on the page that follows. ``permission`` defaults to the admin's ``manage_permission``.
    ``available(obj)`` hides a button that would be refused anyway. ``template`` may fill the block ``details`` of
    ``base/action.html`` with what ``facts(admin, request, obj)`` gives: what one should have seen before confirming. ``shows``: the work changes nothing, and returns what the same
    page then shows beside its form. ``initial(obj)`` fills the form that one has not sent yet; ``confirm`` is the button's text
    where it is not ``label``.
    """

    def decorate(work: Work) -> Any:
        @wraps(work)
        def view(self: Any, request: HttpRequest, object_id: str | None = None) -> HttpResponseBase:
            return _run(self, view, work, request, object_id)

        action: Any = view
        action.short_description = label
        action.url_path = work.__name__.replace("_", "-")
        action.attrs = {}
        action.icon = icon
        action.variant = ActionVariant.DANGER if danger else ActionVariant.DEFAULT
        action.original_function_name = work.__name__
        action.console = {
            "permission": permission,
            "question": question,
            "form": form or Form,
            "danger": danger,
            "available": available,
            "shows": shows,
            "label": label,
            "template": template,
            "facts": facts,
            "initial": initial,
            "confirm": confirm or label,
        }
        return action

    return decorate


def ask(
    admin: Any,
    request: HttpRequest,
    *,
    work: Work,
    label: str,
    question: str,
    form: type[Form],
    template: str = "base/action.html",
) -> HttpResponseBase:
    """A page that asks and then does ``work``, as an action without a row has it, for a view of its own. Whoever calls it has
    checked that the person may."""
    how = {
        "label": label,
        "question": question,
        "form": form,
        "danger": False,
        "shows": False,
        "template": template,
        "facts": None,
        "initial": None,
        "confirm": label,
    }
    return require_http_methods(["GET", "HEAD", "POST"])(_page)(request, admin, how, work, None)


def _run(admin: Any, view: Any, work: Work, request: HttpRequest, object_id: str | None) -> HttpResponseBase:
    how = view.console
    obj = admin.get_object(request, unquote(object_id)) if object_id is not None else None
    if not admin.holds(request, how["permission"] or admin.manage_permission, obj):
        raise PermissionDenied
    return require_http_methods(["GET", "HEAD", "POST"])(_page)(request, admin, how, work, obj)


def _page(request: HttpRequest, admin: Any, how: dict[str, Any], work: Work, obj: Any) -> HttpResponseBase:
    posted = request.method == "POST"
    initial = how["initial"](obj) if how["initial"] and not posted else None
    form = how["form"](request.POST, request.FILES) if posted else how["form"](initial=initial)
    shown: dict[str, Any] = {}
    if posted and form.is_valid():
        try:
            result = work(admin, request, actor_of(request), obj, form.cleaned_data)
        except REFUSALS as raised:
            show_refusal(form, raised)
        else:
            if isinstance(result, HttpResponseBase):
                return result
            if not isinstance(result, dict):
                messages.success(request, result)
                return HttpResponseRedirect(back_to(admin, obj))
            shown = result
    context = {
        **admin.admin_site.each_context(request),
        "opts": admin.opts,
        "title": how["label"],
        "subtitle": str(obj) if obj is not None else None,
        "object": obj,
        "question": how["question"].format(obj=obj),
        "danger": how["danger"],
        "confirm": how["confirm"],
        "form": form,
        "back": back_to(admin, obj),
        "media": admin.media + form.media,
        "shows": how["shows"],
        **shown,
        **(how["facts"](admin, request, obj) if how["facts"] else {}),
    }
    request.current_app = admin.admin_site.name
    return TemplateResponse(request, how["template"], context)


def back_to(admin: Any, obj: Any) -> str:
    """Address of the change page of ``obj``, or of the list."""
    site, opts = admin.admin_site.name, admin.opts
    if obj is None:
        return reverse(f"{site}:{opts.app_label}_{opts.model_name}_changelist")
    return reverse(f"{site}:{opts.app_label}_{opts.model_name}_change", args=[obj.pk])


def show_refusal(form: Any, raised: Exception) -> None:
    """Put what was refused on the field it names, or on top of the form."""
    error = as_console_error(raised)
    if error is None:
        raise raised
    if isinstance(raised, IntegrityError):
        log.warning("the database refused a change: %s", redact_text(str(raised)))
    problems = error.data.get("problems")
    if not isinstance(problems, dict):
        problems = {error.param or "": error.message}
    for field, message in problems.items():
        told = str(message)
        if field not in form.fields:
            form.add_error(None, redact_text(told))
            continue
        if told.startswith(f"{field}: "):
            # Beside its field the name would be said twice.
            told = told.removeprefix(f"{field}: ")
            told = told[:1].upper() + told[1:]
        form.add_error(field, redact_text(told))
