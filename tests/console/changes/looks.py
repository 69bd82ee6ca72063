"""What is sent and changes nothing that anybody configured."""

from __future__ import annotations

from tests.console.changes.change import Change, pk, slug

#: Bodies that are sent to look at something: they change nothing and leave no event.
LOOKS: dict[str, Change] = {
    "POST /api/v1/prompts/preview/": Change(send={"content": {"task": "EMAIL_1"}}),
    "POST /admin/prompts/prompt/{object_id}/compare/": Change(pk("prompt"), {}),
    "POST /api/v1/prompts/{pk}/render/": Change(pk("prompt"), {"variables": {"name": "EMAIL_1"}}),
    "POST /api/v1/policies/{slug}/try/": Change(slug("policy"), {"asked": "a@b.example"}),
    "POST /admin/policies/policy/{object_id}/try-it/": Change(pk("policy"), {"asked": "a@b.example"}),
    "POST /api/v1/tools/{pk}/try/": Change(pk("tool"), {"arguments": {"text": "EMAIL_1"}}),
    "POST /admin/tools/tool/{object_id}/try-it/": Change(pk("tool"), {"arguments": '{"text": "EMAIL_1"}'}),
    "POST /admin/alerts/rule/{object_id}/try-it/": Change(pk("alert_rule"), {"numbers": "percent = 7"}),
}

#: What services report, thousands at a time, and is its own record as calls are: no event.
REPORTS: dict[str, Change] = {
    "POST /api/v1/outcomes/": Change(
        send=lambda world: {"outcomes": [{"call_id": str(world.call.pk), "kind": "resolved"}]}
    ),
}
