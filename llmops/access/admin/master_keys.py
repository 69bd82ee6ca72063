"""Master keys: which there are, what is sealed under each, and sealing everything anew under the one that is first."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from unfold.decorators import display

from llmops.access import services
from llmops.access.admin.projects import ReasonForm
from llmops.access.selectors import master_key_rows, resealing, standing_of
from llmops.base.admin import ReadOnlyAdmin, admin_action
from llmops.base.models import MasterKeyVerifier, Resealing
from llmops.base.sealed import values_by_key
from llmops.core.actors import Actor

_SHOWN = ("key_id", "standing", "values_sealed", "enrolled_at", "retired_at")


@admin.register(MasterKeyVerifier)
class MasterKeyAdmin(ReadOnlyAdmin):
    view_permission, manage_permission = "provider.view", "provider.manage"
    project_path = None
    organisation_only = True
    list_display = ("key_id", "standing", "values_sealed", "enrolled_at", "retired_at")
    list_before_template = "access/sealing_anew.html"
    actions_list = ("reseal",)
    actions_detail = ("retire",)
    fieldsets = ((None, {"fields": _SHOWN}),)
    readonly_fields = _SHOWN

    class Media:
        js = ("console/rotation.js",)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context: dict[str, Any] = {}
        if self.has_view_permission(request):
            rows, run = master_key_rows(), resealing()
            active = rows[0]
            context = {
                "active": active,
                "left": sum(row.values for row in rows if row.key_id != active.key_id),
                "sealed_in_all": sum(row.values for row in rows),
                "missing": [row for row in rows if row.standing == "missing here"],
                "run": run,
                "running": run is not None and run.state == Resealing.RUNNING,
            }
        return super().changelist_view(request, {**context, **(extra_context or {})})

    @display(
        description="in this process",
        label={
            "seals now": "success",
            "opens": "info",
            "missing here": "danger",
            "retired": "",
            "retired, still in the settings": "warning",
        },
    )
    def standing(self, key: MasterKeyVerifier) -> str:
        return standing_of(key.key_id, key)

    @display(description="values sealed under it")
    def values_sealed(self, key: MasterKeyVerifier) -> int:
        return values_by_key().get(key.key_id, 0)

    @admin_action(
        label="Seal everything anew",
        question="Seal every stored secret anew under the key that is first in CONSOLE_MASTER_KEYS? It is done beside all other "
        "work; both keys open meanwhile. Every process must have both keys by now.",
    )
    def reseal(self, request: HttpRequest, actor: Actor, obj: None, data: dict[str, Any]) -> str:
        run = services.start_resealing(actor)
        return f"Begun: {run.total} {'value' if run.total == 1 else 'values'} to seal under {run.to_key}."

    @admin_action(
        label="Retire",
        question="Declare that the master key {obj} is needed no longer? Processes then start without it; take it out of "
        "CONSOLE_MASTER_KEYS and keep it with the backups that were made while it was used.",
        form=ReasonForm,
        danger=True,
        available=lambda key: key.retired_at is None,
    )
    def retire(self, request: HttpRequest, actor: Actor, obj: MasterKeyVerifier, data: dict[str, Any]) -> str:
        services.retire_master_key(actor, key_id=obj.key_id, **data)
        return f"{obj} is retired: take it out of CONSOLE_MASTER_KEYS."
