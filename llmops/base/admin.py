"""The ground of every admin page: changes go through services, permissions come from ``access/rules.py``.

Django's own admin log is not written: each service leaves one audit event, and "History" shows those.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NoReturn
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db import models
from django.db.models import QuerySet
from django.forms import Media, ModelForm
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.module_loading import import_string
from django.utils.text import capfirst
from unfold.admin import ModelAdmin, TabularInline

from llmops.base.admin_actions import admin_action, back_to, show_refusal
from llmops.base.authority import authority, project_of
from llmops.base.refusals import REFUSALS, as_console_error
from llmops.base.requests import actor_of
from llmops.core.actors import Actor
from llmops.core.errors import Conflict

__all__ = ["ReadOnlyAdmin", "ReadOnlyInline", "ServiceAdmin", "admin_action"]

#: What turns titles into slugs: more than all other scripts of a page, and no page does it.
_SLUGS = tuple(f"admin/js/{name}.js" for name in ("urlify", "prepopulate", "vendor/xregexp/xregexp.min"))
#: Hidden field of a change form: ``updated_at`` of the row as shown, a slash, and when that was.
LOADED = "_loaded"


class ServiceAdmin(ModelAdmin):
    """Pages whose changes are made by services.

    Subclasses name ``view_permission`` and ``manage_permission``, the path to the row's project (``project_path``:
    ``"project"``, ``"budget__project"``, ``"pk"`` for projects, None where rows belong to the organisation), and give any
    of ``create``, ``update`` and ``remove``; what they do not give, the page does not offer. What a service refuses
    becomes an error on the field it names, and nothing of the change stays.
    """

    view_permission: str = ""
    manage_permission: str = ""
    project_path: str | None = "project"
    #: True: also looking takes the permission in the whole organisation.
    organisation_only = False
    change_form_template = "base/change_form.html"
    object_history_template = "base/history.html"
    list_per_page = 50
    show_full_result_count = False
    show_facets = None
    save_as = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if getattr(cls, "prepopulated_fields", {}):
            raise TypeError(f"{cls.__name__}: prepopulated_fields take scripts that pages are spared")
        if getattr(cls, "list_editable", ()):
            raise TypeError(f"{cls.__name__}: list_editable would change rows past their services")

    @property
    def media(self) -> Media:
        found = super().media
        return Media(css=found._css, js=[script for script in found._js if script not in _SLUGS])

    # What subclasses give -------------------------------------------------------------------------------------------

    def create(self, actor: Actor, data: dict[str, Any]) -> models.Model:
        raise NotImplementedError

    def update(self, actor: Actor, obj: Any, data: dict[str, Any]) -> models.Model:
        """``obj`` is as stored and locked; ``data`` are the form's cleaned values."""
        raise NotImplementedError

    def remove(self, actor: Actor, obj: Any) -> None:
        raise NotImplementedError

    def offers(self, operation: str) -> bool:
        """Whether this class gives ``create``, ``update`` or ``remove``."""
        return getattr(type(self), operation) is not getattr(ServiceAdmin, operation)

    # Permissions ----------------------------------------------------------------------------------------------------

    def holds(self, request: HttpRequest, permission: str, obj: models.Model | None = None) -> bool:
        """Whether whoever asks holds ``permission`` on ``obj``; without one: anywhere at all."""
        if self.organisation_only:
            return authority().may(request, permission, None)
        if obj is None:
            return authority().may_anywhere(request, permission)
        if self.project_path is None and permission == self.view_permission:
            return authority().may_anywhere(request, permission)
        return authority().may(request, permission, project_of(obj, self.project_path))

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.holds(request, self.view_permission)

    def has_view_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return self.holds(request, self.view_permission, obj)

    def has_add_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        if not self.offers("create"):
            return False
        if self.project_path in (None, "pk"):
            return authority().may(request, self.manage_permission, None)
        return self.holds(request, self.manage_permission)

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return self.offers("update") and self.holds(request, self.manage_permission, obj)

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return self.offers("remove") and self.holds(request, self.manage_permission, obj)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Offers the projects that whoever asks manages, and "the whole organisation" only to who manages that."""
        field = super().formfield_for_foreignkey(db_field, request, **kwargs)
        if field is not None and db_field.name == self.project_path:
            field.queryset = authority().visible(
                field.queryset, request, self.manage_permission, project="pk"
            )
            if not field.required:
                field.empty_label = "The whole organisation"
                field.required = not authority().may(request, self.manage_permission, None)
        return field

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        permissions = [name for name in (self.view_permission, self.manage_permission) if name]
        if self.organisation_only and not any(self.holds(request, name) for name in permissions):
            return super().get_queryset(request).none()
        return authority().visible(
            super().get_queryset(request), request, permissions, project=self.project_path
        )

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """The row, or 404: whoever may not see it learns nothing, not even that it exists.

        A page that only shows reads it once, for its form and for its buttons.
        """
        read: dict[Any, Any] = {}
        if request.method == "GET":
            read = request.__dict__.setdefault("_rows_read", {})
        asked = (self.opts.label, str(object_id), from_field)
        if asked not in read:
            read[asked] = super().get_object(request, object_id, from_field)
        if read[asked] is None:
            raise Http404
        return read[asked]

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Without Django's "delete selected", which would go past the services."""
        return {
            name: item for name, item in super().get_actions(request).items() if name != "delete_selected"
        }

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        obj = self.get_object(request, str(object_id))
        return [item for item in self._get_base_actions_detail() if self._offered(request, item.method, obj)]

    def get_actions_list(self, request: HttpRequest) -> list[Any]:
        return [item for item in self._get_base_actions_list() if self._offered(request, item.method, None)]

    def _offered(self, request: HttpRequest, method: Any, obj: models.Model | None) -> bool:
        how = getattr(method, "console", None)
        if how is None:
            raise TypeError(f"{type(self).__name__}.{method.__name__} must be made with admin_action")
        if not self.holds(request, how["permission"] or self.manage_permission, obj):
            return False
        return how["available"] is None or obj is None or how["available"](obj)

    # Saving ---------------------------------------------------------------------------------------------------------

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except REFUSALS as refused:
            if request.method != "POST" or as_console_error(refused) is None:
                raise
            # The transaction around the first pass is rolled back; the second one only shows the form again.
            request.refused = refused  # type: ignore[attr-defined]
            return super().changeform_view(request, object_id, form_url, extra_context)

    def get_form(
        self, request: HttpRequest, obj: Any | None = None, change: bool = False, **kwargs: Any
    ) -> type[ModelForm[Any]]:
        form = super().get_form(request, obj, change=change, **kwargs)
        refused: Exception | None = getattr(request, "refused", None)
        if refused is None:
            return form

        class RefusedForm(form):  # type: ignore[valid-type, misc]
            def full_clean(self) -> None:
                super().full_clean()
                if self.is_bound and refused is not None:
                    show_refusal(self, refused)

        return RefusedForm

    def save_form(self, request: HttpRequest, form: ModelForm[Any], change: bool) -> Any:
        """Called by Django once the form is valid, inside its transaction: here the service runs."""
        actor = actor_of(request)
        if not change:
            self.check_create(request, form.cleaned_data)
            return self.create(actor, form.cleaned_data)
        # Validation has written the new values onto form.instance; the service must see what is stored.
        stored = self.model._base_manager.select_for_update(of=("self",)).get(pk=form.instance.pk)
        self._refuse_stale(request, stored)
        self.check_update(request, stored, form.cleaned_data)
        return self.update(actor, stored, form.cleaned_data)

    def check_create(self, request: HttpRequest, data: dict[str, Any]) -> None:
        """Refuse a row in a project where whoever asks may not make one."""
        self._refuse_foreign(request, data)

    def check_update(self, request: HttpRequest, obj: Any, data: dict[str, Any]) -> None:
        """Refuse to move a row into a project where whoever asks may not manage it."""
        if self.project_path in data and data[self.project_path] != getattr(obj, self.project_path, None):
            self._refuse_foreign(request, data)

    def _refuse_foreign(self, request: HttpRequest, data: dict[str, Any]) -> None:
        if self.project_path in (None, "pk"):
            if not authority().may(request, self.manage_permission, None):
                raise Conflict("You may not do this for the whole organisation.")
            return
        first, *rest = self.project_path.split("__")
        target = data.get(first)
        project = project_of(target, "__".join(rest)) if rest and target is not None else target
        if not authority().may(request, self.manage_permission, project):
            where = f"in the project {project}" if project is not None else "for the whole organisation"
            raise Conflict(f"You may not do this {where}. Choose a project that you manage.", param=first)

    def _refuse_stale(self, request: HttpRequest, stored: Any) -> None:
        current: datetime | None = getattr(stored, "updated_at", None)
        if current is None:
            return
        version, _, shown_at = request.POST.get(LOADED, "").partition("/")
        if version == current.isoformat():
            return
        since = _moment(shown_at)
        told = [line.summary for line in history(stored, since=since)] if since else []
        raise Conflict(
            "Somebody changed this while you were editing; nothing of yours was saved. "
            + (f"Since you opened the page: {'; '.join(told)}. " if told else "")
            + "Reload the page and make your change again.",
        )

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        """The service has already saved."""

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: Any) -> None:
        """The service has already saved."""

    def get_formsets_with_inlines(self, request: HttpRequest, obj: Any | None = None) -> Any:
        """Inlines only show, so what is posted for them is not even read."""
        if request.method != "POST" and obj is not None:
            yield from super().get_formsets_with_inlines(request, obj)

    def get_inline_instances(self, request: HttpRequest, obj: Any | None = None) -> list[Any]:
        instances = super().get_inline_instances(request, obj)
        for inline in instances:
            if not isinstance(inline, ReadOnlyInline):
                raise TypeError(
                    f"{type(inline).__name__} must be a ReadOnlyInline: rows change through services"
                )
        return instances

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """The audit trail is the log."""

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """The audit trail is the log."""

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        """The audit trail is the log."""

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        obj = kwargs.get("obj")
        stored = getattr(obj, "updated_at", None)
        context["loaded_name"] = LOADED
        context["loaded"] = request.POST.get(LOADED) or (
            f"{stored.isoformat()}/{timezone.now().isoformat()}" if stored else ""
        )
        context["show_save_and_add_another"] = False
        return super().render_change_form(request, context, *args, **kwargs)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        title = capfirst(str(self.opts.verbose_name_plural))
        return super().changelist_view(request, {"title": title, **(extra_context or {})})

    # Removing -------------------------------------------------------------------------------------------------------

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        try:
            return super().delete_view(request, object_id, extra_context)
        except REFUSALS as refused:
            error = as_console_error(refused)
            if request.method != "POST" or error is None:
                raise
            messages.error(request, error.message)
            return HttpResponseRedirect(back_to(self, self.get_object(request, unquote(object_id))))

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> tuple[Any, Any, set[str], list[Any]]:
        """What goes along. Whether it may is for the service to say, not for the admins of the related rows."""
        listed, counts, _, protected = super().get_deleted_objects(objs, request)
        return listed, counts, set(), protected

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        self.remove(actor_of(request), obj)

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> NoReturn:
        raise TypeError("rows are removed one by one, through their service")

    # History --------------------------------------------------------------------------------------------------------

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        obj = self.get_object(request, unquote(object_id))
        if not self.has_view_permission(request, obj):
            raise PermissionDenied
        context = {
            **self.admin_site.each_context(request),
            "title": f"History of {obj}",
            "subtitle": None,
            "lines": history(obj),
            "trail_href": self._trail_of(request, obj),
            "object": obj,
            "opts": self.opts,
            **(extra_context or {}),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, self.object_history_template, context)

    def _trail_of(self, request: HttpRequest, obj: Any) -> str:
        """The Audit page narrowed to ``obj``, for who may look at that."""
        if not authority().may(request, "audit.view", project_of(obj, self.project_path)):
            return ""
        narrowed = {"kind": obj._meta.label_lower, "object": obj.pk}
        return f"{reverse(settings.TRAIL_PAGE)}?{urlencode(narrowed)}"


class ReadOnlyAdmin(ServiceAdmin):
    """Pages that only show. Every field is read-only; ``admin_action`` buttons still work."""

    def get_readonly_fields(self, request: HttpRequest, obj: Any | None = None) -> Sequence[str]:
        declared = list(super().get_readonly_fields(request, obj))
        return declared or [field.name for field in self.opts.fields]


class ReadOnlyInline(TabularInline):
    """Related rows, to look at."""

    extra = 0
    can_delete = False
    show_change_link = True
    template_after = "base/inline_empty.html"

    def has_view_permission(self, request: HttpRequest, obj: Any | None = None) -> bool:
        return True

    def has_add_permission(self, request: HttpRequest, obj: Any | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any | None = None) -> bool:
        return False


def history(obj: models.Model, *, since: datetime | None = None) -> list[Any]:
    """Audit events about ``obj``, newest first, from ``settings.OBJECT_HISTORY`` (the trail lives above this room)."""
    found: list[Any] = import_string(settings.OBJECT_HISTORY)(obj, since=since)
    return found


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else None
