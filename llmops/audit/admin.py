"""The trail, to read."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import FieldTextFilter, RangeDateTimeFilter
from unfold.decorators import display
from unfold.paginator import InfinitePaginator

from llmops.audit import wording
from llmops.audit.models import Event
from llmops.audit.objects import address_of, kind_of
from llmops.base.admin import ReadOnlyAdmin


@admin.register(Event)
class EventAdmin(ReadOnlyAdmin):
    view_permission = manage_permission = "audit.view"
    project_path = "project_id"
    paginator = InfinitePaginator
    list_display = ("sequence", "when", "who", "action", "what", "in_short")
    list_display_links = ("sequence", "when")
    list_filter = (
        ("at", RangeDateTimeFilter),
        ("action", FieldTextFilter),
        ("actor_name", FieldTextFilter),
        ("object_type", FieldTextFilter),
        ("object_id", FieldTextFilter),
    )
    list_filter_submit = True
    search_fields = ("actor_name", "action", "object_name", "object_id", "request_id", "ip")
    fieldsets = (
        (None, {"fields": ("sequence", "when", "who", "action", "what", "changes", "reason")}),
        ("From where", {"fields": ("actor_kind", "actor_id", "ip", "request_id")}),
        ("The chain", {"fields": ("prev_hash", "hash")}),
    )
    readonly_fields = (
        *(field.name for field in Event._meta.fields),
        "when",
        "who",
        "what",
        "changes",
    )

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        # The history of an event is the event.
        return super().render_change_form(request, {**context, "show_history": False}, *args, **kwargs)

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> Any:
        return self.change_view(request, object_id)

    @display(description="time", ordering="sequence")
    def when(self, event: Event) -> SafeString:
        """In UTC; the browser puts the viewer's zone on it (``static/console/shell.js``)."""
        at = event.at.astimezone(UTC)
        return format_html(
            '<time datetime="{}" data-as="exact">{} UTC</time>', at.isoformat(), f"{at:%Y-%m-%d %H:%M:%S}"
        )

    @display(description="who", ordering="actor_name")
    def who(self, event: Event) -> str:
        return event.actor_name

    @display(description="object")
    def what(self, event: Event) -> SafeString | str:
        name = f"{kind_of(event)} {event.object_name}"
        address = address_of(event)
        return format_html('<a class="underline" href="{}">{}</a>', address, name) if address else name

    @display(description="changes")
    def in_short(self, event: Event) -> str:
        lines = wording.changes(event.before, event.after)
        more = f" and {len(lines) - 2} more" if len(lines) > 2 else ""
        return "; ".join(line if len(line) <= 60 else f"{line[:60]}…" for line in lines[:2]) + more

    @display(description="what changed")
    def changes(self, event: Event) -> SafeString | str:
        lines = wording.changes(event.before, event.after)
        return format_html_join("", "<div>{}</div>", ((line,) for line in lines)) or "nothing"
