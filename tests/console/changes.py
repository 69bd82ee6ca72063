"""How to make each change that the console offers, through the API and through the admin.

A new route is one entry here: ``"METHOD /address/{pk}/"`` -> the object it acts on, and what is sent. ``tests`` walk this
table; a change that is not in it fails ``test_every_change_leaves_one_event.py``.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from llmops.access import services as access
from llmops.access.models import SecondFactor
from llmops.access.sealed import factor_identity
from llmops.base.master_keys import master_keys
from llmops.core import one_time
from llmops.core.ids import uuid7
from llmops.prompts.files import pack
from llmops.tools.services import token_of
from tests.cast import PASSWORD
from tests.console.browser_forms import form_of
from tests.console.world import TOMORROW, YESTERDAY

World = SimpleNamespace
TOKENS = {"context_window": 8000, "max_output_tokens": 500, "default_max_output_tokens": 100}


#: The least that a tool says.
DEFINITION = {
    "description": "Says it.", "risk": "irreversible", "parameters": {"type": "object"}, "executor": "python",
    "settings": {"function": "echo"},
}  # fmt: skip
#: A folder of a prompt as the API takes it.
PROMPT_FILES = base64.b64encode(pack({"brought": {"task.md": "Say hello."}})).decode()


@dataclass(frozen=True)
class Change:
    #: from the world to the object's name in the address; None where the address names none
    target: Callable[[World], Any] | None = None
    #: the API's body, or what is typed into the admin's form
    send: dict[str, Any] | Callable[[World], dict[str, Any]] = field(default_factory=dict)
    #: the audit event's action
    action: str = ""

    def sent(self, world: World) -> dict[str, Any]:
        return self.send(world) if callable(self.send) else self.send


def _pk(name: str) -> Callable[[World], Any]:
    return lambda world: getattr(world, name).pk


def _slug(name: str) -> Callable[[World], Any]:
    return lambda world: getattr(world, name).slug


API: dict[str, Change] = {
    "POST /api/v1/projects/": Change(send={"slug": "new"}, action="project.created"),
    "PATCH /api/v1/projects/{slug}/": Change(_slug("support"), {"name": "Renamed"}, "project.changed"),
    "POST /api/v1/projects/{slug}/archive/": Change(_slug("support"), {"reason": "over"}, "project.archived"),
    "POST /api/v1/projects/{slug}/restore/": Change(_slug("old_project"), {}, "project.restored"),
    "POST /api/v1/service-keys/": Change(
        send={"project": "support", "name": "new"}, action="service_key.created"
    ),
    "PATCH /api/v1/service-keys/{pk}/": Change(_pk("key"), {"rpm": 5}, "service_key.changed"),
    "POST /api/v1/service-keys/{pk}/rotate/": Change(_pk("key"), {"grace_seconds": 5}, "service_key.rotated"),
    "POST /api/v1/service-keys/{pk}/pause/": Change(_pk("key"), {"reason": "why"}, "service_key.paused"),
    "POST /api/v1/service-keys/{pk}/resume/": Change(_pk("paused_key"), {}, "service_key.resumed"),
    "POST /api/v1/service-keys/{pk}/end-grace/": Change(_pk("rotated_key"), {}, "service_key.grace_ended"),
    "POST /api/v1/service-keys/{pk}/revoke/": Change(_pk("key"), {}, "service_key.revoked"),
    "POST /api/v1/memberships/": Change(
        send={"user": "eve", "project": "support", "role": "reviewer"}, action="member.added"
    ),
    "PATCH /api/v1/memberships/{pk}/": Change(_pk("membership"), {"role": "auditor"}, "member.role_changed"),
    "DELETE /api/v1/memberships/{pk}/": Change(_pk("membership"), {}, "member.removed"),
    "POST /api/v1/users/": Change(send={"username": "new"}, action="user.created"),
    "PATCH /api/v1/users/{pk}/": Change(_pk("eve"), {"email": "eve@example.com"}, "user.changed"),
    "POST /api/v1/users/{pk}/activate/": Change(_pk("closed"), {}, "user.activated"),
    "POST /api/v1/users/{pk}/deactivate/": Change(_pk("eve"), {}, "user.deactivated"),
    "POST /api/v1/users/{pk}/set-password/": Change(_pk("eve"), {"password": PASSWORD}, "user.password_set"),
    "POST /api/v1/users/{pk}/unlock/": Change(_pk("eve"), {}, "user.unlocked"),
    "POST /api/v1/users/{pk}/end-sessions/": Change(_pk("eve"), {}, "user.sessions_ended"),
    "POST /api/v1/users/{pk}/reset-second-factor/": Change(_pk("eve"), {}, "second_factor.reset"),
    "POST /api/v1/providers/": Change(
        send={"slug": "new", "kind": "openai", "base_url": "https://api.openai.com/v1"},
        action="provider.created",
    ),
    "PATCH /api/v1/providers/{slug}/": Change(_slug("provider"), {"name": "Renamed"}, "provider.changed"),
    "POST /api/v1/providers/{slug}/archive/": Change(_slug("spare_provider"), {}, "provider.archived"),
    "POST /api/v1/providers/{slug}/restore/": Change(_slug("old_provider"), {}, "provider.restored"),
    "POST /api/v1/providers/{slug}/pause/": Change(_slug("provider"), {"reason": "why"}, "provider.paused"),
    "POST /api/v1/providers/{slug}/resume/": Change(_slug("paused_provider"), {}, "provider.resumed"),
    "POST /api/v1/credentials/": Change(
        send={"provider": "sim", "name": "new", "secret": "simulated-key-0009"}, action="credential.added"
    ),
    "POST /api/v1/credentials/{pk}/replace-secret/": Change(
        _pk("staged"), {"secret": "simulated-key-0010"}, "credential.replaced"
    ),
    "POST /api/v1/credentials/{pk}/probe/": Change(_pk("staged"), {}, "credential.probed"),
    "POST /api/v1/credentials/{pk}/activate/": Change(
        _pk("staged"), {"unprobed_reason": "a test"}, "credential.activated"
    ),
    "POST /api/v1/credentials/{pk}/drain/": Change(_pk("active"), {}, "credential.drained"),
    "POST /api/v1/credentials/{pk}/revoke/": Change(
        _pk("active"), {"reason": "leaked"}, "credential.revoked"
    ),
    "POST /api/v1/credentials/{pk}/remind-after/": Change(
        _pk("active"), {"days": 30}, "credential.rescheduled"
    ),
    "POST /api/v1/credentials/{pk}/read-again/": Change(_pk("referenced"), {}, "credential.reread_requested"),
    "POST /api/v1/rotations/": Change(
        send=lambda world: {
            "credential": str(world.active.pk),
            "secret": "simulated-key-0011",
            "unprobed_reason": "a test",
        },
        action="rotation.staged",
    ),
    "POST /api/v1/rotations/{pk}/activate/": Change(_pk("rotation"), {}, "rotation.activated"),
    "POST /api/v1/rotations/{pk}/cancel/": Change(_pk("rotation"), {}, "rotation.cancelled"),
    "POST /api/v1/rotations/{pk}/take-back/": Change(
        _pk("draining_rotation"), {"reason": "slower"}, "rotation.returned"
    ),
    "POST /api/v1/rotations/{pk}/finish/": Change(
        _pk("draining_rotation"), {"reason": "leaked"}, "rotation.finished"
    ),
    "POST /api/v1/models/": Change(
        send={"slug": "new", "provider": "sim", "upstream_model": "new", **TOKENS}, action="model.created"
    ),
    "POST /api/v1/models/{slug}/archive/": Change(_slug("spare_model"), {}, "model.archived"),
    "POST /api/v1/models/{slug}/restore/": Change(_slug("old_model"), {}, "model.restored"),
    "POST /api/v1/models/{slug}/prices/": Change(
        _slug("model"), {"token_class": "reasoning", "usd_per_million": "3.50"}, "price.added"
    ),
    "POST /api/v1/models/{slug}/versions/": Change(
        _slug("model"), {"max_output_tokens": 700}, "model.pinned"
    ),
    "POST /api/v1/routes/": Change(
        send={"slug": "new", "targets": [{"model": "sim-small"}]}, action="route.created"
    ),
    "PATCH /api/v1/routes/{slug}/": Change(_slug("route"), {"description": "Renamed"}, "route.changed"),
    "POST /api/v1/routes/{slug}/archive/": Change(_slug("route"), {}, "route.archived"),
    "POST /api/v1/routes/{slug}/restore/": Change(_slug("old_route"), {}, "route.restored"),
    "POST /api/v1/routes/{slug}/pause/": Change(_slug("route"), {"reason": "why"}, "route.paused"),
    "POST /api/v1/routes/{slug}/resume/": Change(_slug("paused_route"), {}, "route.resumed"),
    "POST /api/v1/routes/{slug}/degrade/": Change(_slug("route"), {"reason": "why"}, "route.degraded"),
    "POST /api/v1/routes/{slug}/recover/": Change(_slug("degraded_route"), {}, "route.recovered"),
    "POST /api/v1/routes/{slug}/reset-breakers/": Change(_slug("route"), {}, "route.breakers_reset"),
    "POST /api/v1/policies/": Change(
        send={"slug": "new", "checks": [{"kind": "secrets", "stage": "before", "action": "redact"}]},
        action="policy.created",
    ),
    "PATCH /api/v1/policies/{slug}/": Change(_slug("policy"), {"everywhere": True}, "policy.changed"),
    "POST /api/v1/policies/{slug}/roll-back/": Change(_slug("policy"), {"version": 1}, "policy.rolled_back"),
    "POST /api/v1/policies/{slug}/archive/": Change(_slug("policy"), {}, "policy.archived"),
    "POST /api/v1/prompts/": Change(
        send={"slug": "new", "project": "support", "content": {"task": "Say {{ word }}."}},
        action="prompt.created",
    ),
    "PATCH /api/v1/prompts/{pk}/": Change(_pk("prompt"), {"description": "Renamed"}, "prompt.changed"),
    "POST /api/v1/prompts/{pk}/versions/": Change(_pk("prompt"), {"note": "warmer"}, "prompt.version_added"),
    "PUT /api/v1/prompts/{pk}/draft/": Change(
        _pk("prompt"), {"content": {"task": "{{ half"}}, "prompt.draft_saved"
    ),
    "DELETE /api/v1/prompts/{pk}/draft/": Change(_pk("prompt"), {}, "prompt.draft_discarded"),
    "POST /api/v1/prompts/{pk}/labels/": Change(
        _pk("prompt"), {"name": "production", "version": 1, "reason": "ready"}, "prompt.label_moved"
    ),
    "POST /api/v1/prompts/{pk}/remove-label/": Change(
        _pk("prompt"), {"name": "staging", "reason": "tried"}, "prompt.label_removed"
    ),
    "POST /api/v1/prompts/{pk}/duplicate/": Change(
        _pk("prompt"), {"slug": "copy", "project": "support"}, "prompt.created"
    ),
    "POST /api/v1/prompts/{pk}/archive/": Change(_pk("prompt"), {}, "prompt.archived"),
    "POST /api/v1/prompts/{pk}/restore/": Change(_pk("old_prompt"), {}, "prompt.restored"),
    "POST /api/v1/prompts/import/": Change(
        send={"project": "support", "archive": PROMPT_FILES}, action="prompt.created"
    ),
    "POST /api/v1/policies/{slug}/restore/": Change(_slug("old_policy"), {}, "policy.restored"),
    "POST /api/v1/revisions/": Change(send={"reason": "ready"}, action="revision.published"),
    "POST /api/v1/revisions/import/": Change(
        send=lambda world: {"file": world.revision_file.decode(), "reason": "promoted"},
        action="revision.published",
    ),
    "POST /api/v1/revisions/{number}/restore/": Change(
        lambda world: world.first_revision.number, {"reason": "back"}, "revision.restored"
    ),
    "POST /api/v1/budgets/": Change(
        send={
            "slug": "new",
            "scope_kind": "feature",
            "scope_value": "chat",
            "project": "support",
            "limit_usd": "1",
        },
        action="budget.created",
    ),
    "PATCH /api/v1/budgets/{pk}/": Change(_pk("budget"), {"limit_usd": "7"}, "budget.changed"),
    "DELETE /api/v1/budgets/{pk}/": Change(_pk("budget"), {}, "budget.archived"),
    "POST /api/v1/budgets/{pk}/raises/": Change(
        _pk("budget"),
        {"amount_usd": "2", "ends_at": TOMORROW.isoformat(), "reason": "a busy day"},
        "budget.raise_requested",
    ),
    "POST /api/v1/approvals/{pk}/approve/": Change(
        _pk("raise_asked"), lambda world: {"digest": world.raise_asked.digest}, "budget.raise_approved"
    ),
    "POST /api/v1/approvals/{pk}/reject/": Change(
        _pk("raise_asked"),
        lambda world: {"digest": world.raise_asked.digest, "reason": "no"},
        "budget.raise_rejected",
    ),
    "POST /api/v1/approvals/{pk}/cancel/": Change(_pk("own_raise"), {}, "budget.raise_cancelled"),
    "POST /api/v1/stand-ins/": Change(
        send={"person": "rita", "stand_in": "bob", "ends_at": TOMORROW.isoformat()}, action="stand_in.named"
    ),
    "POST /api/v1/stand-ins/{pk}/end/": Change(_pk("stand_in"), {}, "stand_in.ended"),
    "POST /api/v1/tools/": Change(
        send={"project": "support", "slug": "new", "definition": DEFINITION}, action="tool.created"
    ),
    "POST /api/v1/tools/{pk}/versions/": Change(
        _pk("tool"), {"definition": DEFINITION, "note": "stricter"}, "tool.version_added"
    ),
    "POST /api/v1/tools/{pk}/pause/": Change(_pk("tool"), {"reason": "why"}, "tool.paused"),
    "POST /api/v1/tools/{pk}/resume/": Change(_pk("paused_tool"), {}, "tool.resumed"),
    "POST /api/v1/tools/{pk}/archive/": Change(_pk("paused_tool"), {}, "tool.archived"),
    "POST /api/v1/tools/{pk}/restore/": Change(_pk("old_tool"), {}, "tool.restored"),
    "POST /api/v1/tools/{pk}/rotate-secret/": Change(_pk("tool"), {}, "tool.signing_rotated"),
    "POST /api/v1/tools/{pk}/dry-run/": Change(_pk("tool"), {"arguments": {}}, "tool.tested"),
    "POST /api/v1/runs/": Change(
        send={
            "project": "support",
            "messages": [{"role": "user", "content": PASSWORD}],
            "model": "chat",
            "mode": "queued",
        },
        action="run.started",
    ),
    "POST /api/v1/runs/{pk}/cancel/": Change(_pk("started_run"), {}, "run.cancel_asked"),
    "POST /api/v1/summarize/": Change(
        send={"project": "support", "text": PASSWORD, "model": "chat", "mode": "queued"}, action="run.started"
    ),
    "POST /api/v1/actions/": Change(
        send={"project": "support", "tool": "tool", "arguments": {"text": "x"}, "reason": "why not"},
        action="tool.action_requested",
    ),
    "POST /api/v1/actions/{pk}/withdraw/": Change(_pk("own_action"), {}, "tool.action_cancelled"),
    "POST /api/v1/actions/{pk}/redeem/": Change(
        _pk("granted_action"),
        lambda world: {"token": token_of(world.granted_action)},
        "tool.action_started",
    ),
    "POST /api/v1/actions/{pk}/report/": Change(
        _pk("redeemed_action"),
        lambda world: {"claim": str(world.redeemed_action.claim_id), "succeeded": True},
        "tool.action_succeeded",
    ),
    "POST /api/v1/actions/{pk}/resolve/": Change(
        _pk("lost_action"), {"happened": True, "reason": "I looked"}, "tool.action_resolved"
    ),
    "POST /api/v1/incidents/{pk}/acknowledge/": Change(
        _pk("incident"), {"note": "I look"}, "incident.acknowledged"
    ),
    "POST /api/v1/incidents/{pk}/resolve/": Change(
        _pk("well_incident"), {"note": "done"}, "incident.resolved"
    ),
    "POST /api/v1/incidents/{pk}/silence/": Change(
        _pk("incident"), {"minutes": 30, "reason": "we know"}, "incident.silenced"
    ),
    "POST /api/v1/incidents/{pk}/unsilence/": Change(_pk("silent_incident"), {}, "incident.unsilenced"),
    "POST /api/v1/incidents/{pk}/note/": Change(_pk("incident"), {"text": "a line"}, "incident.noted"),
    "POST /api/v1/datasets/": Change(
        send={"project": "support", "name": "Angry customers"}, action="dataset.created"
    ),
    "POST /api/v1/datasets/{pk}/cases/": Change(
        _pk("dataset"), lambda world: {"call": str(world.call.pk), "expected": "Hello"}, "dataset.case_added"
    ),
    "POST /api/v1/datasets/{pk}/export/": Change(_pk("dataset"), {}, "dataset.exported"),
    "POST /api/v1/replays/": Change(
        send=lambda world: {"of_call": str(world.call.pk), "model": "chat"}, action="call.replayed"
    ),
    "POST /api/v1/calls/{pk}/correct/": Change(
        _pk("unknown_call"), {"cost_usd": "0.01", "reason": "the invoice"}, "call.corrected"
    ),
    "POST /api/v1/calls/{pk}/texts/": Change(_pk("call"), {}, "usage.texts_read"),
    "POST /api/v1/jobs/": Change(
        send={"kind": "rebuild", "day": str(YESTERDAY)}, action="usage.rebuild_requested"
    ),
}

ADMIN: dict[str, Change] = {
    "POST /admin/access/project/add/": Change(send={"slug": "new", "name": "New"}, action="project.created"),
    "POST /admin/access/project/{object_id}/change/": Change(
        _pk("support"), {"name": "Renamed"}, "project.changed"
    ),
    "POST /admin/access/project/{object_id}/archive/": Change(_pk("support"), {}, "project.archived"),
    "POST /admin/access/project/{object_id}/restore/": Change(_pk("old_project"), {}, "project.restored"),
    "POST /admin/access/servicekey/add/": Change(
        send=lambda world: {"project": str(world.support.pk), "name": "new"}, action="service_key.created"
    ),
    "POST /admin/access/servicekey/{object_id}/change/": Change(
        _pk("key"), {"rpm": "5"}, "service_key.changed"
    ),
    "POST /admin/access/servicekey/{object_id}/rotate/": Change(_pk("key"), {}, "service_key.rotated"),
    "POST /admin/access/servicekey/{object_id}/end-grace/": Change(
        _pk("rotated_key"), {}, "service_key.grace_ended"
    ),
    "POST /admin/access/servicekey/{object_id}/revoke/": Change(_pk("key"), {}, "service_key.revoked"),
    "POST /admin/base/masterkeyverifier/reseal/": Change(action="master_key.resealing_started"),
    "POST /admin/base/masterkeyverifier/{object_id}/retire/": Change(
        _pk("old_master_key"), {}, "master_key.retired"
    ),
    "POST /admin/access/membership/add/": Change(
        send=lambda world: {"person": "eve", "role": "reviewer", "project": str(world.support.pk)},
        action="member.added",
    ),
    "POST /admin/access/membership/{object_id}/change/": Change(
        _pk("membership"), {"role": "auditor"}, "member.role_changed"
    ),
    "POST /admin/access/membership/{object_id}/delete/": Change(_pk("membership"), {}, "member.removed"),
    "POST /admin/auth/user/add/": Change(send={"username": "new"}, action="user.created"),
    "POST /admin/auth/user/{object_id}/change/": Change(
        _pk("eve"), {"email": "eve@example.com"}, "user.changed"
    ),
    "POST /admin/auth/user/{object_id}/set-password/": Change(
        _pk("eve"), {"password": PASSWORD, "again": PASSWORD}, "user.password_set"
    ),
    "POST /admin/auth/user/{object_id}/deactivate/": Change(_pk("eve"), {}, "user.deactivated"),
    "POST /admin/auth/user/{object_id}/activate/": Change(_pk("closed"), {}, "user.activated"),
    "POST /admin/auth/user/{object_id}/unlock/": Change(_pk("eve"), {}, "user.unlocked"),
    "POST /admin/auth/user/{object_id}/end-sessions/": Change(_pk("eve"), {}, "user.sessions_ended"),
    "POST /admin/auth/user/{object_id}/reset-factor/": Change(_pk("eve"), {}, "second_factor.reset"),
    "POST /admin/budgets/budget/add/": Change(
        send=lambda world: {
            "slug": "new",
            "scope_kind": "feature",
            "scope_value": "chat",
            "project": str(world.support.pk),
            "limit_usd": "1",
        },
        action="budget.created",
    ),
    "POST /admin/budgets/budget/{object_id}/change/": Change(
        _pk("budget"), {"limit_usd": "7"}, "budget.changed"
    ),
    "POST /admin/budgets/budget/{object_id}/archive/": Change(_pk("budget"), {}, "budget.archived"),
    "POST /admin/budgets/budget/{object_id}/ask-for-a-raise/": Change(
        _pk("budget"),
        {
            "amount_usd": "2",
            "ends_at_0": f"{TOMORROW:%Y-%m-%d}",
            "ends_at_1": f"{TOMORROW:%H:%M:%S}",
            "reason": "a busy day",
        },
        "budget.raise_requested",
    ),
    "POST /admin/budgets/budget/{object_id}/ask-to-loosen/": Change(
        _pk("strict_budget"),
        {"what": "limit", "limit_usd": "8", "reason": "it is needed"},
        "budget.loosen_requested",
    ),
    "POST /admin/approvals/request/{object_id}/approve/": Change(
        _pk("raise_asked"), {}, "budget.raise_approved"
    ),
    "POST /admin/approvals/request/{object_id}/reject/": Change(
        _pk("raise_asked"), {"reason": "no"}, "budget.raise_rejected"
    ),
    "POST /admin/approvals/request/{object_id}/take-back/": Change(
        _pk("own_raise"), {}, "budget.raise_cancelled"
    ),
    "POST /admin/alerts/rule/add/": Change(
        send=lambda world: {"slug": "new-rule", "kind": "error_rate", "project": str(world.support.pk)},
        action="alert_rule.created",
    ),
    "POST /admin/alerts/rule/{object_id}/change/": Change(
        _pk("alert_rule"), {"numbers": "percent = 7"}, "alert_rule.changed"
    ),
    "POST /admin/alerts/rule/{object_id}/archive/": Change(_pk("alert_rule"), {}, "alert_rule.archived"),
    "POST /admin/alerts/rule/{object_id}/restore/": Change(_pk("old_alert_rule"), {}, "alert_rule.restored"),
    "POST /admin/alerts/slo/add/": Change(
        send=lambda world: {"slug": "new-slo", "target": "99", "project": str(world.support.pk)},
        action="slo.created",
    ),
    "POST /admin/alerts/slo/{object_id}/change/": Change(_pk("slo"), {"target": "98"}, "slo.changed"),
    "POST /admin/alerts/slo/{object_id}/archive/": Change(_pk("slo"), {}, "slo.archived"),
    "POST /admin/alerts/slo/{object_id}/restore/": Change(_pk("old_slo"), {}, "slo.restored"),
    "POST /admin/alerts/channel/add/": Change(
        send=lambda world: {
            "slug": "new-channel",
            "kind": "mail",
            "addresses": "a@example.com",
            "project": str(world.support.pk),
        },
        action="alert_channel.created",
    ),
    "POST /admin/alerts/channel/{object_id}/change/": Change(
        _pk("channel"), {"addresses": "b@example.com"}, "alert_channel.changed"
    ),
    "POST /admin/alerts/channel/{object_id}/archive/": Change(_pk("channel"), {}, "alert_channel.archived"),
    "POST /admin/alerts/channel/{object_id}/restore/": Change(
        _pk("old_channel"), {}, "alert_channel.restored"
    ),
    "POST /admin/alerts/channel/{object_id}/rotate-secret/": Change(
        _pk("hook"), {}, "alert_channel.signing_rotated"
    ),
    "POST /admin/alerts/channel/{object_id}/send-test/": Change(_pk("channel"), {}, "alert_channel.tested"),
    "POST /admin/tools/tool/add/": Change(
        send=lambda world: {
            "project": str(world.support.pk),
            "slug": "new",
            "description": "Says it.",
            "carried_out_by": "python",
            "function": "echo",
        },
        action="tool.created",
    ),
    "POST /admin/tools/tool/{object_id}/change/": Change(
        _pk("tool"), {"rules": "length(text) > 9 => irreversible"}, "tool.version_added"
    ),
    "POST /admin/tools/tool/{object_id}/pause/": Change(_pk("tool"), {"reason": "why"}, "tool.paused"),
    "POST /admin/tools/tool/{object_id}/resume/": Change(_pk("paused_tool"), {}, "tool.resumed"),
    "POST /admin/tools/tool/{object_id}/archive/": Change(_pk("paused_tool"), {}, "tool.archived"),
    "POST /admin/tools/tool/{object_id}/restore/": Change(_pk("old_tool"), {}, "tool.restored"),
    "POST /admin/tools/tool/{object_id}/rotate-secret/": Change(_pk("tool"), {}, "tool.signing_rotated"),
    "POST /admin/tools/tool/{object_id}/dry-run/": Change(_pk("tool"), {"arguments": "{}"}, "tool.tested"),
    "POST /admin/tools/action/{object_id}/resolve/": Change(
        _pk("lost_action"), {"happened": "no", "reason": "I looked"}, "tool.action_resolved"
    ),
    "POST /admin/budgets/lease/{object_id}/explain/": Change(
        _pk("lost_lease"),
        {"spent_usd": "0", "reason": "never reached the provider"},
        "budget.lease_explained",
    ),
    "POST /admin/usage/call/{object_id}/correct/": Change(
        _pk("unknown_call"), {"cost_usd": "0.01", "reason": "the invoice"}, "call.corrected"
    ),
    "POST /admin/providers/credential/add/": Change(
        send=lambda world: {
            "provider": str(world.provider.pk),
            "name": "new",
            "secret": "simulated-key-0009",
        },
        action="credential.added",
    ),
    "POST /admin/policies/policy/{object_id}/try-on-calls/": Change(
        _pk("policy"), {"calls": "10"}, "policy.tried_on_calls"
    ),
    "POST /admin/providers/model/from-a-list/": Change(
        send=lambda world: {"provider": str(world.provider.pk)}, action="provider.models_listed"
    ),
    "POST /admin/providers/model/{object_id}/test-call/": Change(_pk("model"), {}, "model.tested"),
    "POST /admin/providers/credential/{object_id}/probe/": Change(_pk("staged"), {}, "credential.probed"),
    "POST /admin/providers/credential/{object_id}/activate/": Change(
        _pk("staged"), {"unprobed_reason": "a test"}, "credential.activated"
    ),
    "POST /admin/providers/credential/{object_id}/replace/": Change(
        _pk("staged"), {"secret": "simulated-key-0010"}, "credential.replaced"
    ),
    "POST /admin/providers/credential/{object_id}/drain/": Change(_pk("active"), {}, "credential.drained"),
    "POST /admin/providers/credential/{object_id}/revoke/": Change(_pk("active"), {}, "credential.revoked"),
    "POST /admin/providers/credential/{object_id}/rotate/": Change(
        _pk("active"),
        {"secret": "simulated-key-0011", "unprobed_reason": "a test"},
        "rotation.staged",
    ),
    "POST /admin/providers/credential/{object_id}/remind/": Change(
        _pk("active"), {"days": "30"}, "credential.rescheduled"
    ),
    "POST /admin/providers/credential/{object_id}/read-again/": Change(
        _pk("referenced"), {}, "credential.reread_requested"
    ),
    "POST /admin/providers/rotation/{object_id}/activate/": Change(_pk("rotation"), {}, "rotation.activated"),
    "POST /admin/providers/rotation/{object_id}/cancel/": Change(_pk("rotation"), {}, "rotation.cancelled"),
    "POST /admin/providers/rotation/{object_id}/take-back/": Change(
        _pk("draining_rotation"), {"reason": "slower"}, "rotation.returned"
    ),
    "POST /admin/providers/rotation/{object_id}/finish/": Change(
        _pk("draining_rotation"), {"reason": "leaked"}, "rotation.finished"
    ),
    "POST /admin/providers/model/add/": Change(
        send=lambda world: {
            "slug": "new",
            "provider": str(world.provider.pk),
            "upstream_model": "new",
            **TOKENS,
        },
        action="model.created",
    ),
    "POST /admin/providers/model/{object_id}/change/": Change(
        _pk("model"), {"max_output_tokens": "700"}, "model.pinned"
    ),
    "POST /admin/providers/model/{object_id}/price/": Change(
        _pk("model"), {"token_class": "reasoning", "usd_per_million": "3.50"}, "price.added"
    ),
    "POST /admin/providers/model/{object_id}/listed-prices/": Change(
        _pk("listed_model"), {}, "prices.updated"
    ),
    "POST /admin/providers/model/{object_id}/archive/": Change(_pk("spare_model"), {}, "model.archived"),
    "POST /admin/providers/model/{object_id}/restore/": Change(_pk("old_model"), {}, "model.restored"),
    "POST /admin/providers/price/add/": Change(
        send=lambda world: {
            "model": str(world.model.pk),
            "token_class": "reasoning",
            "usd_per_million": "3.50",
        },
        action="price.added",
    ),
    "POST /admin/providers/provider/add/": Change(
        send={"slug": "new", "name": "New", "kind": "openai", "base_url": "https://api.openai.com/v1"},
        action="provider.created",
    ),
    "POST /admin/providers/provider/{object_id}/change/": Change(
        _pk("provider"), {"name": "Renamed"}, "provider.changed"
    ),
    "POST /admin/providers/provider/{object_id}/pause/": Change(
        _pk("provider"), {"reason": "why"}, "provider.paused"
    ),
    "POST /admin/providers/provider/{object_id}/resume/": Change(
        _pk("paused_provider"), {}, "provider.resumed"
    ),
    "POST /admin/providers/provider/{object_id}/archive/": Change(
        _pk("spare_provider"), {}, "provider.archived"
    ),
    "POST /admin/providers/provider/{object_id}/restore/": Change(
        _pk("old_provider"), {}, "provider.restored"
    ),
    "POST /admin/providers/route/add/": Change(send={"slug": "new"}, action="route.created"),
    "POST /admin/providers/route/{object_id}/change/": Change(
        _pk("route"), {"description": "Renamed"}, "route.changed"
    ),
    "POST /admin/providers/route/{object_id}/pause/": Change(_pk("route"), {"reason": "why"}, "route.paused"),
    "POST /admin/providers/route/{object_id}/resume/": Change(_pk("paused_route"), {}, "route.resumed"),
    "POST /admin/providers/route/{object_id}/degrade/": Change(
        _pk("route"), {"reason": "why"}, "route.degraded"
    ),
    "POST /admin/providers/route/{object_id}/recover/": Change(_pk("degraded_route"), {}, "route.recovered"),
    "POST /admin/providers/route/{object_id}/reset-breakers/": Change(
        _pk("route"), {}, "route.breakers_reset"
    ),
    "POST /admin/providers/route/{object_id}/archive/": Change(_pk("route"), {}, "route.archived"),
    "POST /admin/providers/route/{object_id}/restore/": Change(_pk("old_route"), {}, "route.restored"),
    "POST /admin/prompts/prompt/add/": Change(
        send=lambda world: {"slug": "new", "project": world.support.pk, "task": "Say hello."},
        action="prompt.created",
    ),
    "POST /admin/prompts/prompt/{object_id}/change/": Change(
        _pk("prompt"), {"task": "Say hello to them."}, "prompt.draft_saved"
    ),
    "POST /admin/prompts/prompt/{object_id}/point-label/": Change(
        _pk("prompt"), {"name": "production", "version": 1, "reason": "ready"}, "prompt.label_moved"
    ),
    "POST /admin/prompts/prompt/{object_id}/duplicate/": Change(
        _pk("prompt"), {"slug": "copy"}, "prompt.created"
    ),
    "POST /admin/prompts/prompt/{object_id}/discard-draft/": Change(
        _pk("prompt"), {}, "prompt.draft_discarded"
    ),
    "POST /admin/prompts/prompt/{object_id}/archive/": Change(_pk("prompt"), {}, "prompt.archived"),
    "POST /admin/prompts/prompt/{object_id}/restore/": Change(_pk("old_prompt"), {}, "prompt.restored"),
    "POST /admin/prompts/prompt/import-files/": Change(
        send=lambda world: {
            "archive": SimpleUploadedFile("p.zip", base64.b64decode(PROMPT_FILES)),
            "project": "support",
        },
        action="prompt.created",
    ),
    "POST /admin/prompts/promptversion/{object_id}/edit-from-here/": Change(
        _pk("first_prompt_version"), {}, "prompt.draft_saved"
    ),
    "POST /admin/prompts/promptversion/{object_id}/point-label/": Change(
        _pk("first_prompt_version"), {"name": "production", "reason": "ready"}, "prompt.label_moved"
    ),
    "POST /admin/prompts/label/{object_id}/back/": Change(_pk("label"), {}, "prompt.label_moved"),
    "POST /admin/prompts/label/{object_id}/move/": Change(
        _pk("label"), {"version": 1, "reason": "ready"}, "prompt.label_moved"
    ),
    "POST /admin/prompts/label/{object_id}/take-away/": Change(
        _pk("label"), {"reason": "over"}, "prompt.label_removed"
    ),
    "POST /admin/policies/policy/add/": Change(
        send={
            "slug": "new",
            "checks-0-kind": "secrets",
            "checks-0-stage": "before",
            "checks-0-action": "redact",
        },
        action="policy.created",
    ),
    "POST /admin/policies/policy/{object_id}/change/": Change(
        _pk("policy"), {"description": "Renamed"}, "policy.changed"
    ),
    "POST /admin/policies/policy/{object_id}/archive/": Change(_pk("policy"), {}, "policy.archived"),
    "POST /admin/policies/policy/{object_id}/restore/": Change(_pk("old_policy"), {}, "policy.restored"),
    "POST /admin/policies/policyversion/{object_id}/roll-back/": Change(
        _pk("first_version"), {"reason": "back"}, "policy.rolled_back"
    ),
    "POST /admin/serving/revision/publish/": Change(send={"reason": "ready"}, action="revision.published"),
    "POST /admin/serving/revision/{object_id}/restore/": Change(
        _pk("first_revision"), {"reason": "back"}, "revision.restored"
    ),
    "POST /admin/serving/revision/bring/": Change(
        send=lambda world: {"file": SimpleUploadedFile("revision.json", world.revision_file)},
        action="revision.brought",
    ),
    "POST /admin/serving/revision/rule/": Change(
        send={"always": "on", "reason": "careful"}, action="publishing.rule_changed"
    ),
    "POST /admin/serving/broughtrevision/{object_id}/publish/": Change(
        _pk("brought"), {"reason": "promoted"}, "revision.published"
    ),
    "POST /admin/access/servicekey/{object_id}/pause/": Change(
        _pk("key"), {"reason": "why"}, "service_key.paused"
    ),
    "POST /admin/access/servicekey/{object_id}/resume/": Change(_pk("paused_key"), {}, "service_key.resumed"),
}

#: Ends of addresses at which a provider is asked that does not answer here: what was asked is on record all the same.
ASKS_A_PROVIDER = ("/probe/", "/test-call/", "/from-a-list/")

#: Bodies that are sent to look at something: they change nothing and leave no event.
LOOKS: dict[str, Change] = {
    "POST /api/v1/prompts/preview/": Change(send={"content": {"task": "EMAIL_1"}}),
    "POST /admin/prompts/prompt/{object_id}/compare/": Change(_pk("prompt"), {}),
    "POST /api/v1/prompts/{pk}/render/": Change(_pk("prompt"), {"variables": {"name": "EMAIL_1"}}),
    "POST /api/v1/policies/{slug}/try/": Change(_slug("policy"), {"asked": "a@b.example"}),
    "POST /admin/policies/policy/{object_id}/try-it/": Change(_pk("policy"), {"asked": "a@b.example"}),
    "POST /api/v1/tools/{pk}/try/": Change(_pk("tool"), {"arguments": {"text": "EMAIL_1"}}),
    "POST /admin/tools/tool/{object_id}/try-it/": Change(_pk("tool"), {"arguments": '{"text": "EMAIL_1"}'}),
    "POST /admin/alerts/rule/{object_id}/try-it/": Change(_pk("alert_rule"), {"numbers": "percent = 7"}),
}

#: What services report, thousands at a time, and is its own record as calls are: no event.
REPORTS: dict[str, Change] = {
    "POST /api/v1/outcomes/": Change(
        send=lambda world: {"outcomes": [{"call_id": str(world.call.pk), "kind": "resolved"}]}
    ),
}

#: Pages of their own that change something.
PAGES: dict[str, Change] = {
    "POST /alerts/{incident_id}/": Change(_pk("incident"), {"what": "acknowledge"}, "incident.acknowledged"),
    "POST /switches/": Change(
        send={"what": "organisation:degrade", "to": "on", "reason": "the provider is slow"},
        action="switch.turned_on",
    ),
    "POST /inbox/decide/": Change(
        send=lambda world: {
            "request": str(world.raise_asked.pk),
            f"seen_{world.raise_asked.pk}": world.raise_asked.digest,
            "what": "approve",
        },
        action="budget.raise_approved",
    ),
    "POST /inbox/stand-ins/": Change(
        send={
            "what": "name",
            "person": "rita",
            "stand_in": "bob",
            "ends_at": TOMORROW.isoformat(),
        },
        action="stand_in.named",
    ),
    "POST /jobs/": Change(send={"day": str(YESTERDAY)}, action="usage.rebuild_requested"),
    "POST /routes/editor/": Change(
        send=lambda world: edited_route(world, slug="drawn"), action="route.created"
    ),
    "POST /routes/editor/{slug}/": Change(
        _slug("route"), lambda world: edited_route(world, description="Drawn"), "route.changed"
    ),
    "POST /reconciliation/": Change(
        send=lambda world: {
            "provider": world.provider.slug,
            "file": SimpleUploadedFile("x.csv", f"date,model,input_tokens\n{YESTERDAY},m,1\n".encode()),
        },
        action="provider_statement.imported",
    ),
    "POST /views/": Change(
        send={"page": "traffic", "name": "Night shift", "query": "?range=24h&route=chat"}, action="view.saved"
    ),
    "POST /views/{view_id}/remove/": Change(_pk("saved_view"), action="view.removed"),
    "POST /spend/": Change(send={"what": "spend", "by": "feature"}, action="usage.exported"),
    "POST /spend/exports/": Change(
        send=lambda world: {
            "name": "Month end",
            "what": "spend",
            "period": "month",
            "timezone": "UTC",
            "recipients": "finance@example.com",
            "project": str(world.support.pk),
        },
        action="export_schedule.created",
    ),
    "POST /audit/export/": Change(send={"what": "csv", "action": "project."}, action="audit.exported"),
    "POST /audit/verify/": Change(action="audit.verification_started"),
    "POST /runs/{run_id}/": Change(
        lambda world: world.started_run.pk, send={"reason": "enough"}, action="run.cancel_asked"
    ),
    "POST /calls/compare/": Change(
        send=lambda world: {"call": [str(world.call.pk), str(world.unknown_call.pk)]},
        action="usage.texts_read",
    ),
    "POST /calls/search/": Change(
        send={"words": "hello", "project": "support", "reach": ""}, action="usage.texts_searched"
    ),
    "POST /datasets/": Change(
        send=lambda world: {"project": "support", "name": "Angry customers"}, action="dataset.created"
    ),
    "POST /datasets/{dataset_id}/": Change(_pk("dataset"), {}, "dataset.exported"),
    "POST /datasets/add/{call_id}/": Change(
        _pk("call"),
        lambda world: {"dataset": str(world.dataset.pk), "expected": "Hello"},
        "dataset.case_added",
    ),
    "POST /calls/{call_id}/": Change(_pk("call"), {}, "usage.texts_read"),
    "POST /playground/replay/{call_id}/": Change(
        _pk("call"),
        lambda world: {"id": str(uuid7()), "model": "chat"},
        "call.replayed",
    ),
    "POST /runs/renew-key/": Change(
        send=lambda world: {"project": str(world.search.pk)}, action="service_key.created"
    ),
    "POST /playground/run/": Change(
        send=lambda world: asked(
            id=str(uuid7()),
            project=str(world.support.pk),
            source="prompt",
            prompt=str(world.prompt.pk),
            version="1",
            variables={"name": PASSWORD},
            model="chat",
        ),
        action="playground.run_started",
    ),
    "POST /playground/cancel/": Change(
        send=lambda world: asked(run=str(world.run.pk)), action="playground.run_cancelled"
    ),
    "POST /playground/share/": Change(
        send=lambda world: asked(
            project=str(world.support.pk), columns=[{"source": "text"}], variables={"name": PASSWORD}
        ),
        action="playground.setup_shared",
    ),
    "POST /playground/save-version/": Change(
        send=lambda world: asked(
            column={
                "project": str(world.support.pk),
                "source": "edited",
                "prompt": str(world.prompt.pk),
                "version": "2",
                "content": {"task": "Greet."},
            },
            prompt=str(world.prompt.pk),
            note="tried",
            replace_draft=True,
        ),
        action="prompt.version_added",
    ),
    "POST /playground/save-sample/": Change(
        send=lambda world: asked(
            project=str(world.support.pk), prompt=str(world.prompt.pk), name="Ada", variables={"name": "Ada"}
        ),
        action="prompt.draft_saved",
    ),
    "POST /playground/renew-key/": Change(
        send=lambda world: asked(project=str(world.search.pk)), action="service_key.created"
    ),
    "POST /admin/logout/": Change(action="session.signed_out"),
    "POST /account/second-factor/": Change(
        send=lambda world: offered_to(world.root), action="second_factor.added"
    ),
    "POST /account/second-factor/remove/": Change(
        send=lambda world: {"code": present_code(world.root)}, action="second_factor.removed"
    ),
    "POST /account/second-factor/codes/": Change(
        send=lambda world: {"code": present_code(world.root)}, action="second_factor.codes_renewed"
    ),
    "POST /account/sessions/end-others/": Change(action="session.others_ended"),
}


def edited_route(world: World, **changes: str) -> dict[str, Any]:
    """What the route editor sends of a route."""
    page = world.clients["root"].get(f"/routes/editor/{world.route.slug}/")
    return form_of(page.content.decode()) | changes


def asked(**told: Any) -> dict[str, str]:
    """What the playground's page sends."""
    return {"asked": json.dumps(told)}


def offered_to(user: Any) -> dict[str, str]:
    """What the form says that turns a second factor on."""
    offered, seed = access.offer_factor(user)
    return {"seed": offered, "code": one_time.code_at(seed, int(time.time()) // one_time.STEP_S)}


def present_code(user: Any) -> str:
    """A code of the second factor of ``user``, who has one from now on."""
    seed = one_time.new_seed()
    factor = SecondFactor(user=user)
    factor.sealed = master_keys().seal(seed.hex(), identity=factor_identity(factor.pk))
    SecondFactor.objects.filter(user=user).delete()
    factor.save()
    return one_time.code_at(seed, int(time.time()) // one_time.STEP_S)


def address(key: str, change: Change, world: World) -> str:
    route = key.split()[1]
    if "{" not in route:
        return route
    assert change.target is not None, f"{key}: the table names no object"
    start, end = route.index("{"), route.index("}")
    return f"{route[:start]}{change.target(world)}{route[end + 1 :]}"


def call_api(client: Client, key: str, change: Change, world: World) -> Any:
    method = key.split()[0].lower()
    return getattr(client, method)(
        address(key, change, world), change.sent(world), content_type="application/json"
    )


def fill_form(client: Client, key: str, change: Change, world: World) -> dict[str, Any]:
    """What a browser sends after ``change`` was typed into the page that ``client`` is shown."""
    page = client.get(address(key, change, world))
    assert page.status_code == 200, (key, page.status_code, page.content[:300])
    return {**form_of(page.content.decode()), **change.sent(world)}
