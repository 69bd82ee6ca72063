"""What a data-plane process reads: consistent, complete, without what is out of use."""

from __future__ import annotations

import threading
from datetime import timedelta

import msgspec
import pytest
from django.db import connection, connections, transaction
from django.utils import timezone

from llmops.access import services as access
from llmops.access.models import ServiceKey
from llmops.base.live import LIVE_STATE, REVISION, touch
from llmops.base.reads import consistent_read
from llmops.budgets.services import archive_budget, create_budget
from llmops.core.digests import sha256_hex
from llmops.providers import services as providers
from llmops.providers.models import Provider
from llmops.serving import services
from llmops.serving.selectors import load_snapshot
from tests import configuring
from tests.cast import in_threads, issue
from tests.configuring import OPERATOR

pytestmark = pytest.mark.django_db


def test_before_the_first_publish_there_is_nothing_to_serve():
    snapshot = load_snapshot()
    assert (snapshot.revision, snapshot.digest, snapshot.problems) == (0, "", ())
    assert (snapshot.routes, snapshot.models, snapshot.providers) == ({}, {}, {})
    configuring.everything()
    assert load_snapshot().routes == {}


def test_keys_come_by_their_hash_with_their_limits(cast):
    issued = issue(
        cast.support,
        name="ci",
        rpm=60,
        tpm=1000,
        concurrency=4,
        allowed_routes=["chat"],
        allowed_models=["small"],
        expires_at=timezone.now() + timedelta(days=1),
    )
    keys = load_snapshot().live.keys
    entry = keys[sha256_hex(issued.secret.encode())]
    assert entry.valid_until is None
    assert (entry.key.name, entry.key.project, entry.key.project_id) == (
        "ci",
        "support",
        str(cast.support.pk),
    )
    assert (entry.key.rpm, entry.key.tpm, entry.key.concurrency) == (60, 1000, 4)
    assert entry.key.may_route("chat")
    assert not entry.key.may_route("other")
    assert entry.key.expires == issued.key.expires_at.timestamp()
    assert issued.secret not in repr(keys)


def test_projects_come_with_their_limits_and_keys_with_their_priority(cast):
    configuring.everything()
    access.update_project(OPERATOR, project=cast.support, default_route="chat", rpm=6, tpm=7, concurrency=8)
    access.archive_project(OPERATOR, project=cast.search)
    issued = issue(cast.support, priority="batch")
    live = load_snapshot().live
    assert live.keys[sha256_hex(issued.secret.encode())].key.priority == "batch"
    assert set(live.projects) == {str(cast.support.pk)}
    entry = live.projects[str(cast.support.pk)]
    assert (entry.slug, entry.default_route) == ("support", "chat")
    assert (entry.rpm, entry.tpm, entry.concurrency) == (6, 7, 8)


def test_switches_come_with_their_reasons():
    _, small, chat = configuring.everything()
    other = configuring.route("other", small)
    providers.degrade_route(OPERATOR, route=chat, reason="slow")
    providers.pause_route(OPERATOR, route=other, reason="broken")
    live = load_snapshot().live
    assert (live.degraded_routes, live.paused_routes) == ({"chat": "slow"}, {"other": "broken"})
    providers.recover_route(OPERATOR, route=chat)
    assert load_snapshot().live.degraded_routes == {}


def test_settings_of_routes_and_providers_are_served_once_published():
    sim, small, chat = configuring.everything()
    large = configuring.model("large", sim, context_window=100_000, prices={"input": "1", "output": "1"})
    providers.update_provider(
        OPERATOR, provider=sim, changes={"passthrough": ["/b/*", "/a"], "shared_objects": ["vs_1"]}
    )
    providers.update_route(
        OPERATOR,
        route=chat,
        fallbacks=[large],
        fallbacks_for={"timeout": [large, small], "credential": [large]},
        changes={
            "context_strategy": "larger_model", "larger_model": large, "last_resort": "static",
            "static_answer": "Later.", "max_concurrency": 3, "queue_size": 4, "queue_timeout_ms": 500,
            "keep_alive_s": 6, "cache_ttl_s": 7, "cache_tools": True,
        },
    )  # fmt: skip
    services.publish(OPERATOR, reason="settings")
    snapshot = load_snapshot()
    assert snapshot.providers["sim"].passthrough == ("/b/*", "/a")
    assert snapshot.providers["sim"].shared_objects == ("vs_1",)
    entry = snapshot.routes["chat"]
    assert entry.fallbacks == ("large",)
    assert entry.fallbacks_for == {"credential": ("large",), "timeout": ("large", "small")}
    assert (entry.context_strategy, entry.larger_model, entry.summary_model) == ("larger_model", "large", "")
    assert (entry.last_resort, entry.static_answer) == ("static", "Later.")
    assert (entry.max_concurrency, entry.queue_size, entry.queue_timeout_ms) == (3, 4, 500)
    assert (entry.keep_alive_s, entry.cache_ttl_s, entry.cache_tools) == (6, 7, True)


def test_a_rotated_key_is_known_under_both_secrets_until_its_grace_ends(cast):
    first = issue(cast.support)
    second = access.rotate_service_key(OPERATOR, key=first.key, grace=timedelta(hours=1))
    keys = load_snapshot().live.keys
    old, new = (keys[sha256_hex(issued.secret.encode())] for issued in (first, second))
    assert new.valid_until is None
    assert old.valid_until == second.key.previous_valid_until.timestamp()
    assert (old.key.replaced, new.key.replaced) == (True, False)
    assert msgspec.structs.replace(old.key, replaced=False) == new.key
    ServiceKey.objects.filter(pk=first.key.pk).update(
        previous_valid_until=timezone.now() - timedelta(seconds=1)
    )
    assert set(load_snapshot().live.keys) == {sha256_hex(second.secret.encode())}


def test_revoked_keys_and_keys_of_archived_projects_are_not_there(cast):
    gone, closed, kept = issue(cast.support), issue(cast.search), issue(cast.support)
    access.revoke_service_key(OPERATOR, key=gone.key)
    access.archive_project(OPERATOR, project=cast.search)
    assert set(load_snapshot().live.keys) == {sha256_hex(kept.secret.encode())}
    access.restore_project(OPERATOR, project=cast.search)
    assert sha256_hex(closed.secret.encode()) in load_snapshot().live.keys


def test_budgets_in_force(cast):
    kept = create_budget(
        OPERATOR,
        slug="support",
        scope_kind="project",
        scope_value="support",
        limit_nano=5,
        period="day",
        timezone="UTC",
    )
    gone = create_budget(OPERATOR, slug="gone", scope_kind="organisation", limit_nano=5)
    archive_budget(OPERATOR, budget_id=gone.pk)
    snapshot = load_snapshot()
    [entry] = snapshot.live.budgets
    assert (entry.id, entry.scope_kind, entry.scope_value, entry.project) == (
        str(kept.pk),
        "project",
        "support",
        "support",
    )
    assert snapshot.budgets_by_scope == {("project", "support"): [entry]}


def test_provider_keys_in_use_come_before_those_draining():
    sim = configuring.provider()
    configuring.credential(sim, name="staged", secret="sk-staged-0123456789")
    old = configuring.credential(sim, name="old", secret="sk-old-0123456789", activate=True)
    configuring.credential(sim, name="new", secret="sk-new-0123456789", activate=True)
    providers.drain_credential(OPERATOR, credential=old)
    entries = load_snapshot().live.credentials["sim"]
    assert [(entry.name, entry.secret, entry.draining) for entry in entries] == [
        ("new", "sk-new-0123456789", False),
        ("old", "sk-old-0123456789", True),
    ]


def test_a_secret_shows_in_no_text_of_a_snapshot():
    configuring.credential(secret="sk-PLANTED-0123456789", activate=True)
    live = load_snapshot().live
    [entry] = live.credentials["sim"]
    assert entry.secret == "sk-PLANTED-0123456789"
    for text in (repr(live), str(entry), f"{entry}", repr(entry.__rich_repr__()), repr([entry])):
        assert "PLANTED" not in text


def test_one_unreadable_key_does_not_keep_the_rest_from_being_served(tmp_path, settings, monkeypatch):
    settings.SECRET_FILE_DIRS = [str(tmp_path)]
    sim = configuring.provider()
    configuring.credential(sim, name="env", source="env", reference="NOT_SET_ANYWHERE", activate=True)
    configuring.credential(sim, name="file", source="file", reference=str(tmp_path / "absent"), activate=True)
    configuring.credential(sim, name="fine", secret="sk-fine-0123456789", activate=True)
    snapshot = load_snapshot()
    assert [entry.name for entry in snapshot.live.credentials["sim"]] == ["fine"]
    assert sorted(problem.split(" is left out")[0] for problem in snapshot.problems) == [
        "Provider key sim/env",
        "Provider key sim/file",
    ]
    monkeypatch.setenv("NOT_SET_ANYWHERE", "sk-now-0123456789")
    assert len(load_snapshot().live.credentials["sim"]) == 2


def test_pauses_come_with_their_reason():
    sim, _, chat = configuring.everything()
    providers.pause_route(OPERATOR, route=chat, reason="wrong answers")
    providers.pause_provider(OPERATOR, provider=sim, reason="outage")
    live = load_snapshot().live
    assert live.paused_routes == {"chat": "wrong answers"}
    assert live.paused_providers == {"sim": "outage"}


def test_the_document_is_read_once_per_revision(django_assert_num_queries):
    _, _, chat = configuring.everything()
    services.publish(OPERATOR, reason="one")
    first = load_snapshot()
    again = load_snapshot(first)
    assert again.document is first.document
    assert load_snapshot().document is not first.document
    with connection.execute_wrapper(no_document_read):
        load_snapshot(first)
    providers.update_route(OPERATOR, route=chat, changes={"attempts": 7})
    services.publish(OPERATOR, reason="two")
    assert load_snapshot(first).routes["chat"].attempts == 7


def no_document_read(execute, sql, params, many, context):
    assert '"document"' not in sql
    return execute(sql, params, many, context)


def test_the_live_numbers_come_along():
    touch(REVISION)
    touch(LIVE_STATE)
    touch(LIVE_STATE)
    snapshot = load_snapshot()
    assert (snapshot.revision_version, snapshot.live_version) == (1, 2)


def test_a_document_of_an_unknown_form_is_not_served_by_half():
    from llmops.serving.snapshot import decode_document

    for text in ("{}", "[]", '{"format": 1, "providers": [], "models": [{}], "routes": []}', "nonsense"):
        with pytest.raises(msgspec.MsgspecError):
            decode_document(text)


@pytest.mark.django_db(transaction=True)
def test_a_snapshot_is_of_one_moment_while_others_write():
    """Two pauses are always thrown together, so no snapshot may show one without the other."""
    sim, _, chat = configuring.everything()
    stop = threading.Event()

    def write():
        try:
            for _ in range(15):
                with transaction.atomic():
                    providers.pause_route(OPERATOR, route=chat, reason="x")
                    providers.pause_provider(OPERATOR, provider=sim, reason="x")
                with transaction.atomic():
                    providers.resume_route(OPERATOR, route=chat)
                    providers.resume_provider(OPERATOR, provider=sim)
        finally:
            stop.set()
        return "written"

    def read():
        seen = set()
        while not stop.is_set() or not seen:
            snapshot = load_snapshot()
            seen.add((bool(snapshot.live.paused_routes), bool(snapshot.live.paused_providers)))
            expected = bool(snapshot.live.paused_routes)
            # Each pause raises the number once: four a round, paused after the second.
            assert (snapshot.live_version - start) % 4 == (2 if expected else 0)
        return seen

    start = load_snapshot().live_version
    outcomes = in_threads(write, read, read)
    assert outcomes[0] == "written"
    for seen in outcomes[1:]:
        assert isinstance(seen, set), seen
        assert seen <= {(True, True), (False, False)}


@pytest.mark.django_db(transaction=True)
def test_reading_neither_waits_for_a_writer_nor_keeps_one_out():
    configuring.everything()
    inside, written = threading.Event(), threading.Event()

    def read():
        with consistent_read():
            before = Provider.objects.get().name
            inside.set()
            assert written.wait(30)
            assert Provider.objects.get().name == before
        return Provider.objects.get().name

    def write():
        assert inside.wait(30)
        providers.update_provider(OPERATOR, provider=Provider.objects.get(), changes={"name": "changed"})
        written.set()
        return "written"

    assert in_threads(read, write) == ["changed", "written"]


@pytest.mark.django_db(transaction=True)
def test_a_consistent_read_leaves_the_connection_as_it_was():
    with consistent_read():
        Provider.objects.exists()
    configuring.provider("after")
    with pytest.raises(ValueError, match="inside"), consistent_read():
        raise ValueError("inside")
    configuring.provider("after-an-error")
    assert not connections["default"].in_atomic_block
