"""What the API changes."""

from __future__ import annotations

from llmops.tools.services import token_of
from tests.cast import PASSWORD
from tests.console.changes.change import PROMPT_FILES, TOKENS, Change, pk, slug
from tests.console.world import TOMORROW, YESTERDAY

#: The least that a tool says.
DEFINITION = {
    "description": "Says it.", "risk": "irreversible", "parameters": {"type": "object"}, "executor": "python",
    "settings": {"function": "echo"},
}  # fmt: skip

API: dict[str, Change] = {
    "POST /api/v1/projects/": Change(send={"slug": "new"}, action="project.created"),
    "PATCH /api/v1/projects/{slug}/": Change(slug("support"), {"name": "Renamed"}, "project.changed"),
    "POST /api/v1/projects/{slug}/archive/": Change(slug("support"), {"reason": "over"}, "project.archived"),
    "POST /api/v1/projects/{slug}/restore/": Change(slug("old_project"), {}, "project.restored"),
    "POST /api/v1/service-keys/": Change(
        send={"project": "support", "name": "new"}, action="service_key.created"
    ),
    "PATCH /api/v1/service-keys/{pk}/": Change(pk("key"), {"rpm": 5}, "service_key.changed"),
    "POST /api/v1/service-keys/{pk}/rotate/": Change(pk("key"), {"grace_seconds": 5}, "service_key.rotated"),
    "POST /api/v1/service-keys/{pk}/pause/": Change(pk("key"), {"reason": "why"}, "service_key.paused"),
    "POST /api/v1/service-keys/{pk}/resume/": Change(pk("paused_key"), {}, "service_key.resumed"),
    "POST /api/v1/service-keys/{pk}/end-grace/": Change(pk("rotated_key"), {}, "service_key.grace_ended"),
    "POST /api/v1/service-keys/{pk}/revoke/": Change(pk("key"), {}, "service_key.revoked"),
    "POST /api/v1/memberships/": Change(
        send={"user": "eve", "project": "support", "role": "reviewer"}, action="member.added"
    ),
    "PATCH /api/v1/memberships/{pk}/": Change(pk("membership"), {"role": "auditor"}, "member.role_changed"),
    "DELETE /api/v1/memberships/{pk}/": Change(pk("membership"), {}, "member.removed"),
    "POST /api/v1/users/": Change(send={"username": "new"}, action="user.created"),
    "PATCH /api/v1/users/{pk}/": Change(pk("eve"), {"email": "eve@example.com"}, "user.changed"),
    "POST /api/v1/users/{pk}/activate/": Change(pk("closed"), {}, "user.activated"),
    "POST /api/v1/users/{pk}/deactivate/": Change(pk("eve"), {}, "user.deactivated"),
    "POST /api/v1/users/{pk}/set-password/": Change(pk("eve"), {"password": PASSWORD}, "user.password_set"),
    "POST /api/v1/users/{pk}/unlock/": Change(pk("eve"), {}, "user.unlocked"),
    "POST /api/v1/users/{pk}/end-sessions/": Change(pk("eve"), {}, "user.sessions_ended"),
    "POST /api/v1/users/{pk}/reset-second-factor/": Change(pk("eve"), {}, "second_factor.reset"),
    "POST /api/v1/providers/": Change(
        send={"slug": "new", "kind": "openai", "base_url": "https://api.openai.com/v1"},
        action="provider.created",
    ),
    "PATCH /api/v1/providers/{slug}/": Change(slug("provider"), {"name": "Renamed"}, "provider.changed"),
    "POST /api/v1/providers/{slug}/archive/": Change(slug("spare_provider"), {}, "provider.archived"),
    "POST /api/v1/providers/{slug}/restore/": Change(slug("old_provider"), {}, "provider.restored"),
    "POST /api/v1/providers/{slug}/pause/": Change(slug("provider"), {"reason": "why"}, "provider.paused"),
    "POST /api/v1/providers/{slug}/resume/": Change(slug("paused_provider"), {}, "provider.resumed"),
    "POST /api/v1/credentials/": Change(
        send={"provider": "sim", "name": "new", "secret": "simulated-key-0009"}, action="credential.added"
    ),
    "POST /api/v1/credentials/{pk}/replace-secret/": Change(
        pk("staged"), {"secret": "simulated-key-0010"}, "credential.replaced"
    ),
    "POST /api/v1/credentials/{pk}/probe/": Change(pk("staged"), {}, "credential.probed"),
    "POST /api/v1/credentials/{pk}/activate/": Change(
        pk("staged"), {"unprobed_reason": "a test"}, "credential.activated"
    ),
    "POST /api/v1/credentials/{pk}/drain/": Change(pk("active"), {}, "credential.drained"),
    "POST /api/v1/credentials/{pk}/revoke/": Change(pk("active"), {"reason": "leaked"}, "credential.revoked"),
    "POST /api/v1/credentials/{pk}/remind-after/": Change(
        pk("active"), {"days": 30}, "credential.rescheduled"
    ),
    "POST /api/v1/credentials/{pk}/read-again/": Change(pk("referenced"), {}, "credential.reread_requested"),
    "POST /api/v1/rotations/": Change(
        send=lambda world: {
            "credential": str(world.active.pk),
            "secret": "simulated-key-0011",
            "unprobed_reason": "a test",
        },
        action="rotation.staged",
    ),
    "POST /api/v1/rotations/{pk}/activate/": Change(pk("rotation"), {}, "rotation.activated"),
    "POST /api/v1/rotations/{pk}/cancel/": Change(pk("rotation"), {}, "rotation.cancelled"),
    "POST /api/v1/rotations/{pk}/take-back/": Change(
        pk("draining_rotation"), {"reason": "slower"}, "rotation.returned"
    ),
    "POST /api/v1/rotations/{pk}/finish/": Change(
        pk("draining_rotation"), {"reason": "leaked"}, "rotation.finished"
    ),
    "POST /api/v1/models/": Change(
        send={"slug": "new", "provider": "sim", "upstream_model": "new", **TOKENS}, action="model.created"
    ),
    "POST /api/v1/models/{slug}/archive/": Change(slug("spare_model"), {}, "model.archived"),
    "POST /api/v1/models/{slug}/restore/": Change(slug("old_model"), {}, "model.restored"),
    "POST /api/v1/models/{slug}/prices/": Change(
        slug("model"), {"token_class": "reasoning", "usd_per_million": "3.50"}, "price.added"
    ),
    "POST /api/v1/models/{slug}/versions/": Change(slug("model"), {"max_output_tokens": 700}, "model.pinned"),
    "POST /api/v1/routes/": Change(
        send={"slug": "new", "targets": [{"model": "sim-small"}]}, action="route.created"
    ),
    "PATCH /api/v1/routes/{slug}/": Change(slug("route"), {"description": "Renamed"}, "route.changed"),
    "POST /api/v1/routes/{slug}/archive/": Change(slug("route"), {}, "route.archived"),
    "POST /api/v1/routes/{slug}/restore/": Change(slug("old_route"), {}, "route.restored"),
    "POST /api/v1/routes/{slug}/pause/": Change(slug("route"), {"reason": "why"}, "route.paused"),
    "POST /api/v1/routes/{slug}/resume/": Change(slug("paused_route"), {}, "route.resumed"),
    "POST /api/v1/routes/{slug}/degrade/": Change(slug("route"), {"reason": "why"}, "route.degraded"),
    "POST /api/v1/routes/{slug}/recover/": Change(slug("degraded_route"), {}, "route.recovered"),
    "POST /api/v1/routes/{slug}/reset-breakers/": Change(slug("route"), {}, "route.breakers_reset"),
    "POST /api/v1/policies/": Change(
        send={"slug": "new", "checks": [{"kind": "secrets", "stage": "before", "action": "redact"}]},
        action="policy.created",
    ),
    "PATCH /api/v1/policies/{slug}/": Change(slug("policy"), {"everywhere": True}, "policy.changed"),
    "POST /api/v1/policies/{slug}/roll-back/": Change(slug("policy"), {"version": 1}, "policy.rolled_back"),
    "POST /api/v1/policies/{slug}/archive/": Change(slug("policy"), {}, "policy.archived"),
    "POST /api/v1/prompts/": Change(
        send={"slug": "new", "project": "support", "content": {"task": "Say {{ word }}."}},
        action="prompt.created",
    ),
    "PATCH /api/v1/prompts/{pk}/": Change(pk("prompt"), {"description": "Renamed"}, "prompt.changed"),
    "POST /api/v1/prompts/{pk}/versions/": Change(pk("prompt"), {"note": "warmer"}, "prompt.version_added"),
    "PUT /api/v1/prompts/{pk}/draft/": Change(
        pk("prompt"), {"content": {"task": "{{ half"}}, "prompt.draft_saved"
    ),
    "DELETE /api/v1/prompts/{pk}/draft/": Change(pk("prompt"), {}, "prompt.draft_discarded"),
    "POST /api/v1/prompts/{pk}/labels/": Change(
        pk("prompt"), {"name": "production", "version": 1, "reason": "ready"}, "prompt.label_moved"
    ),
    "POST /api/v1/prompts/{pk}/remove-label/": Change(
        pk("prompt"), {"name": "staging", "reason": "tried"}, "prompt.label_removed"
    ),
    "POST /api/v1/prompts/{pk}/duplicate/": Change(
        pk("prompt"), {"slug": "copy", "project": "support"}, "prompt.created"
    ),
    "POST /api/v1/prompts/{pk}/archive/": Change(pk("prompt"), {}, "prompt.archived"),
    "POST /api/v1/prompts/{pk}/restore/": Change(pk("old_prompt"), {}, "prompt.restored"),
    "POST /api/v1/prompts/import/": Change(
        send={"project": "support", "archive": PROMPT_FILES}, action="prompt.created"
    ),
    "POST /api/v1/policies/{slug}/restore/": Change(slug("old_policy"), {}, "policy.restored"),
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
    "PATCH /api/v1/budgets/{pk}/": Change(pk("budget"), {"limit_usd": "7"}, "budget.changed"),
    "DELETE /api/v1/budgets/{pk}/": Change(pk("budget"), {}, "budget.archived"),
    "POST /api/v1/budgets/{pk}/raises/": Change(
        pk("budget"),
        {"amount_usd": "2", "ends_at": TOMORROW.isoformat(), "reason": "a busy day"},
        "budget.raise_requested",
    ),
    "POST /api/v1/approvals/{pk}/approve/": Change(
        pk("raise_asked"), lambda world: {"digest": world.raise_asked.digest}, "budget.raise_approved"
    ),
    "POST /api/v1/approvals/{pk}/reject/": Change(
        pk("raise_asked"),
        lambda world: {"digest": world.raise_asked.digest, "reason": "no"},
        "budget.raise_rejected",
    ),
    "POST /api/v1/approvals/{pk}/cancel/": Change(pk("own_raise"), {}, "budget.raise_cancelled"),
    "POST /api/v1/stand-ins/": Change(
        send={"person": "rita", "stand_in": "bob", "ends_at": TOMORROW.isoformat()}, action="stand_in.named"
    ),
    "POST /api/v1/stand-ins/{pk}/end/": Change(pk("stand_in"), {}, "stand_in.ended"),
    "POST /api/v1/tools/": Change(
        send={"project": "support", "slug": "new", "definition": DEFINITION}, action="tool.created"
    ),
    "POST /api/v1/tools/{pk}/versions/": Change(
        pk("tool"), {"definition": DEFINITION, "note": "stricter"}, "tool.version_added"
    ),
    "POST /api/v1/tools/{pk}/pause/": Change(pk("tool"), {"reason": "why"}, "tool.paused"),
    "POST /api/v1/tools/{pk}/resume/": Change(pk("paused_tool"), {}, "tool.resumed"),
    "POST /api/v1/tools/{pk}/archive/": Change(pk("paused_tool"), {}, "tool.archived"),
    "POST /api/v1/tools/{pk}/restore/": Change(pk("old_tool"), {}, "tool.restored"),
    "POST /api/v1/tools/{pk}/rotate-secret/": Change(pk("tool"), {}, "tool.signing_rotated"),
    "POST /api/v1/tools/{pk}/dry-run/": Change(pk("tool"), {"arguments": {}}, "tool.tested"),
    "POST /api/v1/runs/": Change(
        send={
            "project": "support",
            "messages": [{"role": "user", "content": PASSWORD}],
            "model": "chat",
            "mode": "queued",
        },
        action="run.started",
    ),
    "POST /api/v1/runs/{pk}/cancel/": Change(pk("started_run"), {}, "run.cancel_asked"),
    "POST /api/v1/summarize/": Change(
        send={"project": "support", "text": PASSWORD, "model": "chat", "mode": "queued"}, action="run.started"
    ),
    "POST /api/v1/actions/": Change(
        send={"project": "support", "tool": "tool", "arguments": {"text": "x"}, "reason": "why not"},
        action="tool.action_requested",
    ),
    "POST /api/v1/actions/{pk}/withdraw/": Change(pk("own_action"), {}, "tool.action_cancelled"),
    "POST /api/v1/actions/{pk}/redeem/": Change(
        pk("granted_action"),
        lambda world: {"token": token_of(world.granted_action)},
        "tool.action_started",
    ),
    "POST /api/v1/actions/{pk}/report/": Change(
        pk("redeemed_action"),
        lambda world: {"claim": str(world.redeemed_action.claim_id), "succeeded": True},
        "tool.action_succeeded",
    ),
    "POST /api/v1/actions/{pk}/resolve/": Change(
        pk("lost_action"), {"happened": True, "reason": "I looked"}, "tool.action_resolved"
    ),
    "POST /api/v1/incidents/{pk}/acknowledge/": Change(
        pk("incident"), {"note": "I look"}, "incident.acknowledged"
    ),
    "POST /api/v1/incidents/{pk}/resolve/": Change(
        pk("well_incident"), {"note": "done"}, "incident.resolved"
    ),
    "POST /api/v1/incidents/{pk}/silence/": Change(
        pk("incident"), {"minutes": 30, "reason": "we know"}, "incident.silenced"
    ),
    "POST /api/v1/incidents/{pk}/unsilence/": Change(pk("silent_incident"), {}, "incident.unsilenced"),
    "POST /api/v1/incidents/{pk}/note/": Change(pk("incident"), {"text": "a line"}, "incident.noted"),
    "POST /api/v1/datasets/": Change(
        send={"project": "support", "name": "Angry customers"}, action="dataset.created"
    ),
    "POST /api/v1/datasets/{pk}/cases/": Change(
        pk("dataset"), lambda world: {"call": str(world.call.pk), "expected": "Hello"}, "dataset.case_added"
    ),
    "POST /api/v1/datasets/{pk}/export/": Change(pk("dataset"), {}, "dataset.exported"),
    "POST /api/v1/replays/": Change(
        send=lambda world: {"of_call": str(world.call.pk), "model": "chat"}, action="call.replayed"
    ),
    "POST /api/v1/calls/{pk}/correct/": Change(
        pk("unknown_call"), {"cost_usd": "0.01", "reason": "the invoice"}, "call.corrected"
    ),
    "POST /api/v1/calls/{pk}/texts/": Change(pk("call"), {}, "usage.texts_read"),
    "POST /api/v1/jobs/": Change(
        send={"kind": "rebuild", "day": str(YESTERDAY)}, action="usage.rebuild_requested"
    ),
}
