"""Publishing: one after the other, whole, never changed afterwards; restoring gives the very same bytes."""

from __future__ import annotations

import json
import threading

import pytest
from django.db import DatabaseError, connection, transaction

from llmops.audit import chain
from llmops.audit.models import Event
from llmops.audit.services import as_exported
from llmops.base.live import REVISION, versions
from llmops.core.digests import sha256_hex
from llmops.core.errors import Conflict, InvalidRequest, NotFound, UnprocessableEntity
from llmops.providers import services as providers
from llmops.providers.models import Model, Route
from llmops.serving import services
from llmops.serving.models import LivePointer, Revision
from llmops.serving.selectors import live_revision, load_snapshot, pending
from llmops.serving.snapshot import decode_document
from tests import configuring
from tests.cast import in_threads, no_event, one_event
from tests.configuring import OPERATOR

pytestmark = pytest.mark.django_db


def publish(reason="a test", **values):
    return services.publish(OPERATOR, reason=reason, **values)


def test_the_first_revision_and_the_next():
    _, _, chat = configuring.everything()
    before = versions().get(REVISION, 0)
    with one_event("revision.published") as seen:
        first = publish("the beginning")
    assert (first.number, live_revision()) == (1, first)
    assert versions()[REVISION] == before + 1
    assert first.digest == sha256_hex(first.document.encode())
    assert first.changes[-1] == "route chat added: small (100)"
    assert seen.event.after["digest"] == first.digest
    assert seen.event.reason == first.reason == "the beginning"
    providers.update_route(OPERATOR, route=chat, changes={"attempts": 5})
    second = publish("more patience")
    assert (second.number, second.changes) == (2, ["route chat: attempts 3 → 5"])
    assert load_snapshot().routes["chat"].attempts == 5


def test_whoever_looked_long_ago_is_told_of_the_last_revisions():
    _, _, chat = configuring.everything()
    publish(expected_revision=0)
    for attempts in range(4, 4 + 25):
        providers.update_route(OPERATOR, route=chat, changes={"attempts": attempts % 5 + 1})
        publish()
    with pytest.raises(Conflict) as refused, no_event():
        publish(expected_revision=0)
    assert [one["number"] for one in refused.value.data["published"]] == list(range(7, 27))
    assert "published revision 26" in refused.value.message


def test_equal_configuration_has_equal_bytes_whatever_the_order_in_which_it_was_made():
    small, large = configuring.model("small"), configuring.model("large")
    configuring.route("b", small, large)
    configuring.route("a", large)
    first = publish()
    for route in Route.objects.all():
        providers.archive_route(OPERATOR, route=route)
    publish("without routes")
    for route in Route.objects.order_by("-slug"):
        providers.unarchive_route(OPERATOR, route=route)
        rows = [(row.model, row.weight) for row in route.targets.all()]
        route.targets.all().delete()
        providers.update_route(OPERATOR, route=route, targets=rows[::-1])
    assert publish("with routes again").digest == first.digest


def test_nothing_to_publish_is_said_and_leaves_nothing():
    with pytest.raises(services.NothingToPublish), no_event():
        publish()
    configuring.everything()
    publish()
    with pytest.raises(services.NothingToPublish, match="revision 1"), no_event():
        publish()
    assert Revision.objects.count() == 1


@pytest.mark.parametrize("reason", ["", "   ", "x" * 301, "a\x00b"])
def test_a_reason_is_needed(reason):
    configuring.everything()
    with pytest.raises(InvalidRequest) as refused, no_event():
        publish(reason)
    assert refused.value.param == "reason"
    assert not Revision.objects.exists()


def test_what_is_wrong_is_listed_and_nothing_is_published():
    _, small, _ = configuring.everything()
    publish()
    configuring.route("empty")
    configuring.route("small", small)
    Model.objects.filter(pk=small.pk).update(archived_at="2026-01-01T00:00:00Z")
    version = versions()[REVISION]
    with pytest.raises(UnprocessableEntity) as refused, no_event():
        publish("try")
    problems = {(found["code"], found["slug"]) for found in refused.value.data["problems"]}
    assert ("no_targets", "empty") in problems
    assert ("model_archived", "chat") in problems
    assert ("model_archived", "small") in problems
    assert live_revision().number == 1
    assert versions()[REVISION] == version
    assert not pending().publishable


def test_unpriced_models_under_a_budget_are_a_warning():
    from llmops.budgets.services import create_budget

    configuring.route("chat", configuring.model("small"))
    create_budget(OPERATOR, slug="all", scope_kind="organisation", limit_nano=1, hard=True)
    [warning] = [problem for problem in pending().warnings if problem.code == "unpriced"]
    assert "hard budgets" in warning.message
    assert publish().number == 1


def test_whoever_looked_at_another_revision_is_told():
    _, _, chat = configuring.everything()
    with pytest.raises(Conflict), no_event():
        publish(expected_revision=7)
    publish(expected_revision=0)
    providers.update_route(OPERATOR, route=chat, changes={"attempts": 5})
    publish(expected_revision=1)
    providers.update_route(OPERATOR, route=chat, changes={"attempts": 6})
    with pytest.raises(Conflict, match="Revision 2 is live") as refused, no_event():
        publish(expected_revision=1)
    assert refused.value.data["live_revision"] == 2
    [published] = refused.value.data["published"]
    assert (published["number"], published["changes"]) == (2, ["route chat: attempts 3 → 5"])
    assert "published revision 2" in refused.value.message
    assert "route chat: attempts 3 → 5" in refused.value.message


def test_restoring_gives_the_very_same_bytes_and_leaves_the_draft():
    _, small, chat = configuring.everything()
    first = publish()
    providers.update_route(OPERATOR, route=chat, changes={"attempts": 9})
    providers.pin_model(
        OPERATOR, model=small, changes={"max_output_tokens": 10, "default_max_output_tokens": 10}
    )
    publish("worse")
    with one_event("revision.restored") as seen:
        third = services.restore(OPERATOR, number=1, reason="it was better")
    assert (third.number, third.restores) == (3, 1)
    assert (third.digest, third.document) == (first.digest, first.document)
    assert seen.event.after["restores"] == 1
    assert load_snapshot().routes["chat"].attempts == 3
    chat.refresh_from_db()
    assert chat.attempts == 9
    assert pending().changes
    with pytest.raises(services.NothingToPublish), no_event():
        services.restore(OPERATOR, number=1, reason="again")
    with pytest.raises(services.NothingToPublish), no_event():
        services.restore(OPERATOR, number=3, reason="again")
    with pytest.raises(NotFound), no_event():
        services.restore(OPERATOR, number=99, reason="never was")
    assert services.restore(OPERATOR, number=2, reason="back").digest != first.digest


def test_restoring_what_this_version_cannot_serve_is_refused():
    configuring.everything()
    publish()
    Revision.objects.create(
        number=50, digest="0" * 64, document='{"format": 99}', author="x", published_at="2026-01-01T00:00:00Z"
    )
    with pytest.raises(UnprocessableEntity, match="form"), no_event():
        services.restore(OPERATOR, number=50, reason="try")
    assert live_revision().number == 1


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE serving_revision SET reason = 'other'",
        "UPDATE serving_revision SET document = '{}'",
        "DELETE FROM serving_revision",
    ],
)
def test_the_database_itself_refuses_to_change_a_revision(change):
    configuring.everything()
    publish()
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM serving_revision")
        before = cursor.fetchall()
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            cursor.execute(change)
        cursor.execute("SELECT * FROM serving_revision")
        assert cursor.fetchall() == before
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        Revision.objects.update(reason="other")


def test_there_is_one_pointer():
    configuring.everything()
    revision = publish()
    with pytest.raises(DatabaseError), transaction.atomic():
        LivePointer.objects.create(id=2, revision=revision, moved_at=revision.published_at)


def test_a_document_holds_no_secret_and_no_id():
    sim, small, _ = configuring.everything()
    configuring.credential(sim, name="second", secret="sk-PLANTED-0123456789abcdef", activate=True)
    text = publish().document
    assert "PLANTED" not in text
    assert str(sim.pk) not in text
    assert str(small.pk) not in text
    assert set(json.loads(text)) == {"format", "providers", "models", "routes", "policies", "prompts"}


@pytest.mark.django_db(transaction=True)
def test_publishers_at_once_make_one_revision_of_one_configuration():
    configuring.everything()
    outcomes = in_threads(*(lambda: publish() for _ in range(6)))
    made = [outcome for outcome in outcomes if isinstance(outcome, Revision)]
    assert [revision.number for revision in made] == [1]
    others = [outcome for outcome in outcomes if not isinstance(outcome, Revision)]
    assert all(isinstance(outcome, services.NothingToPublish) for outcome in others), others
    assert Event.objects.filter(action="revision.published").count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_publishers_who_all_looked_at_the_same_revision_one_wins():
    _, _, chat = configuring.everything()
    publish()
    second = providers.update_route(OPERATOR, route=chat, changes={"attempts": 8})
    assert second.attempts == 8
    publish("two")

    def restore_first():
        return services.restore(OPERATOR, number=1, reason="back", expected_revision=2)

    outcomes = in_threads(*([restore_first] * 4))
    assert sum(isinstance(outcome, Revision) for outcome in outcomes) == 1
    assert all(isinstance(outcome, Revision | Conflict) for outcome in outcomes), outcomes
    assert live_revision().number == 3


@pytest.mark.django_db(transaction=True)
def test_editors_and_publishers_at_once_leave_whole_revisions_in_an_unbroken_row():
    """Two routes are always changed together, so no revision may show one of them alone changed."""
    _, small, chat = configuring.everything()
    twin = configuring.route("twin", small)
    publish()
    told, edits = threading.Condition(), [0]
    last = 8

    def edit():
        for number in range(1, last + 1):
            with transaction.atomic():
                providers.update_route(OPERATOR, route=chat, changes={"total_timeout_ms": 1000 + number})
                providers.update_route(OPERATOR, route=twin, changes={"total_timeout_ms": 1000 + number})
            with told:
                edits[0] = number
                told.notify_all()
        return "edited"

    def publish_on():
        while True:
            seen = edits[0]
            try:
                publish()
            except services.NothingToPublish:
                if seen == last:
                    return "published"
                # Asking again and again would only keep SQLite's one write lock from the editor.
                with told:
                    assert told.wait_for(lambda seen=seen: edits[0] != seen, timeout=60)

    outcomes = in_threads(edit, publish_on, publish_on)
    assert outcomes == ["edited", "published", "published"]
    revisions = list(Revision.objects.order_by("number"))
    assert [revision.number for revision in revisions] == list(range(1, len(revisions) + 1))
    assert len(revisions) > 1
    for revision in revisions:
        routes = {route.slug: route.total_timeout_ms for route in decode_document(revision.document).routes}
        assert routes["chat"] == routes["twin"], revision
    assert live_revision().number == len(revisions)
    events = [as_exported(event) for event in Event.objects.order_by("sequence")]
    assert not chain.verify(events, after=(events[0]["sequence"] - 1, events[0]["prev_hash"])).problems


def test_publishing_many_routes_takes_no_query_for_each(django_assert_max_num_queries):
    sim = configuring.provider()
    models = [
        configuring.model(f"m{index}", sim, prices={"input": "1", "output": "2"}) for index in range(20)
    ]
    for index in range(60):
        configuring.route(f"r{index}", models[index % 20], fallbacks=(models[(index + 1) % 20],))
    with django_assert_max_num_queries(34):
        revision = publish("many")
    assert len(decode_document(revision.document).routes) == 60
    assert len(load_snapshot().routes) == 60
    with django_assert_max_num_queries(34):
        pending()
