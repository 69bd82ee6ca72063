"""Every secret that the installation keeps or knows, looked for in every answer, log, row, event and export.

Who looks at everything sees at the same time that looking changes nothing, on both engines.
"""

from __future__ import annotations

import json
import logging
import re
from io import StringIO
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from llmops.access import services as access
from llmops.base.master_keys import master_keys
from llmops.base.sealed import sealed_columns
from llmops.providers import services as providers
from tests.cast import COMMAND, issue
from tests.console import surface
from tests.console.changes.api import API
from tests.console.test_every_change_leaves_one_event import EXPORTS, stand_in, written
from tests.console.world import undone

pytestmark = pytest.mark.django_db

PLANTED = "sk-proj-PLANTED9c2e5b8d1064ZQwX"
#: Sealed because they are confidential, and shown to whoever asked them; the rest of what is sealed is shown to nobody.
TEXTS = {"playground.Run", "playground.Piece", "playground.Setup", "usage.KeptText", "usage.KeptAnswer"}
#: What is shorter is no secret of the installation (a stand-in of a test), and is found anywhere.
SHORTEST = 12


def secrets_of(world: Any) -> dict[str, str]:
    """Every secret in the open, by what it is."""
    providers.add_credential(COMMAND, provider=world.provider, name="planted", secret=PLANTED, activate=True)
    issued = issue(world.support, name="planted")
    renewed = access.rotate_service_key(COMMAND, key=issue(world.support, name="planted twice").key)
    found = {
        "service key": issued.secret,
        "renewed service key": renewed.secret,
        "SECRET_KEY": settings.SECRET_KEY,
    }
    for column in sealed_columns():
        if column.model in TEXTS:
            continue
        for row in column.rows:
            opened = master_keys().open(getattr(row, column.field), identity=column.identity(row))
            found[f"{column.model} {row.pk}"] = opened
    for user in (world.root, world.rita):
        found[f"password of {user}"] = user.password
    return {name: secret for name, secret in found.items() if len(secret) >= SHORTEST}


def looked_through(text: str, secrets: dict[str, str], where: str) -> None:
    assert [name for name, secret in secrets.items() if secret in text] == [], where


def body(answer: Any) -> str:
    sent = b"".join(answer.streaming_content) if answer.streaming else answer.content
    return f"{answer.headers}\n{answer.cookies}\n{sent.decode(errors='replace')}"


def everything_stored() -> str:
    found = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
            found.append(f"{table}: {cursor.fetchall()!r}")
    return "\n".join(found)


def test_no_page_shows_one_or_changes_anything(world: Any, caplog: pytest.LogCaptureFixture) -> None:
    """GET every address that there is, as somebody who may see everything."""
    secrets = secrets_of(world)
    assert PLANTED in secrets.values() and len(secrets) > 8
    seen = 0
    with caplog.at_level(logging.INFO):
        for route in sorted(surface.admin_pages() | surface.other_pages()):
            with undone(), CaptureQueriesContext(connection) as queries:
                answer = world.clients["root"].get(stand_in(route, world))
                looked_through(body(answer), secrets, route)
            # An event would be written as well.
            assert written(queries) == set(), route
            assert answer.status_code < 500, route
            seen += answer.status_code == 200
    assert seen > 80
    looked_through(caplog.text, secrets, "the log")


def test_no_answer_of_the_api_or_export_holds_one_or_changes_anything(
    world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    secrets = secrets_of(world)
    looked_at = {key.split()[1]: None for key in surface.api_routes()}
    looked_at |= {key.split()[1]: change.target for key, change in sorted(API.items()) if change.target}
    seen = 0
    with caplog.at_level(logging.INFO):
        for route, target in sorted(looked_at.items()):
            address = re.sub(r"\{\w+\}", str(target(world)) if target else "1", route)
            with undone(), CaptureQueriesContext(connection) as queries:
                answer = world.clients["root"].get(address)
                looked_through(body(answer), secrets, route)
            assert route in EXPORTS or written(queries) == set(), route
            assert answer.status_code < 500, route
            seen += answer.status_code == 200
    assert seen > 15
    told = StringIO()
    call_command("export", stdout=told)
    call_command("audit", "export", stdout=told)
    assert "planted" in told.getvalue()
    looked_through(caplog.text + told.getvalue(), secrets, "the log and exports")


@pytest.mark.any_engine
def test_no_row_keeps_one_in_the_open(world: Any) -> None:
    secrets = {
        name: secret for name, secret in secrets_of(world).items() if not name.startswith("password of ")
    }
    looked_through(everything_stored(), secrets, "the database")


@pytest.mark.any_engine
@pytest.mark.parametrize(
    "change",
    sorted(key for key, change in API.items() if isinstance(change.send, dict) and "secret" in change.send),
)
def test_a_refused_request_does_not_give_it_back(
    world: Any, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    method, route = change.split()
    target = API[change].target
    send = {**API[change].send, "secret": PLANTED, "source": "nowhere", "no_such_member": PLANTED}  # type: ignore[dict-item]
    address = re.sub(r"\{\w+\}", str(target(world)) if target else "1", route)
    with caplog.at_level(logging.INFO):
        answer = getattr(world.clients["k_everything"], method.lower())(
            address, json.dumps(send), content_type="application/json"
        )
    assert 400 <= answer.status_code < 500, (answer.status_code, address)
    looked_through(body(answer) + caplog.text, {"planted": PLANTED}, change)


@pytest.mark.any_engine
@pytest.mark.parametrize("page", ["add/", "{pk}/replace/", "{pk}/rotate/"])
def test_a_refused_form_does_not_show_it_again(
    world: Any, page: str, caplog: pytest.LogCaptureFixture
) -> None:
    address = "/admin/providers/credential/" + page.replace("{pk}", str(world.active.pk))
    with caplog.at_level(logging.INFO):
        answer = world.clients["root"].post(
            address, {"provider": "", "name": "", "source": "nowhere", "secret": PLANTED, "reference": "both"}
        )
    assert answer.status_code == 200
    looked_through(body(answer) + caplog.text, {"planted": PLANTED}, page)
