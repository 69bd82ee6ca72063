"""Nobody finds anything of another project: not by an id, not in a list, not in what a job tells."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from django.test import Client

from llmops.access.models import Membership
from llmops.usage.models import Job
from tests.cast import bearer, issue, no_event
from tests.console import surface
from tests.console.changes.admin import ADMIN
from tests.console.changes.api import API
from tests.console.changes.change import address, call_api
from tests.console.test_permissions import API_ROWS, PAGE_ROWS, looked_at
from tests.console.world import undone

pytestmark = pytest.mark.django_db


FOREIGN = {
    "support": lambda world: world.search,
    "key": lambda world: world.foreign_key,
    "budget": lambda world: world.foreign_budget,
    "unknown_call": lambda world: world.foreign_unknown_call,
    "lost_lease": lambda world: world.foreign_lost_lease,
    "raise_asked": lambda world: world.foreign_raise,
    "own_raise": lambda world: world.foreign_raise,
    **{
        name: (lambda world, name=name: getattr(world, f"foreign_{name}"))
        for name in (
            "tool",
            "paused_tool",
            "old_tool",
            "own_action",
            "granted_action",
            "redeemed_action",
            "lost_action",
            "started_run",
            "alert_rule",
            "slo",
            "old_slo",
            "channel",
            "old_channel",
            "dataset",
            "hook",
            "incident",
            "well_incident",
            "silent_incident",
        )
    },
    "membership": lambda world: Membership.objects.get(user=world.charlie),
}


@pytest.mark.any_engine
def test_whoever_holds_everything_in_one_project_finds_nothing_of_another(world):
    """404 for each change, and not a word that would tell an id that exists from one that does not."""
    from llmops.access.rules import SCOPES

    strong = bearer(
        issue(world.support, *(scope for scope in SCOPES if scope != "organisation"), name="strong").secret
    )
    foreign = SimpleNamespace(**vars(world))
    for name, find in FOREIGN.items():
        setattr(foreign, name, find(world))
    checked = 0
    for key, change in {**API, **ADMIN}.items():
        if change.target is None or change.target(world) == change.target(foreign):
            continue
        for client in (world.clients["pam"],) if key in ADMIN else (world.clients["pam"], strong):
            with undone(), no_event():
                if key in API:
                    answer = call_api(client, key, change, foreign)
                else:
                    answer = client.post(address(key, change, foreign), change.sent(world))
            assert answer.status_code == 404, (key, answer.status_code)
            assert "search" not in answer.content.decode().lower().replace("/static/", "").replace(
                "research", ""
            ), key
            checked += 1
    assert checked >= 25


@pytest.mark.any_engine
def test_lists_hold_nothing_of_another_project(world):
    theirs = [
        str(world.foreign_key.pk),
        str(world.foreign_budget.pk),
        str(world.foreign_raise.pk),
        str(world.foreign_call.pk),
        str(world.foreign_dataset.pk),
        str(world.foreign_replay.pk),
        str(world.foreign_tool.pk),
        str(world.foreign_incident.pk),
        str(world.foreign_slo.pk),
        str(world.foreign_lost_action.pk),
        str(world.foreign_started_run.pk),
        str(world.search.pk),
    ]
    pages = [key.split()[1] for key in (*API_ROWS, *PAGE_ROWS) if key.startswith("GET ") and "{" not in key]
    for route in pages:
        for client in (world.clients["pam"], world.clients["bob"]):
            answer = client.get(route)
            body = b"".join(answer.streaming_content) if answer.streaming else answer.content
            text = body.decode()
            assert not [one for one in theirs if one in text], route
            assert "ranker" not in text, route


@pytest.mark.any_engine
def test_somebody_without_any_role_sees_nothing(world):
    with undone():
        client = Client()
        client.force_login(world.eve)
        for key in API_ROWS:
            if key.startswith("GET "):
                answer = client.get(looked_at(key.split()[1], world))
                assert answer.status_code in (403, 404), (key, answer.status_code)
        for key in PAGE_ROWS:
            if key.startswith("GET /admin/") and surface.admin_pages() & {key.split()[1]}:
                answer = client.get(looked_at(key.split()[1], world))
                assert answer.status_code in (403, 404), (key, answer.status_code)


def test_what_a_job_counted_in_all_projects_is_for_who_sees_all(world):
    with undone():
        Job.objects.filter(pk=world.job.pk).update(
            state=Job.DONE,
            message="77 calls, 123 USD",
            result={"differences": ["12:00: 4 calls instead of 3"]},
        )
        for actor, told in (("alice", True), ("bob", False), ("charlie", False)):
            for address in ("/jobs/", "/jobs/live/"):
                text = world.clients[actor].get(address).content.decode()
                assert "Recompute" in text
                assert ("123 USD" in text) is told, (actor, address)
                assert ("4 calls instead" in text) is told, (actor, address)
