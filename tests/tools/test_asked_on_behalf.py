"""For whom a call is asked: whoever is named may not approve it, and whoever names somebody is not told whether there is such an account."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from llmops.core.errors import Conflict, InvalidRequest, PermissionDenied
from llmops.tools import rules
from llmops.tools.models import Action
from tests.cast import acting, bearer, issue, no_event, person
from tests.tools.making import FUNCTIONS, a_service, a_tool, decide, proposed

pytestmark = [pytest.mark.django_db, pytest.mark.any_engine]
URL = "/api/v1/actions/"
#: Of the project, of no project, not active, and nobody's.
NAMES = ("rita", "stranger", "left", "nobody-at-all")


@pytest.fixture(autouse=True)
def functions(settings: Any) -> None:
    settings.TOOL_FUNCTIONS = FUNCTIONS


@pytest.fixture
def world(cast: SimpleNamespace) -> SimpleNamespace:
    cast.stranger = person("stranger")
    left = person("left", ("reviewer", cast.support))
    left.is_active = False
    left.first_name = "Lefty"
    left.save()
    cast.rita.first_name = "Margarita"
    cast.rita.save()
    cast.tool = a_tool(cast.support)
    cast.agent = a_service(cast.support)
    return cast


def post(client: Any, name: str, **more: Any) -> Any:
    sent = {"tool": "refund", "arguments": {"amount": 500, "customer": "Ada"}, "on_behalf_of": name, **more}
    return client.post(URL, sent, content_type="application/json")


def without_what_differs(told: dict[str, Any], name: str) -> dict[str, Any]:
    """An answer without what is new each time, and with what stands for the name that was said."""
    kept = {
        key: value for key, value in told.items() if key not in ("id", "digest", "created_at", "expires_at")
    }
    assert kept.pop("on_behalf_of") == name
    return kept


def test_a_key_is_answered_alike_whether_there_is_such_an_account(world: SimpleNamespace) -> None:
    client = bearer(issue(world.support, "actions", "read", name="asker").secret)
    # What a process looks up once is looked up by then.
    assert post(client, "warm").status_code == 201
    found, asked = [], []
    for name in NAMES:
        with CaptureQueriesContext(connection) as queries:
            answer = post(client, name)
        assert answer.status_code == 201
        found.append(without_what_differs(answer.json(), name))
        # As much is looked up, so it takes as long; and no account is.
        asked.append([one["sql"].split()[0] for one in queries if "SAVEPOINT" not in one["sql"]])
        assert not any('"auth_user"' in one["sql"] or "accounts_user" in one["sql"] for one in queries)
        one = Action.objects.get(pk=answer.json()["id"])
        detail = client.get(f"{URL}{one.pk}/").json()
        assert without_what_differs(detail, name) == found[0]
        # Nor do the digests tell: what stands for the name follows from the name alone.
        assert one.behalf_of_id == rules.person_said(name)
        approval = client.get(f"/api/v1/approvals/{one.request_id}/").json()
        assert approval["content"]["behalf_of"] == rules.person_said(name)
        assert "Margarita" not in str((detail, approval)) and "Lefty" not in str((detail, approval))
    assert all(one == found[0] for one in found) and all(one == asked[0] for one in asked)


@pytest.mark.parametrize("said", ["rita", "Rita", "RITA", "ｒｉｔａ"])
def test_whoever_is_named_does_not_approve_it(world: SimpleNamespace, said: str) -> None:
    action = proposed(world.agent, world.support, behalf_of=said)
    with no_event(), pytest.raises(PermissionDenied, match="on your behalf"):
        decide(world.rita, action)
    decide(world.alice, action)


def test_also_where_the_account_is_made_later(world: SimpleNamespace) -> None:
    action = proposed(world.agent, world.support, behalf_of="newcomer")
    later = person("newcomer", ("reviewer", world.support))
    with no_event(), pytest.raises(PermissionDenied, match="on your behalf"):
        decide(later, action)


def test_what_was_kept_as_an_accounts_id_holds_on(world: SimpleNamespace) -> None:
    from llmops.tools.services.approving import KIND

    content = {"behalf_of": str(world.rita.pk), "behalf_of_name": "rita"}
    assert KIND.objects is not None
    assert "on your behalf" in KIND.objects(acting(world.rita), content)
    assert KIND.objects(acting(world.alice), content) == ""


def test_who_may_see_the_members_is_told_of_a_name_that_is_nobodys(world: SimpleNamespace) -> None:
    client = bearer(issue(world.support, "actions", "members", name="manager").secret)
    assert post(client, "rita").status_code == 201
    for name in ("nobody-at-all", "left"):
        with no_event():
            refused = post(client, name)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "on_behalf_of")
    # Of another project's members it may see none, and is told nothing there.
    other = bearer(issue(world.search, "members", name="elsewhere").secret)
    assert post(other, "nobody-at-all", project="support").status_code in (403, 404, 400)
    ada = person("ada", ("admin", None))
    with pytest.raises(InvalidRequest, match="no account"):
        proposed(acting(ada), world.support, behalf_of="nobody-at-all")


def test_a_name_that_cannot_be_one_is_refused_whoever_asks(world: SimpleNamespace) -> None:
    client = bearer(issue(world.support, "actions", name="asker").secret)
    for name in ("a" * 151, "a\nb"):
        answer = post(client, name)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "on_behalf_of")


def test_the_same_key_on_behalf_of_another_is_no_repetition(world: SimpleNamespace) -> None:
    first = proposed(world.agent, world.support, behalf_of="nobody-at-all", idempotency_key="k")
    assert proposed(world.agent, world.support, behalf_of="nobody-at-all", idempotency_key="k").pk == first.pk
    for other in ("nobody-else", "rita", ""):
        with pytest.raises(Conflict):
            proposed(world.agent, world.support, behalf_of=other, idempotency_key="k")
