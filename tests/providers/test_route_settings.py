"""What a route does beyond its targets: fallbacks by failure, long inputs, last resorts, queues, and the degrade switch."""

from __future__ import annotations

import re

import pytest
from django.db import IntegrityError, transaction
from hypothesis import given
from hypothesis import strategies as st

from llmops.access import services as access
from llmops.base.live import LIVE_STATE, REVISION, versions
from llmops.core.errors import Conflict, InvalidRequest
from llmops.gateway.app import ORDINARY, OTHERS
from llmops.policies import services as policies
from llmops.policies.examples import EXAMPLES
from llmops.providers import services
from llmops.providers.models import Provider, Route, RouteTarget
from llmops.providers.rules import SERVED_SEGMENTS, covers, passthrough_problem, shared_objects_problem
from tests import configuring
from tests.cast import bearer, every_scope, no_event, one_event, signed_in
from tests.configuring import OPERATOR
from tests.console.browser_forms import form_of
from tests.kept import kept

pytestmark = pytest.mark.django_db


@kept
def models():
    for slug in ("pii", "tone"):
        policies.create_policy(OPERATOR, slug=slug, checks=[EXAMPLES["refusal"]])
    return configuring.model("small"), configuring.model("large", context_window=100_000)


def chains(route: Route) -> dict[str, list[str]]:
    rows = route.targets.filter(fallback=True).select_related("model").order_by("failure_class", "position")
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row.failure_class, []).append(row.model.slug)
    return found


# Fallbacks by failure ---------------------------------------------------------------------------------------------------


def test_fallbacks_after_a_failure_stand_beside_the_general_ones(models):
    small, large = models
    with one_event("route.created") as seen:
        chat = services.create_route(
            OPERATOR,
            slug="chat",
            targets=[(small, 100)],
            fallbacks=[large],
            fallbacks_for={"rate_limit": [large, small], "context_length": [large]},
        )
    assert seen.event.after["fallbacks"] == ["large"]
    assert seen.event.after["fallbacks_for"] == {
        "context_length": ["large"],
        "rate_limit": ["large", "small"],
    }
    assert chains(chat) == {"": ["large"], "context_length": ["large"], "rate_limit": ["large", "small"]}
    with no_event():
        services.update_route(
            OPERATOR, route=chat, fallbacks_for={"context_length": [large], "rate_limit": [large, small]}
        )
    # What is not named stays.
    with one_event("route.changed") as seen:
        services.update_route(OPERATOR, route=chat, fallbacks=[])
    assert seen.event.after == {"fallbacks": []}
    assert chains(chat) == {"context_length": ["large"], "rate_limit": ["large", "small"]}
    with one_event("route.changed") as seen:
        services.update_route(OPERATOR, route=chat, fallbacks_for={"timeout": [small]})
    assert chains(chat) == {"timeout": ["small"]}
    assert seen.event.before == {
        "fallbacks_for": {"context_length": ["large"], "rate_limit": ["large", "small"]}
    }


def test_the_database_holds_no_class_that_it_does_not_know(models):
    small, large = models
    chat = configuring.route("chat", small)
    for values in (
        {"fallback": True, "failure_class": "bad_mood"},
        {"fallback": False, "failure_class": "timeout"},
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            RouteTarget.objects.create(route=chat, model=large, **values)
    RouteTarget.objects.create(route=chat, model=large, fallback=True, failure_class="timeout")
    with pytest.raises(IntegrityError), transaction.atomic():
        RouteTarget.objects.create(route=chat, model=large, fallback=True, failure_class="timeout")
    for values in ({"context_strategy": "hope"}, {"last_resort": "prayer"}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Route.objects.filter(pk=chat.pk).update(**values)


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("fallbacks_for", {"fallbacks_for": {"bad_mood": ["small"]}}),
        ("fallbacks_for", {"fallbacks_for": {"timeout": ["small", "small"]}}),
        ("fallbacks_for", {"fallbacks_for": {"timeout": ["old"]}}),
        ("larger_model", {"fields": {"larger_model": "old"}}),
        ("summary_model", {"fields": {"summary_model": "old"}}),
        ("context_strategy", {"fields": {"context_strategy": "hope"}}),
        ("last_resort", {"fields": {"last_resort": "prayer"}}),
        ("static_answer", {"fields": {"static_answer": "x" * 8_001}}),
        ("static_answer", {"fields": {"static_answer": "a\x00b"}}),
        ("max_concurrency", {"fields": {"max_concurrency": -1}}),
        ("queue_size", {"fields": {"queue_size": 10**9}}),
        ("queue_timeout_ms", {"fields": {"queue_timeout_ms": 0}}),
        ("keep_alive_s", {"fields": {"keep_alive_s": 3_601}}),
        ("policies", {"fields": {"policies": ["pii", "pii"]}}),
        ("policies", {"fields": {"policies": ["No Slug"]}}),
        ("policies", {"fields": {"policies": "pii"}}),
        ("policies", {"fields": {"policies": [f"p{number}" for number in range(21)]}}),
        ("degraded_at", {"fields": {"degraded_at": None}}),
    ],
)
def test_a_bad_setting_is_refused_by_its_field(models, field, values):
    old = configuring.model("old")
    services.archive_model(OPERATOR, model=old)
    named = {"small": models[0], "old": old}
    given = {
        "fallbacks_for": {
            name: [named[slug] for slug in chosen] for name, chosen in values.get("fallbacks_for", {}).items()
        },
        "fields": {
            name: named.get(value, value) if name.endswith("_model") else value
            for name, value in values.get("fields", {}).items()
        },
    }
    with pytest.raises(InvalidRequest) as refused, no_event():
        services.create_route(OPERATOR, slug="chat", targets=[(models[0], 100)], **given)
    assert refused.value.param == field
    assert not Route.objects.exists()


def test_a_fixed_answer_keeps_its_lines_and_no_carriage_returns(models):
    chat = configuring.route("chat", models[0], last_resort="static", static_answer="Later.\r\n\tSorry\n")
    chat.refresh_from_db()
    assert chat.static_answer == "Later.\n\tSorry\n"
    with no_event():
        services.update_route(OPERATOR, route=chat, changes={"static_answer": "Later.\r\n\tSorry\r\n"})


@pytest.mark.parametrize("field", ["larger_model", "summary_model"])
def test_a_model_that_helps_a_route_cannot_be_put_away(models, field):
    small, large = models
    chat = configuring.route("chat", small, **{field: large})
    with pytest.raises(Conflict, match="chat"), no_event():
        services.archive_model(OPERATOR, model=large)
    with one_event("route.changed") as seen:
        services.update_route(OPERATOR, route=chat, changes={field: None})
    assert (seen.event.before, seen.event.after) == ({field: "large"}, {field: None})
    services.archive_model(OPERATOR, model=large)


# Switches ---------------------------------------------------------------------------------------------------------------


def test_degrading_is_live_at_once_and_stands_beside_the_pause(models):
    chat = configuring.route("chat", *models)
    before = versions()
    with pytest.raises(InvalidRequest) as refused, no_event():
        services.degrade_route(OPERATOR, route=chat, reason=" ")
    assert refused.value.param == "reason"
    with one_event("route.degraded") as seen:
        services.degrade_route(OPERATOR, route=chat, reason="slow today")
    assert (seen.event.reason, seen.event.after) == ("slow today", {"degraded": True})
    assert versions()[LIVE_STATE] == before.get(LIVE_STATE, 0) + 1
    assert versions().get(REVISION) == before.get(REVISION)
    with pytest.raises(Conflict, match="already degraded"), no_event():
        services.degrade_route(OPERATOR, route=chat, reason="again")
    services.pause_route(OPERATOR, route=chat, reason="worse")
    with one_event("route.recovered"):
        services.recover_route(OPERATOR, route=chat)
    chat.refresh_from_db()
    assert (chat.degraded_at, chat.degrade_reason, chat.pause_reason) == (None, "", "worse")
    with pytest.raises(Conflict, match="not degraded"), no_event():
        services.recover_route(OPERATOR, route=chat)


def test_a_default_route_exists_and_is_not_put_away(models, cast):
    with pytest.raises(InvalidRequest) as refused, no_event():
        access.update_project(OPERATOR, project=cast.support, default_route="chat")
    assert refused.value.param == "default_route"
    with pytest.raises(InvalidRequest), no_event():
        access.create_project(OPERATOR, slug="new", default_route="chat")
    chat = configuring.route("chat", models[0])
    with one_event("project.changed") as seen:
        access.update_project(OPERATOR, project=cast.support, default_route="chat", rpm=10)
    assert seen.event.after["default_route"] == "chat"
    with pytest.raises(Conflict, match="support"), no_event():
        services.archive_route(OPERATOR, route=chat)
    access.update_project(OPERATOR, project=cast.support, default_route="")
    services.archive_route(OPERATOR, route=chat)
    with pytest.raises(InvalidRequest), no_event():
        access.update_project(OPERATOR, project=cast.support, default_route="chat")


# Paths passed through ---------------------------------------------------------------------------------------------------


@pytest.mark.any_engine
@pytest.mark.parametrize(
    "pattern",
    ["/vector_stores", "/vector_stores/*", "/fine_tuning/jobs/*/events", "/a/*/b/*", "/containers/v1.2/~x"],
)
def test_plain_paths_are_passed_through(pattern):
    assert passthrough_problem([pattern]) is None


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("vector_stores", "slash"),
        ("", "slash"),
        (7, "slash"),
        ("/", "every path"),
        ("/*", "every path"),
        ("/*/completions", "every path"),
        ("//files", "every path"),
        ("/files", "served by the gateway"),
        ("/chat/*", "served by the gateway"),
        ("/responses/*/input_items", "served by the gateway"),
        ("/a/../files", "'..'"),
        ("/a/.", "'.'"),
        ("/a//b", "holds ''"),
        ("/a/", "holds ''"),
        ("/a/b*", "'b*'"),
        ("/a/**", "'**'"),
        ("/%2e%2e/files", "'%2e%2e'"),
        ("/a?b=c", "'a?b=c'"),
        ("/a b", "'a b'"),
        ("/a\\b", "holds"),
        ("/Files", None),
    ],
)
def test_other_patterns_are_refused_with_a_reason(pattern, words):
    problem = passthrough_problem([pattern])
    if words is None:
        # Another word than the gateway's: what is compared is the path as it is written.
        assert problem is None
    else:
        assert words in problem, problem


@pytest.mark.any_engine
def test_a_list_of_patterns_is_bounded_and_names_each_once():
    assert "named twice" in passthrough_problem(["/a", "/a"])
    assert "at most" in passthrough_problem([f"/a{number}" for number in range(51)])
    assert passthrough_problem("/a") is not None


def test_a_bad_pattern_is_refused_at_its_field():
    with pytest.raises(InvalidRequest) as refused, no_event():
        configuring.provider(passthrough=["/files/*"])
    assert refused.value.param == "passthrough"
    sim = configuring.provider(passthrough=["/vector_stores/*"])
    assert Provider.objects.get(pk=sim.pk).passthrough == ["/vector_stores/*"]


@pytest.mark.any_engine
@pytest.mark.parametrize("listed", ["vs_abc123", "pmpt_*", "file-AbC.1:2~3@4=5", "vec*"])
def test_ids_and_beginnings_of_ids_are_objects_for_every_project(listed):
    assert shared_objects_problem([listed]) is None


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("listed", "words"),
    [
        (["*"], "'*'"),
        (["vs*"], "'vs*'"),
        (["a_*_b"], "'a_*_b'"),
        (["vs_1 "], "'vs_1 '"),
        (["/vs_1"], "'/vs_1'"),
        ([""], "''"),
        ([7], "'7'"),
        (["x" * 201], "neither"),
        (["vs_1", "vs_1"], "named twice"),
        ([f"vs_{number}" for number in range(501)], "at most 500"),
        ("vs_1", "list"),
    ],
)
def test_other_objects_for_every_project_are_refused_with_a_reason(listed, words):
    assert words in shared_objects_problem(listed)
    with pytest.raises(InvalidRequest) as refused, no_event():
        configuring.provider(shared_objects=listed)
    assert refused.value.param == "shared_objects"


def test_objects_for_every_project_are_set_in_the_form_and_over_the_api(cast):
    sim = configuring.provider(shared_objects=["vs_1"])
    client = signed_in(cast.alice)
    address = f"/admin/providers/provider/{sim.pk}/change/"
    sent = form_of(client.get(address).content.decode())
    assert sent["shared_objects"] == ["vs_1"]
    with one_event("provider.changed") as seen:
        assert client.post(address, {**sent, "shared_objects": "vs_1\npmpt_*"}).status_code == 302
    assert seen.event.after == {"shared_objects": ["vs_1", "pmpt_*"]}
    api = f"/api/v1/providers/{sim.slug}/"
    assert client.get(api).json()["shared_objects"] == ["vs_1", "pmpt_*"]
    with no_event():
        refused = client.patch(api, {"shared_objects": ["*"]}, content_type="application/json")
    assert refused.status_code == 400 and "pmpt_*" in refused.content.decode()


@pytest.mark.any_engine
def test_everything_that_the_gateway_answers_is_kept_from_being_passed_through():
    addresses = [path for path in (*ORDINARY, *OTHERS) if path.startswith("/v1/")]
    # Those that begin with a parameter are the pass-through itself.
    served = {path.split("/")[2] for path in addresses if not path.startswith("/v1/{")}
    assert len(served) >= 8
    assert served <= SERVED_SEGMENTS


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("pattern", "path", "allowed"),
    [
        ("/vector_stores", "/vector_stores", True),
        ("/vector_stores", "/vector_stores/vs_1", False),
        ("/vector_stores/*", "/vector_stores", False),
        ("/vector_stores/*", "/vector_stores/vs_1", True),
        ("/vector_stores/*", "/vector_stores/vs_1/files/f", True),
        ("/vector_stores/*", "/vector_stores/", False),
        ("/vector_stores/*", "/vector_stores/../files", False),
        ("/vector_stores/*", "/vector_stores/a/../../files", False),
        ("/vector_stores/*", "/vector_storess/a", False),
        ("/a/*/b", "/a/x/b", True),
        ("/a/*/b", "/a/x/y/b", False),
        ("/a/*/b", "/a/x/b/c", False),
        ("/a/*/b/*", "/a/x/b/c/d", True),
    ],
)
def test_which_paths_a_pattern_covers(pattern, path, allowed):
    assert covers(pattern, path) is allowed


segments = st.one_of(st.just("*"), st.from_regex(r"[a-z]{1,3}", fullmatch=True))


@pytest.mark.any_engine
@given(
    st.lists(segments, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts)),
    st.lists(st.sampled_from(["chat", "files", "a", "b", ".", "..", "", "%2e"]), max_size=5),
)
def test_no_pattern_that_is_kept_covers_what_the_gateway_serves(pattern, parts):
    path = "/" + "/".join(parts)
    if passthrough_problem([pattern]) is None and covers(pattern, path):
        assert parts[0] not in SERVED_SEGMENTS
        assert not {"", ".", ".."} & set(parts)


# Surfaces ---------------------------------------------------------------------------------------------------------------

SETTINGS = {
    "fallbacks_for": {"rate_limit": ["large"], "timeout": ["large", "small"]},
    "context_strategy": "larger_model",
    "larger_model": "large",
    "summary_model": None,
    "last_resort": "static",
    "static_answer": " Come back later.\nThank you. ",
    "max_concurrency": 4,
    "queue_size": 10,
    "queue_timeout_ms": 250,
    "keep_alive_s": 0,
    "cache_tools": True,
    "policies": ["pii", "tone"],
}


def test_every_setting_goes_through_the_api(cast, models):
    client = bearer(every_scope(cast.support).secret)
    body = {"slug": "chat", "targets": [{"model": "small"}], **SETTINGS}
    with one_event("route.created"):
        made = client.post("/api/v1/routes/", body, content_type="application/json")
    assert made.status_code == 201, made.content
    assert {name: made.json()[name] for name in SETTINGS} == SETTINGS
    with no_event():
        again = client.patch("/api/v1/routes/chat/", SETTINGS, content_type="application/json")
    assert again.status_code == 200
    for bad, param in (
        ({"fallbacks_for": {"bad_mood": ["small"]}}, "fallbacks_for"),
        ({"fallbacks_for": {"timeout": ["nobody"]}}, "fallbacks_for"),
        ({"fallbacks_for": ["small"]}, "fallbacks_for"),
        ({"larger_model": "nobody"}, "larger_model"),
        ({"policies": ["A b"]}, "policies"),
        ({"queue_timeout_ms": 0}, "queue_timeout_ms"),
    ):
        with no_event():
            refused = client.patch("/api/v1/routes/chat/", bad, content_type="application/json")
        assert refused.status_code == 400, bad
        assert refused.json()["error"]["param"].split(".")[0] == param


@pytest.mark.any_engine
def test_the_form_shows_what_is_set_and_saves_nothing_unasked(cast, models):
    small, large = models
    chat = services.create_route(
        OPERATOR,
        slug="chat",
        targets=[(small, 100)],
        fallbacks_for={"timeout": [large, small]},
        fields={**{name: value for name, value in SETTINGS.items() if name != "fallbacks_for"}}
        | {"larger_model": large},
    )
    client = signed_in(cast.alice)
    address = f"/admin/providers/route/{chat.pk}/change/"
    sent = form_of(client.get(address).content.decode())
    with no_event():
        answer = client.post(address, sent)
        assert answer.status_code == 302, re.sub(r"<[^>]+>|\s+", " ", answer.content.decode())[-600:]
    sent = form_of(client.get(address).content.decode())
    assert (sent["fallbacks_for-0-class"], sent["fallbacks_for-0-model"]) == (["timeout"], ["large"])
    with one_event("route.changed") as seen:
        client.post(
            address, {**sent, "fallbacks_for-2-class": "rate_limit", "fallbacks_for-2-model": "large"}
        )
    assert seen.event.after == {"fallbacks_for": {"rate_limit": ["large"], "timeout": ["large", "small"]}}
    sent = form_of(client.get(address).content.decode())
    with no_event():
        answer = client.post(address, {**sent, "fallbacks_for-0-class": ""})
    assert "choose the failure" in str(answer.context["adminform"].form.errors["fallbacks_for"])


@pytest.mark.any_engine
def test_who_only_looks_sees_the_fallbacks_in_words(cast, models):
    chat = services.create_route(
        OPERATOR, slug="chat", targets=[(models[0], 100)], fallbacks_for={"timeout": [models[1]]}
    )
    page = signed_in(cast.dan).get(f"/admin/providers/route/{chat.pk}/change/").content.decode()
    assert "No answer in time: large" in page
