"""While a key's old secret works beside the new one: until when, who still sends it, who is told, and how it ends."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.utils import timezone

from llmops.access import services
from llmops.access.models import ServiceKey
from llmops.access.selectors import grace_in_words, time_left
from llmops.base.live import LIVE_STATE, versions
from llmops.core.digests import sha256_hex
from llmops.core.errors import AuthenticationFailed, Conflict
from llmops.gateway.auth import key_of
from llmops.serving.selectors import load_snapshot
from llmops.usage.ingest.loop import Ingester
from tests.cast import COMMAND, bearer, issue, no_event, one_event, signed_in
from tests.kept import kept
from tests.usage.journals import Scribe, origin, outcome

pytestmark = pytest.mark.django_db


@kept
def rotated(cast) -> tuple[ServiceKey, str, str]:
    """A key, its old secret and its new one, with an hour of grace."""
    first = issue(cast.support, "inference", "read", name="worker")
    second = services.rotate_service_key(COMMAND, key=first.key, grace=timedelta(hours=1))
    return second.key, first.secret, second.secret


def fresh(key: ServiceKey) -> ServiceKey:
    return ServiceKey.objects.select_related("project").get(pk=key.pk)


def test_data_planes_take_both_and_know_which_is_which(rotated):
    key, old, new = rotated
    snapshot = load_snapshot()
    now = time.time()
    before, after = (key_of(snapshot, f"Bearer {secret}".encode(), now) for secret in (old, new))
    assert (before.id, before.replaced, after.id, after.replaced) == (str(key.pk), True, str(key.pk), False)
    # It ends by itself, at its moment, without anything being read anew.
    with pytest.raises(AuthenticationFailed):
        key_of(snapshot, f"Bearer {old}".encode(), key.previous_valid_until.timestamp())
    assert key_of(snapshot, f"Bearer {new}".encode(), now + 86_400) is after


def call_with(key: ServiceKey, directory: Any, *, old_secret: bool, started: float = 0.0) -> None:
    scribe = Scribe.at(directory)
    try:
        who = origin(
            project=str(key.project_id), key=str(key.pk), old_secret=old_secret,
            started=int((started or time.time()) * 1e9),
        )  # fmt: skip
        scribe.end(who, attempt=0, result=outcome())
    finally:
        scribe.writer.close()
    Ingester(directory).run_once()


def test_who_still_sends_the_old_secret_is_seen(rotated, tmp_path):
    key, *_ = rotated
    assert "was not used since" in grace_in_words(fresh(key), timezone.now())
    call_with(key, tmp_path / "new", old_secret=False)
    assert fresh(key).previous_last_used_at is None
    call_with(key, tmp_path / "old", old_secret=True)
    seen = fresh(key)
    assert seen.previous_last_used_at is not None
    assert (
        f"The old secret {seen.previous_prefix}… of worker works for 59 min more; it was last used at 2"
        in (grace_in_words(seen, timezone.now()))
    )
    # What was sent before another rotation says nothing about the secret that was replaced by it.
    services.rotate_service_key(COMMAND, key=key, grace=timedelta(hours=1))
    call_with(key, tmp_path / "late", old_secret=True, started=time.time() - 600)
    assert fresh(key).previous_last_used_at is None


def test_the_consoles_own_api_notes_it_too(rotated):
    key, old, new = rotated
    assert bearer(new).get("/api/v1/projects/").status_code == 200
    assert fresh(key).previous_last_used_at is None
    assert bearer(old).get("/api/v1/projects/").status_code == 200
    assert fresh(key).previous_last_used_at is not None


def test_it_may_be_ended_at_once(rotated):
    key, old, new = rotated
    before = versions()[LIVE_STATE]
    with one_event("service_key.grace_ended") as seen:
        services.end_grace(COMMAND, key=key, reason="all have moved")
    assert versions()[LIVE_STATE] > before
    assert seen.event.before["previous_prefix"]
    hashes = load_snapshot().live.keys
    assert sha256_hex(old.encode()) not in hashes
    assert sha256_hex(new.encode()) in hashes
    with no_event(), pytest.raises(Conflict, match="No earlier secret"):
        services.end_grace(COMMAND, key=key)


def test_owners_are_told_once_before_it_ends_if_somebody_still_uses_it(
    rotated, cast, django_capture_on_commit_callbacks
):
    key, *_ = rotated
    services.update_project(COMMAND, project=cast.support, owner="owner@example.com")
    ends = key.previous_valid_until

    def remind(before: timedelta) -> int:
        with django_capture_on_commit_callbacks(execute=True):
            return services.remind_of_graces(now=ends - before)

    long = services.rotate_service_key(
        COMMAND, key=issue(cast.support, name="long").key, grace=timedelta(days=8)
    ).key
    ServiceKey.objects.filter(pk=long.pk).update(previous_last_used_at=timezone.now())
    assert remind(timedelta(minutes=5)) == 0, "nobody uses the one, the other ends in days"
    ServiceKey.objects.filter(pk=key.pk).update(previous_last_used_at=timezone.now())
    assert [remind(timedelta(minutes=5)), remind(timedelta(minutes=1))] == [1, 0]
    [told] = mail.outbox
    assert told.to == ["owner@example.com"]
    assert "worker" in told.subject
    assert "last used at" in told.body
    assert services.remind_of_graces(now=long.previous_valid_until - timedelta(days=1)) == 1, (
        "a quarter of it is left"
    )


def test_pages_and_api_show_the_time_left(rotated, cast, tmp_path):
    key, old, _ = rotated
    call_with(key, tmp_path, old_secret=True)
    alice = signed_in(cast.alice)
    assert "59 min, still used" in alice.get("/admin/access/servicekey/").content.decode()
    page = alice.get(f"/admin/access/servicekey/{key.pk}/change/").content.decode()
    assert "works for 59 min more; it was last used at" in page
    assert old not in page
    [row] = [one for one in alice.get("/api/v1/service-keys/").json()["results"] if one["name"] == "worker"]
    assert (
        row["previous_last_used_at"]
        and row["previous_valid_until"]
        and row["previous_prefix"] == old[: len(row["previous_prefix"])]
    )
    texts = [finding.text for finding in alice.get("/").context["view"].verdict.findings]
    assert any("The old secret" in text and "worker" in text for text in texts)
    texts = [finding.text for finding in signed_in(cast.charlie).get("/").context["view"].verdict.findings]
    assert not any("worker" in text for text in texts), "another project's keys are none of theirs"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (40, "40 s"), (61, "1 min"), (3_599, "59 min"), (3_600, "1 h"), (5_400, "1 h 30 min"), (97_200, "1 d 3 h"),
     (-5, "0 s")],
)  # fmt: skip
def test_times_in_words(seconds, words):
    assert time_left(timedelta(seconds=seconds)) == words
