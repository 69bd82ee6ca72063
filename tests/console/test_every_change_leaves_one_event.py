"""Invariant 5: every change leaves exactly one audit event, whichever door it came through.

The doors are found, not listed: the API's routes, what the admin's pages offer, the other pages, Django's commands and
Celery's tasks. How to go through each is a line in ``tests/console/changes/`` or in a table below; a door without a
line fails, and so does a line without a door.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from console.celery import app as celery
from llmops.audit.checking import check_database, check_newest
from tests.cast import COMMAND, PASSWORD, bearer, issue, no_event, one_event, signed_in
from tests.console import surface
from tests.console.changes.admin import ADMIN, ASKS_A_PROVIDER
from tests.console.changes.api import API
from tests.console.changes.change import Change, address, call_api, fill_form
from tests.console.changes.looks import LOOKS, REPORTS
from tests.console.changes.pages import PAGES
from tests.console.world import LONG_AGO, YESTERDAY, undone

pytestmark = pytest.mark.django_db
_WRITES = re.compile(r'^\s*(?:INSERT(?: OR \w+)? INTO|UPDATE|DELETE FROM)\s+"?(\w+)"?', re.IGNORECASE)
#: What a request may write without changing anything that anybody configured.
HOUSEKEEPING = {"django_session", "axes_accessattempt", "axes_accesslog", "access_sign_in"}


def written(queries: CaptureQueriesContext) -> set[str]:
    found = (_WRITES.match(query["sql"]) for query in queries.captured_queries)
    return {match.group(1) for match in found if match} - HOUSEKEEPING


def accepted(answer: Any) -> bool:
    if answer.status_code in (201, 202, 204, 302):
        return True
    if answer.status_code != 200:
        return False
    form = (answer.context or {}).get("form") if answer.context is not None else None
    shown = (answer.context or {}).get("adminform") if answer.context is not None else None
    return not (getattr(form, "errors", None) or (shown is not None and shown.form.errors))


def explained(answer: Any) -> str:
    return re.sub(r"<[^>]+>|\s+", " ", answer.content.decode())[-1500:] if answer.status_code != 302 else ""


# The tables and the doors ---------------------------------------------------------------------------------------------


@pytest.mark.any_engine
def test_every_change_of_the_api_is_in_the_table():
    looks = {key for key in LOOKS if key.split()[1].startswith("/api/")}
    assert set(API) | looks | set(REPORTS) == surface.api_changes()


@pytest.mark.any_engine
def test_every_change_of_the_admin_is_in_the_table():
    looks = {key for key in LOOKS if key.split()[1].startswith("/admin/")}
    assert set(ADMIN) | looks == surface.admin_changes()


@pytest.mark.any_engine
def test_looks_are_none_of_the_changes():
    assert not set(LOOKS) & {*API, *ADMIN, *PAGES}


@pytest.mark.any_engine
def test_every_action_of_the_admin_asks_and_posts():
    for place, model_admin in surface.model_admins().items():
        for name in (*model_admin.actions_list, *model_admin.actions_detail, *model_admin.actions_row):
            assert hasattr(getattr(model_admin, name), "console"), (
                f"{place}: {name} is not made with admin_action"
            )
        assert not model_admin.list_editable, place
        assert not model_admin.actions_submit_line, place


# Through each ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", API)
def test_the_api(world, key):
    change = API[key]
    with undone():
        with one_event() as seen:
            answer = call_api(world.clients["root"], key, change, world)
            assert accepted(answer), (answer.status_code, answer.content)
        check(seen.event, change)


#: What the API changes as well meets the second engine there; the pages themselves are opened on both.
_IN_THE_API = {change.action for change in API.values()}


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(key, marks=pytest.mark.any_engine) if change.action in _IN_THE_API else key
        for key, change in ADMIN.items()
    ],
)
def test_the_admin(world, key):
    change, client = ADMIN[key], world.clients["root"]
    with undone():
        with no_event():
            form = fill_form(client, key, change, world)
        with one_event() as seen:
            answer = client.post(address(key, change, world), form)
            # What a probe found is on record also when the page then says that it did not work.
            assert accepted(answer) or key.endswith(ASKS_A_PROVIDER), explained(answer)
        check(seen.event, change)


@pytest.mark.parametrize("key", LOOKS)
def test_looking_by_sending_changes_nothing(world, key):
    look, client = LOOKS[key], world.clients["root"]
    form = {} if key in surface.api_routes() else fill_form(client, key, look, world)
    with undone(), no_event(), CaptureQueriesContext(connection) as queries:
        answer = client.post(address(key, look, world), form) if form else call_api(client, key, look, world)
        assert accepted(answer), explained(answer)
    assert written(queries) == set()
    assert "EMAIL_1" in answer.content.decode()


@pytest.mark.parametrize("key", REPORTS)
def test_reports_of_services_are_their_own_record(world, key):
    with undone(), no_event():
        assert accepted(call_api(world.clients["root"], key, REPORTS[key], world))


@pytest.mark.parametrize("key", PAGES)
def test_other_pages(world, key):
    change = PAGES[key]
    with undone():
        client = signed_in(world.root)
        with one_event() as seen:
            assert accepted(client.post(address(key, change, world), change.sent(world)))
        check(seen.event, change)


def check(event: Any, change: Change) -> None:
    assert event.action == change.action
    assert event.actor_name == "root"
    assert event.ip == "127.0.0.1"
    assert event.request_id
    assert PASSWORD not in str(event.before) + str(event.after)
    # It follows from the one before; that all before it is whole is looked at once.
    assert check_newest(2) == ""


def test_what_every_change_follows_from_is_whole(world):
    assert check_database().intact


# Nothing else changes anything (looking: test_no_secret_anywhere.py) ----------------------------------------------------------------------------------------


def stand_in(route: str, world: SimpleNamespace) -> str:
    """``route`` with the names of objects that exist."""
    kinds = {
        "access/project": world.support, "access/servicekey": world.key, "access/membership": world.membership,
        "auth/user": world.eve, "audit/event": world.event, "providers/credential": world.staged,
        "providers/rotation": world.rotation,
        "providers/model": world.model, "providers/price": world.price,
        "prompts/promptversion": world.first_prompt_version, "prompts/prompt": world.prompt, "prompts/label": world.label,
        "alerts/rule": world.alert_rule, "alerts/slo": world.slo, "alerts/channel": world.channel, "tools/tool": world.tool, "tools/action": world.lost_action,
        "policies/policyversion": world.first_version, "policies/policy": world.policy,
        "providers/provider": world.provider, "providers/route": world.route, "budgets/budget": world.budget,
        "approvals/request": world.raise_asked, "budgets/lease": world.lost_lease, "base/masterkeyverifier": world.old_master_key, "budgets/overrun": world.overrun,
        "serving/revision": world.revision, "serving/broughtrevision": world.brought, "usage/call": world.call, "usage/job": world.job,
        "usage/journal": world.journal,
    }  # fmt: skip
    for kind, row in kinds.items():
        if route.startswith(f"/admin/{kind}/"):
            return route.replace("{object_id}", str(row.pk))
    values = {"incident_id": world.incident.pk, "name": "degraded-provider", "call_id": world.call.pk, "request_id": world.raise_asked.pk, "action_id": world.lost_action.pk, "run_id": world.started_run.pk, "replay_id": world.replay.pk, "dataset_id": world.dataset.pk, "passkey": world.call.pk, "sequence": world.event.pk, "sign_in": world.call.pk, "view_id": world.saved_view.pk, "app_label": "access", "url": "nothing", "rest": "nothing", "slug": world.route.slug,
              "content_type_id": "1", "object_id": "1"}  # fmt: skip
    return re.sub(r"\{(\w+)\}", lambda match: str(values[match.group(1)]), route)


@pytest.mark.any_engine
def test_pages_that_offer_nothing_refuse(world):
    """POST to every page of every admin that is not in the table."""
    offered = {key.split()[1] for key in ADMIN}
    for route in sorted(surface.admin_pages() - offered):
        with undone(), no_event(), CaptureQueriesContext(connection) as queries:
            answer = world.clients["root"].post(
                stand_in(route, world), {"post": "yes", "name": "x", "action": "delete_selected"}
            )
        assert written(queries) == set(), route
        assert answer.status_code in (200, 302, 403, 404, 405), (route, answer.status_code)


@pytest.mark.any_engine
def test_other_pages_refuse_what_is_not_in_the_table(world):
    known = {key.split()[1] for key in PAGES}
    # tests/access/test_sessions_on_record.py, test_second_factor.py
    leave_or_enter = {"/admin/login/", "/admin/password_change/", "/account/code/"}
    for route in sorted(surface.other_pages() - known - leave_or_enter):
        for method in ("post", "put", "patch", "delete"):
            with undone(), no_event(), CaptureQueriesContext(connection) as queries:
                answer = getattr(world.clients["root"], method)(stand_in(route, world), {})
            assert written(queries) == set(), (method, route)
            assert answer.status_code in (200, 301, 302, 400, 401, 403, 404, 405), (
                method,
                route,
                answer.status_code,
            )


#: What is taken out as a file is on record: whose it is here, and the event.
EXPORTS = {
    "/api/v1/prompts/{pk}/export/": ("prompt", "prompt.exported"),
    "/api/v1/revisions/{number}/export/": ("revision", "revision.exported"),
}


@pytest.mark.parametrize("route", EXPORTS)
def test_taking_something_out_leaves_one_event(world, route):
    of, action = EXPORTS[route]
    with undone(), one_event(action):
        answer = world.clients["root"].get(re.sub(r"\{\w+\}", str(getattr(world, of).pk), route))
    assert answer.status_code == 200


# Commands -------------------------------------------------------------------------------------------------------------


def _apply(tmp_path: Any) -> None:
    file = tmp_path / "file.yaml"
    file.write_text("version: 1\nprojects:\n  - {slug: applied, name: Applied}\n")
    call_command("apply", "-f", str(file), "--no-publish", stdout=StringIO())


def _user(name: str) -> Callable[[Any], None]:
    def run(tmp_path: Any) -> None:
        arguments = {"createsuperuser": ["--username", "new"], "changepassword": ["eve"]}[name]
        call_command(name, *arguments, "--noinput", stdout=StringIO())

    return run


def _plain(*arguments: str) -> Callable[[Any], None]:
    return lambda tmp_path: call_command(*arguments, stdout=StringIO())


#: Commands that change something: each run leaves one event of this action.
COMMANDS: dict[str, tuple[Callable[[Any], None], str]] = {
    "apply": (_apply, "project.created"),
    "createsuperuser": (_user("createsuperuser"), "user.created"),
    "changepassword": (_user("changepassword"), "user.password_set"),
    "rotate": (
        _plain("rotate", "begin", "sim/active", "--reference", "env:SIM_KEY", "--unprobed", "a test"),
        "rotation.staged",
    ),
    "revision": (_plain("revision", "publish", "--reason", "ready"), "revision.published"),
    "masterkey": (_plain("masterkey", "reseal", "--background"), "master_key.resealing_started"),
    "prices": (_plain("prices", "update"), "prices.updated"),
    "usage": (_plain("usage", "rebuild", "--day", str(YESTERDAY)), "usage.rebuild_requested"),
    "audit": (_plain("audit", "export"), "audit.exported"),
    "axes_reset": (_plain("axes_reset"), "sign_in_guard.reset"),
    "axes_reset_ip": (_plain("axes_reset_ip", "192.0.2.1"), "sign_in_guard.reset"),
    "axes_reset_username": (_plain("axes_reset_username", "eve"), "sign_in_guard.reset"),
    "axes_reset_ip_username": (_plain("axes_reset_ip_username", "192.0.2.1", "eve"), "sign_in_guard.reset"),
    "axes_reset_logs": (_plain("axes_reset_logs"), "sign_in_guard.reset"),
    "axes_reset_failure_logs": (_plain("axes_reset_failure_logs"), "sign_in_guard.reset"),
}
#: Commands that change nothing that anybody configured, and why.
QUIET: dict[str, str] = {
    "bootstrap": "fills an empty installation through apply and the services; tests/e2e looks at its events",
    "ingest": "books calls, which are their own record",
    "export": "reads what is configured",
    "doctor": "reads; --keep keeps a measured score",
    "axes_list_attempts": "reads",
    "loaddata": "refuses: it would go past the services",
    "flush": "refuses: it would go past the services",
    **dict.fromkeys(
        ("migrate", "makemigrations", "squashmigrations", "optimizemigration", "createcachetable",
         "remove_stale_contenttypes"),
        "changes tables, not what is configured; part of installing a version",
    ),
    "clearsessions": "removes sessions that are over",
    **dict.fromkeys(("dbshell", "shell"), "give the owner of the machine the database itself; see docs"),
    **dict.fromkeys(
        ("check", "compilemessages", "diffsettings", "dumpdata", "inspectdb", "makemessages", "sendtestemail",
         "showmigrations", "sqlflush", "sqlmigrate", "sqlsequencereset", "startapp", "startproject", "test",
         "testserver", "runserver", "collectstatic", "findstatic", "generateschema", "spectacular"),
        "reads, or works on files",
    ),
}  # fmt: skip


@pytest.mark.any_engine
def test_every_command_is_in_a_table():
    assert set(COMMANDS) | set(QUIET) == surface.commands()
    assert not set(COMMANDS) & set(QUIET)


@pytest.mark.parametrize("name", COMMANDS)
def test_commands(world, name, tmp_path, monkeypatch):
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", "another long phrase of words")
    run, action = COMMANDS[name]
    with undone():
        with one_event(action) as seen:
            run(tmp_path)
        assert seen.event.actor_kind == "command"
        assert f"manage.py {name}" in seen.event.actor_name


# Jobs -----------------------------------------------------------------------------------------------------------------

#: Tasks of the worker, and why they leave no event of their own here.
TASKS = {
    "usage.remove_kept_texts": "removes texts as each project says, which is on its record",
    "evals.remove_copied_texts": "removes copies as each project says, which is on its record",
    "usage.forget_minutes": "removes what hours and days hold as well; an event says from when on",
    "usage.ingest_orphans": "books calls, which are their own record",
    "budgets.carry_over": "leaves one event a window that gets what the one before left; tests/budgets",
    "budgets.end_raises": "leaves one event a budget whose raises are over; tests/budgets",
    "tools.execute": "leaves one event when it begins with an action and one when it ends; tests/tools",
    "tools.look_after": "leaves one event an action that it closes; tests/tools",
    "approvals.tell": "sends messages about requests, which are their own record",
    "approvals.expire": "leaves one event a request that nobody decided about; tests/approvals",
    "budgets.send_notices": "sends e-mails about crossings, which are their own record",
    "budgets.reap_leases": "leaves one event a lease that it charges; tests/budgets",
    "usage.apply_retention": "removes calls as configured; leaves one event a run that removed any; tests/usage",
    "providers.forget_old_events": "removes events that data planes reported, once they are 90 days old",
    "providers.tend_rotations": "leaves one event a rotation that it takes back or finishes; tests/providers",
    "audit.verify": "leaves one event when it has looked at everything; tests/audit",
    "alerts.evaluate": "leaves one event an incident that begins, comes back or is over, and one for the shipped rules; tests/alerts",
    "alerts.deliver": "sends what waits in the outbox",
    "readiness.keep": "keeps a measured score of the day",
    "audit.resume_verifications": "hands out runs that somebody began on the record",
    "access.reseal": "leaves one event when it has sealed everything anew; tests/base",
    "access.resume_resealings": "hands out runs that somebody began on the record",
    "access.remind_of_graces": "sends e-mails about secrets that end soon",
    "providers.remind_of_keys": "sends an e-mail about keys that are due",
    "usage.forget_objects": "removes the notes of what providers keep no longer, as configured",
    "usage.tell_of_drift": "sends an e-mail about drifts, which are their own record",
    "usage.fetch_statements": "leaves one event a fetch that it asks for; tests/usage",
    "usage.renew_summaries": "adds up figures that are there once more, for pages",
    "usage.recheck_summaries": "compares summaries with what they are made of, and mends them",
    "usage.make_days": "makes tables for the days to come",
    "usage.send_exports": "leaves one event an export that it sends; tests/usage",
    "playground.forget_old": "removes what people tried, as configured",
    "runs.advance": "leaves one event a run that it ends, beside those of its actions; tests/runs",
    "runs.look_after": "hands out runs that somebody asked for on the record",
    "runs.tell": "tells a service of the end of its run, which is on record",
    "runs.forget_old": "removes texts of runs that are over, as configured",
    "usage.resume_jobs": "goes on with jobs that somebody asked for on the record",
    "usage.run_job": "does what somebody asked for on the record",
}


@pytest.mark.any_engine
def test_every_task_is_in_the_table():
    celery.loader.import_default_modules()
    ours = {name for name in celery.tasks if not name.startswith("celery.")}
    assert ours == set(TASKS)


# What goes wrong leaves nothing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [key for key in API if "{" in key])
def test_a_change_to_nothing_leaves_no_event(world, key):
    nothing = {"slug": "no-such-thing", "number": "999999"}
    name = key[key.index("{") + 1 : key.index("}")]
    route = key.split()[1].replace(f"{{{name}}}", nothing.get(name, "00000000-0000-0000-0000-000000000000"))
    with undone(), no_event(), CaptureQueriesContext(connection) as queries:
        answer = getattr(world.clients["root"], key.split()[0].lower())(
            route, {}, content_type="application/json"
        )
    assert answer.status_code == 404, answer.content
    assert written(queries) == set()


# It is refused before anything is asked of the database.
@pytest.mark.any_engine
def test_a_forged_origin_changes_nothing(world):
    client = Client(enforce_csrf_checks=True)
    client.force_login(world.root)
    for key, change in {**ADMIN, **PAGES}.items():
        with undone(), no_event():
            answer = client.post(address(key, change, world), change.sent(world))
        assert answer.status_code == 403, key
    for key, change in API.items():
        with undone(), no_event():
            answer = call_api(client, key, change, world)
        assert answer.status_code == 403, key


def test_the_events_of_keys_name_the_key(world):
    with undone():
        secret = issue(world.support, "keys", actor=COMMAND, name="minter").secret
        with one_event("service_key.created") as seen:
            call_api(bearer(secret), "POST /api/v1/service-keys/", API["POST /api/v1/service-keys/"], world)
    assert seen.event.actor_kind == "service_key"
    assert seen.event.actor_name.startswith("minter (llmops_")


def test_a_rebuild_of_a_day_that_moves_is_refused_without_a_trace(world):
    with undone(), no_event():
        answer = world.clients["root"].post("/jobs/", {"day": str(LONG_AGO)})
    assert answer.status_code == 400
