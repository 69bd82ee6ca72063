"""Policies and their versions: made, changed, rolled back, put away, published, tried; one event each."""

from __future__ import annotations

from html import escape

import pytest
from django.db import DatabaseError, connection, transaction

from llmops.core.errors import Conflict, InvalidRequest, NotFound
from llmops.policies import services
from llmops.policies.admin.check_fields import kinds_told
from llmops.policies.checks import CHECKS
from llmops.policies.examples import EXAMPLES
from llmops.policies.models import Policy, PolicyVersion
from llmops.policies.rules import checked
from llmops.policies.trial import try_checks
from llmops.policies.wording import differences
from llmops.providers import services as providers
from llmops.serving import services as serving
from llmops.serving.selectors import load_snapshot, pending
from tests import configuring
from tests.cast import bearer, every_scope, in_threads, no_event, one_event, signed_in
from tests.configuring import OPERATOR
from tests.console.browser_forms import form_of

pytestmark = pytest.mark.django_db

REDACT = {"kind": "personal_data", "stage": "before", "action": "redact", "settings": {"kinds": ["email"]}}
BLOCK = {**REDACT, "action": "block"}
REFUSAL = {"kind": "refusal", "stage": "after", "action": "block", "settings": {}}


def policy(slug="pii", *checks, **fields):
    return services.create_policy(OPERATOR, slug=slug, checks=list(checks) or [REDACT], **fields)


# Services ---------------------------------------------------------------------------------------------------------------


def test_other_checks_are_a_new_version_and_the_old_one_stays():
    with one_event("policy.created") as seen:
        pii = policy(note="first")
    assert (seen.event.after["version"], seen.event.reason) == (1, "first")
    assert seen.event.after["checks"] == ["Personal data before the call: redact"]
    with no_event():
        services.update_policy(OPERATOR, policy=pii, changes={"everywhere": False}, checks=[dict(REDACT)])
    with one_event("policy.changed") as seen:
        services.update_policy(OPERATOR, policy=pii, changes={"everywhere": True}, checks=[BLOCK, REFUSAL])
    assert seen.event.before["everywhere"] is False
    assert seen.event.after["version"] == 2
    assert seen.event.after["changes"] == [
        "Personal data before the call: redact → block",
        "Refusal after the call: block: added",
    ]
    # Fields of the name alone make no version.
    with one_event("policy.changed") as seen:
        services.update_policy(OPERATOR, policy=pii, changes={"description": "Personal data"})
    assert seen.event.after == {"description": "Personal data"}
    assert [version.number for version in pii.versions.all()] == [2, 1]
    with one_event("policy.rolled_back") as seen:
        back = services.roll_back_policy(OPERATOR, policy=pii, number=1, reason="too strict")
    assert (back.current.number, back.current.checks) == (3, [REDACT])
    assert back.current.note == "as in version 1: too strict"
    assert seen.event.after["as_in_version"] == 1
    with pytest.raises(Conflict), no_event():
        services.roll_back_policy(OPERATOR, policy=pii, number=1)
    with pytest.raises(NotFound), no_event():
        services.roll_back_policy(OPERATOR, policy=pii, number=9)
    pii.refresh_from_db()
    assert pii.everywhere


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("path", "checks"),
    [
        ("checks", []),
        ("checks", "x"),
        ("checks", [REDACT] * 51),
        ("checks[0]", ["x"]),
        ("checks[0]", [{**REDACT, "setings": {}}]),
        ("checks[0].kind", [{"stage": "before", "action": "block"}]),
        ("checks[1].kind", [REDACT, {**REDACT, "kind": "vibes"}]),
        ("checks[0].stage", [{**REDACT, "stage": "during"}]),
        ("checks[0].action", [{**REDACT, "action": "retry"}]),
        ("checks[0].settings", [{**REDACT, "settings": []}]),
        ("checks[0].settings.kinds[1]", [{**REDACT, "settings": {"kinds": ["email", "soul"]}}]),
        ("checks[0].settings.kind", [{**REDACT, "settings": {"kind": "email"}}]),
        ("checks[0].settings", [{**REDACT, "settings": {"kinds": ["\x00"]}}]),
        ("checks[0].settings", [{**REDACT, "settings": {"kinds": ["\ud800"]}}]),
        ("checks[0].settings", [{**REDACT, "settings": {"threshold": float("nan")}}]),
        ("checks[0].settings", [{"kind": "length", "stage": "before", "action": "block"}]),
    ],
)
def test_what_is_wrong_is_named_by_its_path(path, checks):
    with pytest.raises(InvalidRequest) as refused, no_event():
        services.create_policy(OPERATOR, slug="pii", checks=checks)
    assert refused.value.param == path
    assert not Policy.objects.exists()


@pytest.mark.any_engine
def test_everything_that_is_wrong_is_told_at_once():
    with pytest.raises(InvalidRequest) as refused:
        checked([{**REDACT, "kind": "vibes"}, REDACT, {**REDACT, "stage": "x"}])
    assert list(refused.value.data["problems"]) == ["checks[0].kind", "checks[2].stage"]


@pytest.mark.any_engine
def test_a_policy_is_of_bounded_size():
    words = [f"word number {number} {'x' * 120}" for number in range(100)]
    long = {**EXAMPLES["deny"], "settings": {"rules": [{"name": "a", "words": words}]}}
    with pytest.raises(InvalidRequest, match="500000 bytes"):
        policy("long", *[long] * 40)


def test_a_name_is_taken_once_and_keeps_its_form():
    policy()
    with pytest.raises(Conflict), no_event():
        policy()
    with pytest.raises(InvalidRequest) as refused:
        policy("No Slug")
    assert refused.value.param == "slug"


@pytest.mark.parametrize(
    "change", ["UPDATE policies_policy_version SET note = 'x'", "DELETE FROM policies_policy_version"]
)
def test_the_database_itself_refuses_to_change_a_version(change):
    policy()
    with (
        pytest.raises(DatabaseError, match="append-only"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(change)
    with pytest.raises(DatabaseError), transaction.atomic():
        PolicyVersion.objects.update(checks=[])
    assert PolicyVersion.objects.get().checks == [REDACT]


@pytest.mark.django_db(transaction=True)
def test_two_changes_at_once_make_two_versions():
    pii = policy()
    lists = [[BLOCK], [REFUSAL]]
    results = in_threads(
        *(
            lambda checks=checks: services.update_policy(OPERATOR, policy=pii, checks=checks)
            for checks in lists
        )
    )
    assert not [result for result in results if isinstance(result, Exception)]
    assert sorted(PolicyVersion.objects.values_list("number", flat=True)) == [1, 2, 3]


def test_a_route_names_policies_in_use_and_those_are_not_put_away():
    pii, small = policy(), configuring.model()
    with pytest.raises(InvalidRequest) as refused, no_event():
        configuring.route("chat", small, policies=["pii", "tone"])
    assert refused.value.param == "policies"
    chat = configuring.route("chat", small, policies=["pii"])
    with pytest.raises(Conflict, match="chat"), no_event():
        services.archive_policy(OPERATOR, policy=pii)
    providers.update_route(OPERATOR, route=chat, changes={"policies": []})
    with one_event("policy.archived"):
        services.archive_policy(OPERATOR, policy=pii)
    with pytest.raises(InvalidRequest), no_event():
        providers.update_route(OPERATOR, route=chat, changes={"policies": ["pii"]})
    with pytest.raises(Conflict), no_event():
        services.archive_policy(OPERATOR, policy=pii)
    with one_event("policy.restored"):
        services.unarchive_policy(OPERATOR, policy=pii)


# Published --------------------------------------------------------------------------------------------------------------


def test_what_routes_name_and_what_holds_everywhere_is_published():
    _, _, chat = configuring.everything()
    pii = policy()
    policy("idle", REFUSAL)
    policy("all", REFUSAL, everywhere=True)
    providers.update_route(OPERATOR, route=chat, changes={"policies": ["pii"]})
    revision = serving.publish(OPERATOR, reason="policies")
    assert "policy all added: Refusal after the call: block, holds everywhere" in revision.changes
    assert [(problem.code, problem.slug) for problem in pending().problems] == [("idle", "idle")]
    snapshot = load_snapshot()
    assert set(snapshot.policies) == {"all", "pii"}
    assert snapshot.policies["all"].everywhere
    [check] = snapshot.policies["pii"].checks
    assert (check.kind, check.action, check.settings) == ("personal_data", "redact", {"kinds": ["email"]})
    services.update_policy(OPERATOR, policy=pii, checks=[BLOCK])
    assert load_snapshot().policies["pii"].version == 1
    changes = serving.publish(OPERATOR, reason="stricter").changes
    assert changes == [
        "policy pii: version 1 → 2",
        "policy pii: Personal data before the call: redact → block",
    ]


@pytest.mark.any_engine
def test_a_check_that_asks_a_model_needs_one():
    configuring.everything()
    policy("asks", EXAMPLES["moderation"], everywhere=True)
    [problem] = pending().errors
    assert (problem.code, problem.slug) == ("asked_model_gone", "asks")
    assert "checks[0].settings.model" in problem.message


# Kinds, words, trials ---------------------------------------------------------------------------------------------------


@pytest.mark.any_engine
def test_every_kind_has_an_example_that_is_accepted():
    assert list(EXAMPLES) == list(CHECKS)
    for kind, example in EXAMPLES.items():
        assert checked([example]) == [example], kind
        assert try_checks("p", 1, [example], asked="Hello", answer="Hi").before is not None


@pytest.mark.any_engine
@pytest.mark.parametrize("kind", ["deny", "allow", "risk"])
def test_an_example_whose_words_one_must_choose_stops_nobodys_traffic(kind):
    texts = [
        "Acme",
        "order ORD-123456",
        "an invoice and a refund",
        "a wire transfer",
        "Globex Corporation",
        "weather",
    ]
    for text in texts:
        trial = try_checks("p", 1, [EXAMPLES[kind]], asked=text, answer=text)
        for decision in (trial.before, trial.after):
            assert decision is None or decision.action == "allow"
    [told] = [one for one in kinds_told() if one["kind"] == kind]
    assert "only marks" in told["example_note"]


@pytest.mark.any_engine
def test_differences_in_words():
    deny = EXAMPLES["deny"]
    rules = deny["settings"]["rules"]
    other = {
        **deny,
        "settings": {"rules": [{**rules[0], "words": ["Acme", "Initech"]}], "holdback_chars": 50},
    }
    assert differences([deny], [deny]) == []
    assert differences([deny], [other]) == [
        "Deny list after the call: rules “competitors”: words added Initech",
        "Deny list after the call: rules “competitors”: words removed Globex Corporation",
        "Deny list after the call: rules “order number” removed",
        "Deny list after the call: holdback_chars default → 50",
    ]
    assert differences([REDACT, REFUSAL], [REFUSAL, REDACT]) == [
        "order: Refusal after the call, Personal data before the call"
    ]
    assert differences([REDACT, BLOCK], [REDACT]) == ["Personal data before the call: block: removed"]


@pytest.mark.any_engine
def test_a_trial_says_what_would_follow():
    trial = try_checks(
        "pii", 3, [{**REDACT, "settings": {"reversible": True}}, REFUSAL],
        asked="Write to a@b.example and a@b.example", answer="I wrote to [EMAIL_1].",
    )  # fmt: skip
    assert (trial.before.action, trial.before.text) == ("redact", "Write to [EMAIL_1] and [EMAIL_1]")
    [verdict] = trial.before.verdicts
    assert (verdict.policy, verdict.version, verdict.check) == ("pii", 3, "personal_data")
    assert (trial.after.action, trial.after.text, trial.after.verdicts) == (
        "allow",
        "I wrote to a@b.example.",
        (),
    )
    refused = try_checks("pii", 1, [REFUSAL], asked="x", answer="I'm sorry, but I can't help with that.")
    assert refused.after.action == "block"
    asks = try_checks("pii", 1, [EXAMPLES["moderation"]], asked="x")
    assert (asks.before.unasked, asks.after) == (("Moderation before the call",), None)


# Surfaces ---------------------------------------------------------------------------------------------------------------


def test_the_api_from_nothing_to_a_roll_back(cast):
    client = bearer(every_scope(cast.support).secret)

    def send(path, expect=200, method="post", **body):
        answer = getattr(client, method)(f"/api/v1/policies/{path}", body, content_type="application/json")
        assert answer.status_code == expect, answer.content
        return answer.json()

    with one_event("policy.created"):
        made = send("", 201, slug="pii", checks=[REDACT], note="first")
    assert (made["current"]["number"], made["current"]["checks"], made["current"]["note"]) == (
        1,
        [REDACT],
        "first",
    )
    with one_event("policy.changed"):
        assert send("pii/", method="patch", checks=[BLOCK], slug="pii")["current"]["number"] == 2
    with no_event():
        assert send("pii/", method="patch", checks=[BLOCK])["current"]["number"] == 2
    history = client.get("/api/v1/policies/pii/versions/").json()
    assert [(row["number"], row["changes"]) for row in history] == [
        (2, ["Personal data before the call: redact → block"]),
        (1, ["Personal data before the call: redact: added (kinds email)"]),
    ]
    with one_event("policy.rolled_back"):
        assert send("pii/roll-back/", version=1)["current"]["number"] == 3
    assert send("pii/roll-back/", 404, version=9)["error"]["param"] == "version"
    with no_event():
        error = send("", 400, slug="new", checks=[{**REDACT, "settings": {"kinds": ["soul"]}}])["error"]
        assert error["param"] == "checks[0].settings.kinds[0]"
        assert send("pii/", 400, method="patch", slug="other")["error"]["param"] == "slug"
        assert send("", 400, slug="new")["error"]["param"] == "checks"
        tried = send("pii/try/", asked="a@b.example", answer="ok", version=2)
    assert (tried["version"], tried["before"]["action"], tried["after"]["action"]) == (2, "block", "allow")
    assert tried["before"]["verdicts"][0]["findings"] == [{"name": "email", "where": "messages[0].content"}]
    assert send("pii/try/", 404, asked="x", version=9)["error"]["param"] == "version"
    assert set(client.get("/api/v1/policies/kinds/").json()) == set(CHECKS)


@pytest.mark.any_engine
def test_the_form_shows_the_checks_and_saves_nothing_unasked(cast):
    pii = policy("pii", *EXAMPLES.values())
    client, address = signed_in(cast.alice), f"/admin/policies/policy/{pii.pk}/change/"
    sent = form_of(client.get(address).content.decode())
    with no_event():
        answer = client.post(address, sent)
        assert answer.status_code == 302, answer.context["adminform"].form.errors
    sent = form_of(client.get(address).content.decode())
    # The last one goes, the first two change places.
    last = len(EXAMPLES) - 1
    moved = {**sent, "checks-0-place": "2", "checks-1-place": "1", f"checks-{last}-kind": ""}
    with one_event("policy.changed") as seen:
        client.post(address, moved)
    pii.refresh_from_db()
    kinds = [check["kind"] for check in pii.current.checks]
    assert kinds == ["secrets", "length", *list(EXAMPLES)[2:last]]
    assert "Lazy answer after the call: ask again: removed" in seen.event.after["changes"]


@pytest.mark.any_engine
def test_a_bad_row_is_told_by_its_number_and_shown_again(cast):
    client = signed_in(cast.alice)
    row = {"checks-0-place": "1", "checks-0-kind": "personal_data", "checks-0-stage": "before"}
    base = {"slug": "pii", "description": "", "note": "", **row, "checks-0-action": "redact"}
    for change, words in (
        ({"checks-0-settings": "kinds: [soul]"}, "Check 1: settings.kinds[0]"),
        ({"checks-0-settings": "kinds: [email"}, "Check 1: settings: this is not YAML"),
        ({"checks-0-settings": "a: &a [1]\nb: *a"}, "aliases"),
        ({"checks-0-settings": "kinds: [email]\nkinds: [ip]"}, "named twice"),
        ({"checks-0-settings": "- email"}, "write names and values"),
        ({"checks-0-settings": "kinds: 2024-01-01"}, "JSON cannot hold"),
        ({"checks-0-action": "retry"}, "Check 1: action"),
        ({"checks-0-place": "first"}, "whole number"),
        ({"checks-0-kind": ""}, "at least one check"),
    ):
        with no_event():
            answer = client.post("/admin/policies/policy/add/", {**base, **change})
        assert words in str(answer.context["adminform"].form.errors["checks"]), change
        assert escape(change.get("checks-0-settings", "")[:10]) in answer.content.decode()
    with one_event("policy.created"):
        assert client.post("/admin/policies/policy/add/", base).status_code == 302


@pytest.mark.any_engine
def test_the_page_of_a_version_tells_the_difference_and_leads_back(cast):
    pii = policy()
    first = pii.current
    services.update_policy(OPERATOR, policy=pii, checks=[BLOCK], note="strict")
    client = signed_in(cast.alice)
    second = PolicyVersion.objects.get(number=2)
    page = client.get(f"/admin/policies/policyversion/{second.pk}/change/").content.decode()
    assert "redact → block" in page
    # The current one is no way back.
    assert "roll-back" not in page
    assert "roll-back" in client.get(f"/admin/policies/policyversion/{first.pk}/change/").content.decode()
    with one_event("policy.rolled_back"):
        client.post(f"/admin/policies/policyversion/{first.pk}/roll-back/", {"reason": "again"})


@pytest.mark.any_engine
def test_trying_in_the_console_shows_the_text_and_keeps_none_of_it(cast):
    pii = policy()
    client = signed_in(cast.rita)
    with no_event():
        page = client.post(
            f"/admin/policies/policy/{pii.pk}/try-it/",
            {"asked": "<b>a@b.example</b>", "role": "user", "answer": ""},
        ).content.decode()
    assert "Before the call: redact" in page
    assert "&lt;b&gt;[EMAIL_1]&lt;/b&gt;" in page
    assert "<b>a@b" not in page


@pytest.mark.any_engine
def test_the_form_of_a_route_offers_policies_in_their_order(cast):
    policy(), policy("tone", REFUSAL)
    chat = configuring.route("chat", configuring.model(), policies=["tone"])
    client, address = signed_in(cast.alice), f"/admin/providers/route/{chat.pk}/change/"
    sent = form_of(client.get(address).content.decode())
    assert sent["policies-0-model"] == ["tone"]
    with one_event("route.changed") as seen:
        client.post(address, {**sent, "policies-0-model": "pii", "policies-1-model": "tone"})
    assert seen.event.after == {"policies": ["pii", "tone"]}
