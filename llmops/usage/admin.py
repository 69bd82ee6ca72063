"""Calls, journals and jobs, to look at. The console's own pages show them better; these show every field."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.paginator import Paginator
from django.utils.functional import cached_property
from unfold.decorators import display

from llmops.base.admin import ReadOnlyAdmin
from llmops.core.money import format_usd
from llmops.usage.models import Call, Job, Journal

_MOST_PAGED = 10_000


class _Bounded(Paginator):
    """Numbers the first pages only: counting every call would read them all."""

    @cached_property
    def count(self) -> int:
        return int(self.object_list[:_MOST_PAGED].count())  # type: ignore[attr-defined]


@admin.register(Call)
class CallAdmin(ReadOnlyAdmin):
    view_permission = "usage.view"
    project_path = "project_id"
    list_display = ("started_at", "status_word", "route", "model", "endpoint", "error_code", "cost", "total")
    list_filter = ("status", "endpoint", "streamed")
    ordering = ("-started_at", "-id")
    paginator = _Bounded

    @display(
        description="status",
        label={"ok": "success", "error": "danger", "interrupted": "danger", "unknown": "danger"},
        ordering="status",
    )
    def status_word(self, call: Call) -> Any:
        return call.status, call.get_status_display()

    @display(description="cost, USD")
    def cost(self, call: Call) -> str:
        return format_usd(call.cost_nano)

    @display(description="total, ms")
    def total(self, call: Call) -> str:
        return f"{call.total_us / 1000:,.0f}"


class _Organisation(ReadOnlyAdmin):
    view_permission = "usage.view"
    project_path = None
    organisation_only = True


@admin.register(Journal)
class JournalAdmin(_Organisation):
    list_display = ("id", "host", "state", "opened_at", "seen_at", "sequence", "problem")
    list_filter = ("state", "host")


@admin.register(Job)
class JobAdmin(_Organisation):
    list_display = ("requested_at", "kind", "state", "progress", "message", "requested_by")
    list_filter = ("kind", "state")

    @display(description="progress")
    def progress(self, job: Job) -> str:
        return f"{job.done} of {job.total}"
