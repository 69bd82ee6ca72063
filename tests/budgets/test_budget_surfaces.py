"""Budgets through the API and the admin: who may, what is refused, what is shown."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client
from django.utils import timezone

from llmops.budgets import services
from llmops.budgets.models import Budget
from tests.cast import COMMAND, bearer, issue, no_event, one_event, signed_in

URL = "/api/v1/budgets/"
BODY = {
    "slug": "support-month",
    "scope_kind": "project",
    "scope_value": "support",
    "limit_usd": "12.345678901",
    "thresholds": [50, 100],
}


def ask(client: Client, method: str, url: str, body: Any = None) -> Any:
    return getattr(client, method)(url, body, content_type="application/json")


def budget_in(project: Any, slug: str = "one", **known: Any) -> Budget:
    values = {"scope_kind": "project", "scope_value": project.slug, "limit_nano": 10**9}
    return services.create_budget(COMMAND, slug=slug, **(values | known))


def test_a_budget_lives_its_life_over_the_api(cast: SimpleNamespace) -> None:
    carla = signed_in(cast.carla)
    with one_event("budget.created"):
        made = ask(carla, "post", URL, BODY)
    assert made.status_code == 201, made.json()
    body = made.json()
    assert (body["project"], body["limit_usd"], body["hard"], body["period"]) == (
        "support",
        "12.345678901",
        True,
        "month",
    )
    assert body["gauge"]["left_usd"] == "12.345678901" and "reason" not in body
    url = f"{URL}{body['id']}/"
    with one_event("budget.changed") as seen:
        changed = ask(carla, "patch", url, {"limit_usd": "20", "reason": "a busy month"})
    assert changed.json()["limit_usd"] == "20.00" and seen.event.reason == "a busy month"
    window = services.open_window(budget_id=body["id"], at=timezone.now())
    services.lease(window_id=window.window_id, journal_id=uuid4(), need=0, want=5 * 10**9, lease_seconds=60)
    gauge = carla.get(url).json()["gauge"]
    assert (gauge["held_usd"], gauge["left_usd"], gauge["percent"]) == ("5.00", "15.00", 25)
    assert [one["slug"] for one in carla.get(URL).json()["results"]] == ["support-month"]
    with one_event("budget.archived"):
        assert carla.delete(url).status_code == 204
    assert carla.get(url).status_code == 404 and carla.get(URL).json()["results"] == []


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("limit_usd", {"limit_usd": 12.5}),
        ("limit_usd", {"limit_usd": "-1"}),
        ("limit_usd", {"limit_usd": "1e99"}),
        ("limit_usd", {"limit_usd": "0.0000000001"}),
        ("limit_usd", {"limit_usd": None}),
        ("timezone", {"timezone": "Mars/Olympus"}),
        ("thresholds", {"thresholds": [0]}),
        ("thresholds", {"thresholds": "50"}),
        ("scope_kind", {"scope_kind": "planet"}),
        ("scope_value", {"scope_value": "nowhere"}),
        ("slug", {"slug": "A B"}),
        ("project", {"project": "nowhere"}),
        ("colour", {"colour": "red"}),
        ("hard", {"hard": "perhaps"}),
    ],
)
def test_a_bad_body_is_refused_by_field(cast: SimpleNamespace, field: str, wrong: dict[str, Any]) -> None:
    alice = signed_in(cast.alice)
    with no_event():
        answer = ask(alice, "post", URL, BODY | wrong)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == field, answer.json()


def test_tenants_are_apart(cast: SimpleNamespace) -> None:
    support, search = budget_in(cast.support), budget_in(cast.search, "two")
    everywhere = services.create_budget(COMMAND, slug="all", scope_kind="organisation", limit_nano=10**9)
    carla, alice = signed_in(cast.carla), signed_in(cast.alice)
    assert [one["slug"] for one in carla.get(URL).json()["results"]] == ["one"]
    assert len(alice.get(URL).json()["results"]) == 3
    for hidden in (search, everywhere):
        url = f"{URL}{hidden.pk}/"
        with no_event():
            assert carla.get(url).status_code == 404
            assert ask(carla, "patch", url, {"limit_usd": "5"}).status_code == 404
            assert carla.delete(url).status_code == 404
    search_key = issue(cast.search).key
    for body, status in (
        ({"scope_value": "search"}, 400),
        ({"scope_kind": "key", "scope_value": str(search_key.pk)}, 400),
        ({"scope_kind": "feature", "scope_value": "x", "project": "search"}, 400),
        ({"scope_kind": "feature", "scope_value": "x"}, 403),
        ({"scope_kind": "organisation", "scope_value": ""}, 403),
    ):
        with no_event():
            assert ask(carla, "post", URL, BODY | body).status_code == status, body
            moved = ask(carla, "patch", f"{URL}{support.pk}/", body)
            assert moved.status_code == status, body
    # What is invisible answers in the words of what does not exist.
    told = ask(carla, "post", URL, BODY | {"scope_value": "search"}).json()
    never = ask(carla, "post", URL, BODY | {"scope_value": "nowhere"}).json()
    assert str(told).replace("search", "nowhere") == str(never)


@pytest.mark.any_engine
def test_roles_and_scopes(cast: SimpleNamespace) -> None:
    budget = budget_in(cast.support)
    url = f"{URL}{budget.pk}/"
    for name, may_see, may_change in (
        ("alice", 200, 200),
        ("bob", 200, 403),
        ("carla", 200, 200),
        ("dan", 200, 403),
        ("rita", 403, 403),
        ("charlie", 404, 403),
    ):
        client = signed_in(getattr(cast, name))
        assert client.get(url).status_code == may_see, name
        assert ask(client, "patch", url, {"limit_usd": "3"}).status_code == may_change, name
    assert Client().get(url).status_code == 401
    for scopes, status in ((("inference",), 403), (("read",), 403), (("budgets", "read"), 200)):
        client = bearer(issue(cast.support, *scopes).secret)
        assert ask(client, "patch", url, {"limit_usd": "4"}).status_code == status, scopes
    assert ask(bearer(issue(cast.search, "budgets", "read").secret), "patch", url, {}).status_code == 404


def test_the_list_costs_the_same_however_long(
    cast: SimpleNamespace, django_assert_max_num_queries: Any
) -> None:
    for number in range(12):
        budget = budget_in(cast.support, f"b{number}")
        services.open_window(budget_id=budget.pk, at=timezone.now())
    alice = signed_in(cast.alice)
    with django_assert_max_num_queries(8):
        assert len(alice.get(URL).json()["results"]) == 12


FORM = {
    "slug": "from-admin",
    "scope_kind": "project",
    "scope_value": "support",
    "project": "",
    "period": "month",
    "timezone": "Europe/Berlin",
    "limit_usd": "0.01",
    "hard": "on",
    "thresholds": "100, 50%, 80",
    "reason": "a trial",
}
ADMIN = "/admin/budgets/budget/"


def test_the_admin_makes_changes_and_archives_budgets(cast: SimpleNamespace) -> None:
    alice = signed_in(cast.alice)
    assert alice.get(f"{ADMIN}add/").status_code == 200
    with one_event("budget.created") as seen:
        answer = alice.post(f"{ADMIN}add/", FORM)
    assert answer.status_code == 302, answer.context["adminform"].form.errors
    budget = Budget.objects.get(slug="from-admin")
    assert (budget.limit_nano, budget.thresholds, budget.project) == (10**7, [50, 80, 100], cast.support)
    assert (seen.event.actor_name, seen.event.reason) == ("alice", "a trial")
    window = services.open_window(budget_id=budget.pk, at=timezone.now())
    services.lease(window_id=window.window_id, journal_id=uuid4(), need=0, want=2_500_000, lease_seconds=60)
    url = f"{ADMIN}{budget.pk}/change/"
    page = alice.get(url)
    text = page.content.decode()
    assert ">0.00</a> + 0.0025 of 0.01 (25.0\u2009%)" in text and 'name="period"' not in text
    assert 'value="0.01"' in text and "50, 80, 100" in text
    budget.refresh_from_db()
    stamp = {"_loaded": budget.updated_at.isoformat()}
    with one_event("budget.changed") as seen:
        answer = alice.post(url, {**FORM, **stamp, "limit_usd": "0.02", "thresholds": ""})
    assert answer.status_code == 302
    assert seen.event.after == {"limit_usd": "0.02", "thresholds": []}
    assert "0.02" in alice.get(ADMIN).content.decode()


def test_a_project_is_chosen_or_its_slug_typed(cast: SimpleNamespace) -> None:
    alice, carla = signed_in(cast.alice), signed_in(cast.carla)
    chosen, unsaid = str(cast.support.pk), FORM | {"scope_value": ""}
    # As the page sends it that hides what the scope does not ask for, and as one without a script does.
    for number, (who, given) in enumerate(
        [
            (
                alice,
                {name: text for name, text in FORM.items() if name != "scope_value"} | {"project": chosen},
            ),
            (alice, unsaid | {"project": chosen}),
            (carla, FORM | {"project": chosen}),
            (carla, FORM),
        ]
    ):
        with one_event("budget.created"):
            answer = who.post(f"{ADMIN}add/", given | {"slug": f"b-{number}"})
        assert answer.status_code == 302, answer.context["adminform"].form.errors
        made = Budget.objects.get(slug=f"b-{number}")
        assert (made.scope_value, made.project) == ("support", cast.support)
    for who in (alice, carla):
        with no_event():
            answer = who.post(f"{ADMIN}add/", unsaid)
        assert answer.context["adminform"].form.errors.keys() == {"project"}
    key = str(issue(cast.support).key.pk)
    by_key = {name: text for name, text in FORM.items() if name != "project"} | {"scope_kind": "key"}
    with one_event("budget.created"):
        assert carla.post(f"{ADMIN}add/", by_key | {"scope_value": key}).status_code == 302
    with no_event():
        foreign = carla.post(
            f"{ADMIN}add/", FORM | {"slug": "x", "project": str(cast.search.pk), "scope_value": ""}
        )
    assert foreign.context["adminform"].form.errors.keys() == {"project"}


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("limit_usd", {"limit_usd": "ten"}),
        ("limit_usd", {"limit_usd": "-1"}),
        ("limit_usd", {"limit_usd": ""}),
        ("thresholds", {"thresholds": "fifty"}),
        ("thresholds", {"thresholds": "0"}),
        ("timezone", {"timezone": "Mars"}),
        ("scope_value", {"scope_value": "nowhere"}),
        ("slug", {"slug": "A B"}),
    ],
)
def test_the_admin_shows_refusals_at_their_field(
    cast: SimpleNamespace, field: str, wrong: dict[str, str]
) -> None:
    alice = signed_in(cast.alice)
    with no_event():
        answer = alice.post(f"{ADMIN}add/", FORM | wrong)
    assert answer.status_code == 200 and field in answer.context["adminform"].form.errors
    assert not Budget.objects.exists()


@pytest.mark.any_engine
def test_the_admin_keeps_tenants_apart(cast: SimpleNamespace) -> None:
    hidden = budget_in(cast.search, "foreign-budget")
    carla = signed_in(cast.carla)
    assert "foreign-budget" not in carla.get(ADMIN).content.decode()
    with no_event():
        assert carla.get(f"{ADMIN}{hidden.pk}/change/").status_code == 404
        assert carla.post(f"{ADMIN}{hidden.pk}/change/", FORM).status_code == 404
        refused = carla.post(f"{ADMIN}add/", FORM | {"scope_value": "search"})
    assert refused.status_code == 200 and refused.context["adminform"].form.errors
    with one_event("budget.created"):
        carla.post(f"{ADMIN}add/", FORM | {"project": str(cast.support.pk)})
    assert Budget.objects.get(slug="from-admin").project == cast.support


@pytest.mark.any_engine
def test_the_form_tells_all_that_is_wrong_at_once(cast: SimpleNamespace) -> None:
    wrong = {
        "slug": "Not A Slug", "scope_kind": "project", "scope_value": "nobody", "period": "month", "timezone": "Mars/Base",
        "limit_usd": "1.00", "carry_over_usd": "5", "at_limit_route": "no-such-route", "thresholds": "5000",
        "notify": "nobody", "reason": "",
    }  # fmt: skip
    root = signed_in(cast.root)
    with no_event():
        answer = root.post("/admin/budgets/budget/add/", wrong)
    assert answer.status_code == 200
    errors = answer.context["adminform"].form.errors
    assert set(errors) == {
        "slug", "scope_value", "timezone", "at_limit_route", "carry_over_usd", "thresholds", "notify",
    }  # fmt: skip
    # What could not even be read does not keep the rest from being told.
    answer = root.post("/admin/budgets/budget/add/", wrong | {"limit_usd": "much"})
    assert {"limit_usd", "scope_value", "timezone"} <= set(answer.context["adminform"].form.errors)
