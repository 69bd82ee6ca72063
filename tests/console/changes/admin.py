"""What the pages of the admin change."""

from __future__ import annotations

import base64

from django.core.files.uploadedfile import SimpleUploadedFile

from tests.cast import PASSWORD
from tests.console.changes.change import PROMPT_FILES, TOKENS, Change, pk
from tests.console.world import TOMORROW

#: Ends of addresses at which a provider is asked that does not answer here: what was asked is on record all the same.
ASKS_A_PROVIDER = ("/probe/", "/test-call/", "/from-a-list/")

ADMIN: dict[str, Change] = {
    "POST /admin/access/project/add/": Change(send={"slug": "new", "name": "New"}, action="project.created"),
    "POST /admin/access/project/{object_id}/change/": Change(
        pk("support"), {"name": "Renamed"}, "project.changed"
    ),
    "POST /admin/access/project/{object_id}/archive/": Change(pk("support"), {}, "project.archived"),
    "POST /admin/access/project/{object_id}/restore/": Change(pk("old_project"), {}, "project.restored"),
    "POST /admin/access/servicekey/add/": Change(
        send=lambda world: {"project": str(world.support.pk), "name": "new"}, action="service_key.created"
    ),
    "POST /admin/access/servicekey/{object_id}/change/": Change(
        pk("key"), {"rpm": "5"}, "service_key.changed"
    ),
    "POST /admin/access/servicekey/{object_id}/rotate/": Change(pk("key"), {}, "service_key.rotated"),
    "POST /admin/access/servicekey/{object_id}/end-grace/": Change(
        pk("rotated_key"), {}, "service_key.grace_ended"
    ),
    "POST /admin/access/servicekey/{object_id}/revoke/": Change(pk("key"), {}, "service_key.revoked"),
    "POST /admin/base/masterkeyverifier/reseal/": Change(action="master_key.resealing_started"),
    "POST /admin/base/masterkeyverifier/{object_id}/retire/": Change(
        pk("old_master_key"), {}, "master_key.retired"
    ),
    "POST /admin/access/membership/add/": Change(
        send=lambda world: {"person": "eve", "role": "reviewer", "project": str(world.support.pk)},
        action="member.added",
    ),
    "POST /admin/access/membership/{object_id}/change/": Change(
        pk("membership"), {"role": "auditor"}, "member.role_changed"
    ),
    "POST /admin/access/membership/{object_id}/delete/": Change(pk("membership"), {}, "member.removed"),
    "POST /admin/auth/user/add/": Change(send={"username": "new"}, action="user.created"),
    "POST /admin/auth/user/{object_id}/change/": Change(
        pk("eve"), {"email": "eve@example.com"}, "user.changed"
    ),
    "POST /admin/auth/user/{object_id}/set-password/": Change(
        pk("eve"), {"password": PASSWORD, "again": PASSWORD}, "user.password_set"
    ),
    "POST /admin/auth/user/{object_id}/deactivate/": Change(pk("eve"), {}, "user.deactivated"),
    "POST /admin/auth/user/{object_id}/activate/": Change(pk("closed"), {}, "user.activated"),
    "POST /admin/auth/user/{object_id}/unlock/": Change(pk("eve"), {}, "user.unlocked"),
    "POST /admin/auth/user/{object_id}/end-sessions/": Change(pk("eve"), {}, "user.sessions_ended"),
    "POST /admin/auth/user/{object_id}/reset-factor/": Change(pk("eve"), {}, "second_factor.reset"),
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
        pk("budget"), {"limit_usd": "7"}, "budget.changed"
    ),
    "POST /admin/budgets/budget/{object_id}/archive/": Change(pk("budget"), {}, "budget.archived"),
    "POST /admin/budgets/budget/{object_id}/ask-for-a-raise/": Change(
        pk("budget"),
        {
            "amount_usd": "2",
            "ends_at_0": f"{TOMORROW:%Y-%m-%d}",
            "ends_at_1": f"{TOMORROW:%H:%M:%S}",
            "reason": "a busy day",
        },
        "budget.raise_requested",
    ),
    "POST /admin/budgets/budget/{object_id}/ask-to-loosen/": Change(
        pk("strict_budget"),
        {"what": "limit", "limit_usd": "8", "reason": "it is needed"},
        "budget.loosen_requested",
    ),
    "POST /admin/approvals/request/{object_id}/approve/": Change(
        pk("raise_asked"), {}, "budget.raise_approved"
    ),
    "POST /admin/approvals/request/{object_id}/reject/": Change(
        pk("raise_asked"), {"reason": "no"}, "budget.raise_rejected"
    ),
    "POST /admin/approvals/request/{object_id}/take-back/": Change(
        pk("own_raise"), {}, "budget.raise_cancelled"
    ),
    "POST /admin/alerts/rule/add/": Change(
        send=lambda world: {"slug": "new-rule", "kind": "error_rate", "project": str(world.support.pk)},
        action="alert_rule.created",
    ),
    "POST /admin/alerts/rule/{object_id}/change/": Change(
        pk("alert_rule"), {"numbers": "percent = 7"}, "alert_rule.changed"
    ),
    "POST /admin/alerts/rule/{object_id}/archive/": Change(pk("alert_rule"), {}, "alert_rule.archived"),
    "POST /admin/alerts/rule/{object_id}/restore/": Change(pk("old_alert_rule"), {}, "alert_rule.restored"),
    "POST /admin/alerts/slo/add/": Change(
        send=lambda world: {"slug": "new-slo", "target": "99", "project": str(world.support.pk)},
        action="slo.created",
    ),
    "POST /admin/alerts/slo/{object_id}/change/": Change(pk("slo"), {"target": "98"}, "slo.changed"),
    "POST /admin/alerts/slo/{object_id}/archive/": Change(pk("slo"), {}, "slo.archived"),
    "POST /admin/alerts/slo/{object_id}/restore/": Change(pk("old_slo"), {}, "slo.restored"),
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
        pk("channel"), {"addresses": "b@example.com"}, "alert_channel.changed"
    ),
    "POST /admin/alerts/channel/{object_id}/archive/": Change(pk("channel"), {}, "alert_channel.archived"),
    "POST /admin/alerts/channel/{object_id}/restore/": Change(
        pk("old_channel"), {}, "alert_channel.restored"
    ),
    "POST /admin/alerts/channel/{object_id}/rotate-secret/": Change(
        pk("hook"), {}, "alert_channel.signing_rotated"
    ),
    "POST /admin/alerts/channel/{object_id}/send-test/": Change(pk("channel"), {}, "alert_channel.tested"),
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
        pk("tool"), {"rules": "length(text) > 9 => irreversible"}, "tool.version_added"
    ),
    "POST /admin/tools/tool/{object_id}/pause/": Change(pk("tool"), {"reason": "why"}, "tool.paused"),
    "POST /admin/tools/tool/{object_id}/resume/": Change(pk("paused_tool"), {}, "tool.resumed"),
    "POST /admin/tools/tool/{object_id}/archive/": Change(pk("paused_tool"), {}, "tool.archived"),
    "POST /admin/tools/tool/{object_id}/restore/": Change(pk("old_tool"), {}, "tool.restored"),
    "POST /admin/tools/tool/{object_id}/rotate-secret/": Change(pk("tool"), {}, "tool.signing_rotated"),
    "POST /admin/tools/tool/{object_id}/dry-run/": Change(pk("tool"), {"arguments": "{}"}, "tool.tested"),
    "POST /admin/tools/action/{object_id}/resolve/": Change(
        pk("lost_action"), {"happened": "no", "reason": "I looked"}, "tool.action_resolved"
    ),
    "POST /admin/budgets/lease/{object_id}/explain/": Change(
        pk("lost_lease"),
        {"spent_usd": "0", "reason": "never reached the provider"},
        "budget.lease_explained",
    ),
    "POST /admin/usage/call/{object_id}/correct/": Change(
        pk("unknown_call"), {"cost_usd": "0.01", "reason": "the invoice"}, "call.corrected"
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
        pk("policy"), {"calls": "10"}, "policy.tried_on_calls"
    ),
    "POST /admin/providers/model/from-a-list/": Change(
        send=lambda world: {"provider": str(world.provider.pk)}, action="provider.models_listed"
    ),
    "POST /admin/providers/model/{object_id}/test-call/": Change(pk("model"), {}, "model.tested"),
    "POST /admin/providers/credential/{object_id}/probe/": Change(pk("staged"), {}, "credential.probed"),
    "POST /admin/providers/credential/{object_id}/activate/": Change(
        pk("staged"), {"unprobed_reason": "a test"}, "credential.activated"
    ),
    "POST /admin/providers/credential/{object_id}/replace/": Change(
        pk("staged"), {"secret": "simulated-key-0010"}, "credential.replaced"
    ),
    "POST /admin/providers/credential/{object_id}/drain/": Change(pk("active"), {}, "credential.drained"),
    "POST /admin/providers/credential/{object_id}/revoke/": Change(pk("active"), {}, "credential.revoked"),
    "POST /admin/providers/credential/{object_id}/rotate/": Change(
        pk("active"),
        {"secret": "simulated-key-0011", "unprobed_reason": "a test"},
        "rotation.staged",
    ),
    "POST /admin/providers/credential/{object_id}/remind/": Change(
        pk("active"), {"days": "30"}, "credential.rescheduled"
    ),
    "POST /admin/providers/credential/{object_id}/read-again/": Change(
        pk("referenced"), {}, "credential.reread_requested"
    ),
    "POST /admin/providers/rotation/{object_id}/activate/": Change(pk("rotation"), {}, "rotation.activated"),
    "POST /admin/providers/rotation/{object_id}/cancel/": Change(pk("rotation"), {}, "rotation.cancelled"),
    "POST /admin/providers/rotation/{object_id}/take-back/": Change(
        pk("draining_rotation"), {"reason": "slower"}, "rotation.returned"
    ),
    "POST /admin/providers/rotation/{object_id}/finish/": Change(
        pk("draining_rotation"), {"reason": "leaked"}, "rotation.finished"
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
        pk("model"), {"max_output_tokens": "700"}, "model.pinned"
    ),
    "POST /admin/providers/model/{object_id}/price/": Change(
        pk("model"), {"token_class": "reasoning", "usd_per_million": "3.50"}, "price.added"
    ),
    "POST /admin/providers/model/{object_id}/listed-prices/": Change(
        pk("listed_model"), {}, "prices.updated"
    ),
    "POST /admin/providers/model/{object_id}/archive/": Change(pk("spare_model"), {}, "model.archived"),
    "POST /admin/providers/model/{object_id}/restore/": Change(pk("old_model"), {}, "model.restored"),
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
        pk("provider"), {"name": "Renamed"}, "provider.changed"
    ),
    "POST /admin/providers/provider/{object_id}/pause/": Change(
        pk("provider"), {"reason": "why"}, "provider.paused"
    ),
    "POST /admin/providers/provider/{object_id}/resume/": Change(
        pk("paused_provider"), {}, "provider.resumed"
    ),
    "POST /admin/providers/provider/{object_id}/archive/": Change(
        pk("spare_provider"), {}, "provider.archived"
    ),
    "POST /admin/providers/provider/{object_id}/restore/": Change(
        pk("old_provider"), {}, "provider.restored"
    ),
    "POST /admin/providers/route/add/": Change(send={"slug": "new"}, action="route.created"),
    "POST /admin/providers/route/{object_id}/change/": Change(
        pk("route"), {"description": "Renamed"}, "route.changed"
    ),
    "POST /admin/providers/route/{object_id}/pause/": Change(pk("route"), {"reason": "why"}, "route.paused"),
    "POST /admin/providers/route/{object_id}/resume/": Change(pk("paused_route"), {}, "route.resumed"),
    "POST /admin/providers/route/{object_id}/degrade/": Change(
        pk("route"), {"reason": "why"}, "route.degraded"
    ),
    "POST /admin/providers/route/{object_id}/recover/": Change(pk("degraded_route"), {}, "route.recovered"),
    "POST /admin/providers/route/{object_id}/reset-breakers/": Change(
        pk("route"), {}, "route.breakers_reset"
    ),
    "POST /admin/providers/route/{object_id}/archive/": Change(pk("route"), {}, "route.archived"),
    "POST /admin/providers/route/{object_id}/restore/": Change(pk("old_route"), {}, "route.restored"),
    "POST /admin/prompts/prompt/add/": Change(
        send=lambda world: {"slug": "new", "project": world.support.pk, "task": "Say hello."},
        action="prompt.created",
    ),
    "POST /admin/prompts/prompt/{object_id}/change/": Change(
        pk("prompt"), {"task": "Say hello to them."}, "prompt.draft_saved"
    ),
    "POST /admin/prompts/prompt/{object_id}/point-label/": Change(
        pk("prompt"), {"name": "production", "version": 1, "reason": "ready"}, "prompt.label_moved"
    ),
    "POST /admin/prompts/prompt/{object_id}/duplicate/": Change(
        pk("prompt"), {"slug": "copy"}, "prompt.created"
    ),
    "POST /admin/prompts/prompt/{object_id}/discard-draft/": Change(
        pk("prompt"), {}, "prompt.draft_discarded"
    ),
    "POST /admin/prompts/prompt/{object_id}/archive/": Change(pk("prompt"), {}, "prompt.archived"),
    "POST /admin/prompts/prompt/{object_id}/restore/": Change(pk("old_prompt"), {}, "prompt.restored"),
    "POST /admin/prompts/prompt/import-files/": Change(
        send=lambda world: {
            "archive": SimpleUploadedFile("p.zip", base64.b64decode(PROMPT_FILES)),
            "project": "support",
        },
        action="prompt.created",
    ),
    "POST /admin/prompts/promptversion/{object_id}/edit-from-here/": Change(
        pk("first_prompt_version"), {}, "prompt.draft_saved"
    ),
    "POST /admin/prompts/promptversion/{object_id}/point-label/": Change(
        pk("first_prompt_version"), {"name": "production", "reason": "ready"}, "prompt.label_moved"
    ),
    "POST /admin/prompts/label/{object_id}/back/": Change(pk("label"), {}, "prompt.label_moved"),
    "POST /admin/prompts/label/{object_id}/move/": Change(
        pk("label"), {"version": 1, "reason": "ready"}, "prompt.label_moved"
    ),
    "POST /admin/prompts/label/{object_id}/take-away/": Change(
        pk("label"), {"reason": "over"}, "prompt.label_removed"
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
        pk("policy"), {"description": "Renamed"}, "policy.changed"
    ),
    "POST /admin/policies/policy/{object_id}/archive/": Change(pk("policy"), {}, "policy.archived"),
    "POST /admin/policies/policy/{object_id}/restore/": Change(pk("old_policy"), {}, "policy.restored"),
    "POST /admin/policies/policyversion/{object_id}/roll-back/": Change(
        pk("first_version"), {"reason": "back"}, "policy.rolled_back"
    ),
    "POST /admin/serving/revision/publish/": Change(send={"reason": "ready"}, action="revision.published"),
    "POST /admin/serving/revision/{object_id}/restore/": Change(
        pk("first_revision"), {"reason": "back"}, "revision.restored"
    ),
    "POST /admin/serving/revision/bring/": Change(
        send=lambda world: {"file": SimpleUploadedFile("revision.json", world.revision_file)},
        action="revision.brought",
    ),
    "POST /admin/serving/revision/rule/": Change(
        send={"always": "on", "reason": "careful"}, action="publishing.rule_changed"
    ),
    "POST /admin/serving/broughtrevision/{object_id}/publish/": Change(
        pk("brought"), {"reason": "promoted"}, "revision.published"
    ),
    "POST /admin/access/servicekey/{object_id}/pause/": Change(
        pk("key"), {"reason": "why"}, "service_key.paused"
    ),
    "POST /admin/access/servicekey/{object_id}/resume/": Change(pk("paused_key"), {}, "service_key.resumed"),
}
