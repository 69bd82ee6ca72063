"""Rotations of provider keys: one page that says where a rotation stands, what still uses the old key, and what can be done."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils import timezone
from unfold.decorators import display

from llmops.base.admin import ReadOnlyAdmin, admin_action
from llmops.core.actors import Actor
from llmops.providers import services
from llmops.providers.admin.forms import ReasonForm
from llmops.providers.draining import Remaining, remaining
from llmops.providers.models import Rotation
from llmops.providers.models.rotations import CANCELLED, DONE, DRAINING, RETURNED, STAGED


@dataclass(frozen=True)
class Step:
    """``state``: done, now, next or skipped."""

    title: str
    text: str
    state: str
    at: datetime | None = None


_SHOWN = (
    "provider",
    "old",
    "new",
    "state_in_words",
    "probe_result",
    "unprobed_reason",
    "begun_by",
    "created_at",
    "activated_at",
    "deadline_at",
    "finished_at",
    "outcome",
)


def steps_of(rotation: Rotation, left: Remaining | None) -> list[Step]:
    """The choreography, with where this rotation stands in it."""
    tried = rotation.probe_result or f"Not tried: {rotation.unprobed_reason}"
    steps = [Step("New key tried", tried, "done", rotation.created_at)]
    began = rotation.activated_at is not None
    if not began and rotation.state == CANCELLED:
        return [*steps, Step("Cancelled", rotation.outcome, "done", rotation.finished_at)]
    steps.append(
        Step(
            "New key in use",
            "New calls go out with it since then; calls under way ended on the old one."
            if began
            else "Activate it: new calls then use it within a second, and those under way end on the old key.",
            "done" if began else "now",
            rotation.activated_at,
        )
    )
    if rotation.state in (RETURNED, CANCELLED):
        title = "Taken back, the old key is in use" if rotation.state == RETURNED else "Ended by hand"
        return [*steps, Step(title, rotation.outcome, "done", rotation.finished_at)]
    over = rotation.state == DONE
    if left is not None:
        text = f"Still used: {left.in_words()}." if not left.drained else "Nothing uses it any more."
    else:
        text = "Nothing begins on it any more." if over else "The old key is kept for what began on it."
    drained = over or (left is not None and left.drained)
    steps.append(Step("Old key drains", text, "done" if drained else "now" if began else "next"))
    steps.append(
        Step(
            "Old key revoked",
            rotation.outcome if over else _when_revoked(rotation),
            "done" if over else "now" if began and drained else "next",
            rotation.finished_at,
        )
    )
    return steps


def _when_revoked(rotation: Rotation) -> str:
    if rotation.activated_at is None or rotation.deadline_at is None:
        how = "by itself, when nothing uses it any more" if rotation.by_itself else "by you"
        return (
            f"{how.capitalize()}; not within {rotation.keep_minutes} minutes after the new one came into use, and after "
            f"{rotation.deadline_hours} hours in any case."
        )
    kept = rotation.activated_at + timedelta(minutes=rotation.keep_minutes)
    first = f"{kept:%Y-%m-%d %H:%M} UTC"
    how = f"By itself when it is drained, not before {first}" if rotation.by_itself else "By you"
    return f"{how}; at {rotation.deadline_at:%Y-%m-%d %H:%M} UTC in any case. Then revoke it at the provider, too."


@admin.register(Rotation)
class RotationAdmin(ReadOnlyAdmin):
    view_permission, manage_permission = "provider.view", "provider.manage"
    project_path = None
    list_display = ("old", "new", "provider", "state_in_words", "begun_by", "created_at", "finished_at")
    list_filter = ("state", "provider")
    list_select_related = ("provider", "old__provider", "new__provider")
    change_form_before_template = "providers/rotation.html"
    actions_detail = ("activate", "take_back", "finish", "cancel")
    fieldsets = (("All of it", {"fields": _SHOWN, "classes": ("collapse",)}),)
    readonly_fields = _SHOWN

    class Media:
        js = ("console/rotation.js",)

    @display(
        description="state",
        ordering="state",
        label={
            "New key tried, not in use yet": "info",
            "New key in use, old one draining": "warning",
            "Done, old key revoked": "success",
            "Taken back, old key in use": "danger",
        },
    )
    def state_in_words(self, rotation: Rotation) -> str:
        return rotation.get_state_display()

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        rotation = kwargs.get("obj")
        if rotation is not None:
            left = remaining(rotation) if rotation.state == DRAINING else None
            context |= {
                "rotation": rotation,
                "steps": steps_of(rotation, left),
                "left": left,
                "moving": rotation.state == DRAINING,
                "now": timezone.now(),
            }
        return super().render_change_form(request, context, *args, **kwargs)

    @admin_action(
        label="Use the new key",
        question="Use the new key of {obj} from now on? Data planes follow within a second; calls under way, batches and "
        "background responses end on the old one.",
        form=ReasonForm,
        available=lambda rotation: rotation.state == STAGED,
    )
    def activate(self, request: HttpRequest, actor: Actor, obj: Rotation, data: dict[str, Any]) -> str:
        services.activate_rotation(actor, rotation=obj, **data)
        return "The new key is in use; the old one drains."

    @admin_action(
        label="Put the old key back",
        question="Take back {obj}? The old key is in use again within a second; the new one is staged.",
        form=ReasonForm,
        danger=True,
        available=lambda rotation: rotation.state == DRAINING,
    )
    def take_back(self, request: HttpRequest, actor: Actor, obj: Rotation, data: dict[str, Any]) -> str:
        services.return_rotation(actor, rotation=obj, **data)
        return "The old key is in use again."

    @admin_action(
        label="Revoke the old key",
        question="Revoke the old key of {obj} now? While something still uses it, say why it cannot wait. This cannot be "
        "undone.",
        form=ReasonForm,
        danger=True,
        available=lambda rotation: rotation.state == DRAINING,
    )
    def finish(self, request: HttpRequest, actor: Actor, obj: Rotation, data: dict[str, Any]) -> str:
        services.finish_rotation(actor, rotation=obj, **data)
        return "The old key is revoked here. Revoke it at the provider, too."

    @admin_action(
        label="Cancel",
        question="Give up {obj}? The new key was never used; it is revoked.",
        form=ReasonForm,
        danger=True,
        available=lambda rotation: rotation.state == STAGED,
    )
    def cancel(self, request: HttpRequest, actor: Actor, obj: Rotation, data: dict[str, Any]) -> str:
        services.cancel_rotation(actor, rotation=obj, **data)
        return "The rotation is cancelled; the old key is in use as before."
