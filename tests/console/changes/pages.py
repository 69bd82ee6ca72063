"""What pages of their own change."""

from __future__ import annotations

import json
import time
from typing import Any

from django.core.files.uploadedfile import SimpleUploadedFile

from llmops.access import services as access
from llmops.access.models import SecondFactor
from llmops.access.sealed import factor_identity
from llmops.base.master_keys import master_keys
from llmops.core import one_time
from llmops.core.ids import uuid7
from tests.cast import PASSWORD
from tests.console.browser_forms import form_of
from tests.console.changes.change import Change, World, pk, slug
from tests.console.world import TOMORROW, YESTERDAY

#: Pages of their own that change something.
PAGES: dict[str, Change] = {
    "POST /alerts/{incident_id}/": Change(pk("incident"), {"what": "acknowledge"}, "incident.acknowledged"),
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
        slug("route"), lambda world: edited_route(world, description="Drawn"), "route.changed"
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
    "POST /views/{view_id}/remove/": Change(pk("saved_view"), action="view.removed"),
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
    "POST /datasets/{dataset_id}/": Change(pk("dataset"), {}, "dataset.exported"),
    "POST /datasets/add/{call_id}/": Change(
        pk("call"),
        lambda world: {"dataset": str(world.dataset.pk), "expected": "Hello"},
        "dataset.case_added",
    ),
    "POST /calls/{call_id}/": Change(pk("call"), {}, "usage.texts_read"),
    "POST /playground/replay/{call_id}/": Change(
        pk("call"),
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
