"""A provider key takes the place of another: every step, who may not step out of turn, and what happens by itself."""

from __future__ import annotations

import time
from datetime import timedelta
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
from django.core import mail
from django.core.management import CommandError, call_command
from django.utils import timezone

from llmops.access import services as access
from llmops.base.live import LIVE_STATE, versions
from llmops.core.errors import Conflict, InvalidRequest, UnprocessableEntity
from llmops.core.ids import uuid7
from llmops.providers import rules, services
from llmops.providers.draining import remaining
from llmops.providers.models import Credential, CredentialUse, HealthEvent, Rotation
from llmops.providers.probing import Outcome
from llmops.providers.selectors import keys_due
from llmops.serving.selectors import load_snapshot
from llmops.usage.models import Journal, KeptObject
from tests import configuring
from tests.cast import COMMAND, bearer, in_threads, no_event, one_event, signed_in
from tests.configuring import OPERATOR
from tests.providers.answering import answer
from tests.providers.test_credentials import whole_database

pytestmark = pytest.mark.django_db

OLD, NEW = "sk-proj-OLDPLANTED7f3a9c2e5b8d10", "sk-proj-NEWPLANTED4d4c0ffee00011"
WORKS, REFUSED = Outcome(True, "Works."), Outcome(False, "The provider refused the key: 401.", 401)


@pytest.fixture
def old() -> Credential:
    return configuring.credential(secret=OLD, activate=True)


def begin(old: Credential, outcome: Outcome = WORKS, **fields: Any) -> Rotation:
    fields.setdefault("secret", NEW)
    return services.begin_rotation(OPERATOR, credential=old, probe=lambda *_, **__: outcome, **fields)


def in_use(old: Credential, **fields: Any) -> Rotation:
    return services.activate_rotation(OPERATOR, rotation=begin(old, **fields))


def served() -> list[tuple[str, bool]]:
    return [(one.secret, one.draining) for one in load_snapshot().live.credentials.get("sim", ())]


def states(rotation: Rotation) -> tuple[str, str, str]:
    rotation.refresh_from_db()
    return (
        rotation.state,
        Credential.objects.get(pk=rotation.old_id).state,
        Credential.objects.get(pk=rotation.new_id).state,
    )


def heard(credential: Credential, *said: str, process: Any = None) -> None:
    """Data planes say what they met; each time a process of its own, unless one is given."""
    services.note_health(
        process=process or uuid4(),
        host="h",
        changes=[
            services.CredentialChange(timezone.now(), credential.pk, 200 if one == "accepted" else 401, one)
            for one in said
        ],
    )


def tend(outcome: Outcome = WORKS, *, later: timedelta = timedelta(0)) -> int:
    return services.tend_rotations(OPERATOR, now=timezone.now() + later, probe=lambda *_, **__: outcome)


# The steps ------------------------------------------------------------------------------------------------------------


def test_the_whole_way(old):
    with one_event("rotation.staged") as seen:
        rotation = begin(old, reason="its month is over")
    assert states(rotation) == ("staged", "active", "probed")
    assert served() == [(OLD, False)], "nothing uses the new one yet"
    assert (seen.event.reason, seen.event.after["new"]["name"]) == ("its month is over", "primary-2")
    before = versions().get(LIVE_STATE, 0)
    with one_event("rotation.activated"):
        rotation = services.activate_rotation(OPERATOR, rotation=rotation)
    assert versions()[LIVE_STATE] > before
    assert states(rotation) == ("draining", "draining", "active")
    assert served() == [(NEW, False), (OLD, True)]
    with one_event("rotation.finished"):
        rotation = services.finish_rotation(OPERATOR, rotation=rotation)
    assert states(rotation) == ("done", "revoked", "active")
    assert served() == [(NEW, False)]
    new, gone = Credential.objects.get(pk=rotation.new_id), Credential.objects.get(pk=old.pk)
    assert (new.name, gone.sealed) == ("primary", ""), "the name is that of the key in use, always"
    assert gone.name.startswith("primary until 2")
    # The next one finds a name that is free.
    assert begin(new, secret=NEW + "x").new.name == "primary-2"


@pytest.mark.parametrize(
    ("outcome", "what_to_do"),
    [(REFUSED, "Copy the key again"), (Outcome(False, "403.", 403), "permissions"), (Outcome(False, "429.", 429), "credit"),
     (Outcome(False, "The provider did not answer in time."), "try again")],
)  # fmt: skip
def test_a_key_that_does_not_work_changes_nothing_and_says_what_to_do(old, outcome, what_to_do):
    before = versions()
    with no_event(), pytest.raises(UnprocessableEntity, match=what_to_do) as refused:
        begin(old, outcome)
    assert "Nothing was changed" in refused.value.message
    assert outcome.message in refused.value.message
    assert refused.value.param == "secret"
    assert NEW not in refused.value.message
    assert (Credential.objects.count(), Rotation.objects.count(), versions()) == (1, 0, before)


def test_untried_takes_a_reason_on_record(old):
    def never(*_: Any, **__: Any) -> Outcome:
        raise AssertionError("nothing is sent")

    with one_event("rotation.staged") as seen:
        rotation = services.begin_rotation(
            OPERATOR, credential=old, secret=NEW, unprobed_reason="it lists no models", probe=never
        )
    assert seen.event.reason == "it lists no models"
    assert states(services.activate_rotation(OPERATOR, rotation=rotation)) == (
        "draining",
        "draining",
        "active",
    )


def test_cancelled_the_new_key_is_wiped(old):
    rotation = begin(old)
    with one_event("rotation.cancelled"):
        services.cancel_rotation(OPERATOR, rotation=rotation, reason="another day")
    assert states(rotation) == ("cancelled", "active", "revoked")
    assert Credential.objects.get(pk=rotation.new_id).sealed == ""
    assert served() == [(OLD, False)]
    begin(old)


def test_put_back_by_hand(old):
    rotation = in_use(old)
    with no_event(), pytest.raises(InvalidRequest, match="say why"):
        services.return_rotation(OPERATOR, rotation=rotation, reason=" ")
    with one_event("rotation.returned"):
        services.return_rotation(OPERATOR, rotation=rotation, reason="slower")
    assert states(rotation) == ("returned", "active", "staged")
    assert served() == [(OLD, False)]
    [event] = HealthEvent.objects.filter(kind="rotation_returned")
    assert event.credential == rotation.new_id


@pytest.mark.parametrize(
    ("secret", "error", "says"),
    [(OLD, InvalidRequest, "holds already"), ("", InvalidRequest, "write the provider's key"), ("sk-…x", InvalidRequest, "mask"),
     ("two words", InvalidRequest, "one line")],
)  # fmt: skip
def test_what_is_no_new_key(old, secret, error, says):
    with no_event(), pytest.raises(error, match=says):
        begin(old, secret=secret)


@pytest.mark.parametrize(
    "settings", [{"keep_minutes": -1}, {"deadline_hours": 0}, {"keep_minutes": 61, "deadline_hours": 1}, {"deadline_hours": 9999}]
)  # fmt: skip
def test_settings_that_cannot_be(old, settings):
    with no_event(), pytest.raises(InvalidRequest) as refused:
        begin(old, **settings)
    assert refused.value.param in settings


def test_one_at_a_time_and_only_of_a_key_in_use(old):
    rotation = begin(old)
    with no_event(), pytest.raises(Conflict, match="already"):
        begin(old, secret=NEW + "x")
    with no_event(), pytest.raises(Conflict, match="begins at a key in use"):
        begin(rotation.new, secret=NEW + "x")


def test_out_of_turn_nothing_moves(old):
    rotation = begin(old)
    for change, reason in ((services.finish_rotation, ""), (services.return_rotation, "why")):
        with no_event(), pytest.raises(Conflict):
            change(OPERATOR, rotation=rotation, reason=reason)
    services.activate_rotation(OPERATOR, rotation=rotation)
    for change in (services.activate_rotation, services.cancel_rotation):
        with no_event(), pytest.raises(Conflict):
            change(OPERATOR, rotation=rotation)
    assert states(rotation) == ("draining", "draining", "active")


def test_keys_of_a_rotation_move_with_it(old):
    rotation = begin(old)
    new = rotation.new
    for work in (
        lambda: services.activate_credential(OPERATOR, credential=new),
        lambda: services.drain_credential(OPERATOR, credential=old),
        lambda: services.replace_secret(OPERATOR, credential=old, secret=NEW + "x"),
    ):
        with no_event(), pytest.raises(Conflict, match="takes part in a rotation"):
            work()


def test_a_leaked_key_is_revoked_at_any_moment(old):
    staged = begin(old)
    with one_event("credential.revoked"):
        services.revoke_credential(OPERATOR, credential=staged.new, reason="leaked")
    assert states(staged) == ("cancelled", "active", "revoked")
    draining = in_use(old, secret=NEW + "x")
    with one_event("credential.revoked"):
        services.revoke_credential(OPERATOR, credential=draining.new, reason="leaked")
    assert states(draining) == ("cancelled", "active", "revoked"), "the old one is in use again"
    assert served() == [(OLD, False)]
    last = in_use(old, secret=NEW + "y")
    services.revoke_credential(OPERATOR, credential=old, reason="leaked")
    assert states(last) == ("cancelled", "revoked", "active")


# What still uses the old key --------------------------------------------------------------------------------------------


def a_data_plane(host: str = "gateway-1") -> Journal:
    now = timezone.now()
    return Journal.objects.create(id=uuid7(), host=host, opened_at=now, seen_at=now)


def test_what_is_left_is_counted(old, cast):
    rotation = in_use(old)
    assert remaining(rotation).drained, "no data plane, no work"
    plane, other = a_data_plane(), a_data_plane("gateway-2")
    assert remaining(rotation).in_words() == "2 data planes that have not said yet"
    services.report_uses({str(old.pk): (3, 1)}, process=plane.pk, host="gateway-1")
    services.report_uses({str(old.pk): (0, 0)}, process=other.pk, host="gateway-2")
    KeptObject.objects.create(
        object_id="batch_1", provider="sim", kind="batch", project_id=cast.support.pk, key_id=uuid7(),
        credential=str(old.pk), made_at=timezone.now(), due_at=timezone.now(),
    )  # fmt: skip
    left = remaining(rotation)
    assert (left.calls, left.work, left.silent, left.drained) == (4, {"batch": 1}, 0, False)
    assert left.in_words() == "4 calls under way, 1 open batch"
    with no_event(), pytest.raises(Conflict, match="1 open batch") as refused:
        services.finish_rotation(OPERATOR, rotation=rotation)
    assert refused.value.param == "reason"
    services.report_uses({str(old.pk): (0, 0)}, process=plane.pk, host="gateway-1")
    KeptObject.objects.update(due_at=None)
    assert remaining(rotation).drained
    CredentialUse.objects.filter(process=plane.pk).update(seen_at=timezone.now() - timedelta(minutes=1))
    assert remaining(rotation).silent == 1, "what was said long ago says nothing"
    services.report_uses({}, process=other.pk, host="gateway-2")
    assert not CredentialUse.objects.filter(process=other.pk).exists()


def test_a_reason_revokes_what_is_still_used(old):
    rotation = in_use(old)
    a_data_plane()
    with one_event("rotation.finished") as seen:
        services.finish_rotation(OPERATOR, rotation=rotation, reason="it leaked")
    assert "has not said" in seen.event.before["still_used"]


# By itself --------------------------------------------------------------------------------------------------------------


def test_it_is_finished_when_it_is_drained_and_not_before_it_may(old):
    rotation = in_use(old, keep_minutes=10)
    plane = a_data_plane()
    services.report_uses({str(old.pk): (1, 0)}, process=plane.pk, host="h")
    with no_event():
        assert tend(later=timedelta(minutes=11)) == 0, "a call is under way on it"
    services.report_uses({str(old.pk): (0, 0)}, process=plane.pk, host="h")
    with no_event():
        assert tend() == 0, "it is kept a while, to be put back"
    with one_event("rotation.finished"):
        assert tend(later=timedelta(minutes=11)) == 1
    assert states(rotation) == ("done", "revoked", "active")


def test_at_its_deadline_it_is_finished_in_any_case(old):
    rotation = in_use(old, by_itself=False, deadline_hours=2)
    services.report_uses({str(old.pk): (1, 0)}, process=a_data_plane().pk, host="h")
    assert tend(later=timedelta(hours=1, minutes=59)) == 0
    with one_event("rotation.finished") as seen:
        assert tend(later=timedelta(hours=2)) == 1
    assert "1 call under way" in seen.event.reason
    assert states(rotation)[0] == "done"


def test_a_burst_of_refusals_puts_the_old_key_back_and_tells(old, django_capture_on_commit_callbacks):
    access.create_user(COMMAND, username="boss", email="boss@example.com", is_superuser=True)
    rotation = in_use(old)
    heard(rotation.new, "refused")
    with no_event():
        assert tend(WORKS) == 0, "one refusal, and a probe that works: nothing yet"
    heard(rotation.new, "refused")
    with one_event("rotation.returned") as seen, django_capture_on_commit_callbacks(execute=True):
        assert tend(WORKS) == 1
    assert "burst" in seen.event.reason
    assert states(rotation) == ("returned", "active", "staged")
    assert served() == [(OLD, False)]
    [told] = mail.outbox
    assert (told.to, "in use again" in told.subject) == (["boss@example.com"], True)
    assert OLD not in told.body
    assert NEW not in told.body


def test_a_refusal_that_a_probe_meets_too_is_enough(old):
    rotation = in_use(old)
    heard(rotation.new, "refused")
    assert tend(REFUSED) == 1
    assert states(rotation)[0] == "returned"


def test_a_refusal_that_was_taken_back_or_is_older_counts_for_nothing(old):
    rotation = begin(old)
    heard(rotation.new, "refused")
    time.sleep(0.001)
    rotation = services.activate_rotation(OPERATOR, rotation=rotation)
    process = uuid4()
    heard(rotation.new, "refused", process=process)
    heard(rotation.new, "accepted", process=process)
    assert tend(REFUSED) == 0
    assert states(rotation)[0] == "draining"


def test_when_both_are_refused_nobody_goes_back_and_forth(old):
    rotation = in_use(old)
    heard(rotation.new, "refused")
    heard(rotation.new, "refused")
    heard(old, "refused")
    with no_event():
        assert tend(REFUSED) == 0
    assert states(rotation)[0] == "draining"


@pytest.mark.parametrize(
    ("said", "burst"),
    [
        ([], False),
        ([(1, "refused")], False),
        ([(1, "refused"), (1, "refused")], True),
        ([(1, "refused"), (2, "refused")], True),
        ([(1, "refused"), (1, "accepted"), (1, "refused")], False),
        ([(1, "refused"), (2, "refused"), (2, "accepted")], False),
    ],
)
def test_what_a_burst_is(said, burst):
    assert rules.refused_for_good(said) is burst


def test_names_follow_each_other():
    assert rules.next_name("primary", set()) == "primary-2"
    assert rules.next_name("primary-2", {"primary-3"}) == "primary-4"
    assert len(rules.next_name("x" * 80, set())) == 80


@pytest.mark.django_db(transaction=True)
def test_two_who_act_at_once_move_it_once():
    rotation = in_use(configuring.credential(secret=OLD, activate=True))
    results = in_threads(
        lambda: services.finish_rotation(OPERATOR, rotation=rotation),
        lambda: services.return_rotation(OPERATOR, rotation=rotation, reason="why"),
        lambda: services.finish_rotation(OPERATOR, rotation=rotation),
        lambda: services.revoke_credential(OPERATOR, credential=rotation.new),
    )
    assert any(not isinstance(one, Exception) for one in results)
    assert all(isinstance(one, Conflict) for one in results if isinstance(one, Exception)), results
    state, old, new = states(rotation)
    assert state in ("done", "returned", "cancelled")
    assert (old, new) in {
        ("revoked", "active"),
        ("active", "staged"),
        ("active", "revoked"),
        ("revoked", "revoked"),
    }


# Reminders --------------------------------------------------------------------------------------------------------------


def test_keys_that_are_due_are_told_of_once_a_week(settings, django_capture_on_commit_callbacks):
    settings.PROVIDER_KEY_DAYS = 30
    access.create_user(COMMAND, username="boss", email="boss@example.com", is_superuser=True)
    real = configuring.provider("real", kind="openai", base_url="https://api.openai.com/v1")
    key = configuring.credential(real, activate=True)
    never = configuring.credential(real, name="never", activate=True)
    with one_event("credential.rescheduled"):
        services.remind_after(OPERATOR, credential=never, days=0)
    Credential.objects.update(set_at=timezone.now() - timedelta(days=31))
    [due] = keys_due(timezone.now())
    assert (due.credential.pk, due.in_words()) == (key.pk, "31 days old; it was due after 30")
    with django_capture_on_commit_callbacks(execute=True):
        assert [services.remind_of_keys(), services.remind_of_keys()] == [1, 0]
    assert "real/primary" in mail.outbox[0].body
    assert services.remind_of_keys(now=timezone.now() + timedelta(days=8)) == 1
    # Whoever rotates it has done what was asked.
    services.begin_rotation(OPERATOR, credential=key, secret=NEW, unprobed_reason="a test")
    assert keys_due(timezone.now()) == []


# Surfaces ---------------------------------------------------------------------------------------------------------------


def test_the_pages_lead_through_it(cast, answering):
    server = answering()
    sim = configuring.provider(base_url=server.url)
    old = configuring.credential(sim, secret=OLD, activate=True)
    alice = signed_in(cast.alice)
    form = {
        "source": "sealed",
        "secret": NEW,
        "reference": "",
        "keep_minutes": 15,
        "deadline_hours": 24,
        "by_itself": "on",
    }
    address = f"/admin/providers/credential/{old.pk}/rotate/"
    server.script = answer(401)
    refused = alice.post(address, form)
    assert refused.status_code == 200
    assert "Nothing was changed" in refused.content.decode()
    assert NEW not in refused.content.decode()
    server.script = answer(200)
    with one_event("rotation.staged"):
        begun = alice.post(address, form)
    rotation = Rotation.objects.get()
    assert begun["Location"] == f"/admin/providers/rotation/{rotation.pk}/change/"
    page = alice.get(begun["Location"]).content.decode()
    assert 'aria-current="step"' in page
    assert "Use the new key" in page
    assert "Revoke the old key" not in page.split("Where this rotation stands")[0]
    assert NEW not in page
    assert server.asked[-1][2]["Authorization"] == f"Bearer {NEW}"
    with one_event("rotation.activated"):
        assert (
            alice.post(f"/admin/providers/rotation/{rotation.pk}/activate/", {"reason": ""}).status_code
            == 302
        )
    services.report_uses({str(old.pk): (7, 0)}, process=a_data_plane("gateway-9").pk, host="gateway-9")
    page = alice.get(begun["Location"]).content.decode()
    assert "7 calls under way" in page
    assert "gateway-9" in page
    blocked = alice.post(f"/admin/providers/rotation/{rotation.pk}/finish/", {"reason": ""}).content.decode()
    assert "still used: 7 calls under way" in blocked
    with one_event("rotation.returned"):
        alice.post(f"/admin/providers/rotation/{rotation.pk}/take-back/", {"reason": "slower"})
    everything = whole_database()
    assert "rotation.returned" in everything
    assert OLD not in everything
    assert NEW not in everything
    overview = [finding.text for finding in alice.get("/").context["view"].verdict.findings]
    assert any("rotation of sim/primary was taken back: slower" in text for text in overview), overview
    assert "Key rotation" not in signed_in(cast.carla).get("/").content.decode()


def test_the_api_does_the_same(cast, answering):
    server = answering()
    sim = configuring.provider(base_url=server.url)
    old = configuring.credential(sim, secret=OLD, activate=True)
    from llmops.access.rules import SCOPES
    from tests.cast import issue

    client = bearer(issue(cast.support, *SCOPES).secret)

    def post(where: str, **body: Any) -> Any:
        return client.post(f"/api/v1/rotations/{where}", body, content_type="application/json")

    server.script = answer(401)
    refused = post("", credential=str(old.pk), secret=NEW)
    assert (refused.status_code, Rotation.objects.count()) == (422, 0)
    assert "Nothing was changed" in refused.content.decode()
    server.script = answer(200)
    made = post("", credential=str(old.pk), secret=NEW)
    assert made.status_code == 201, made.content
    assert NEW not in made.content.decode()
    one = made.json()
    assert (one["state"], one["remaining"]) == ("staged", None)
    used = post(f"{one['id']}/activate/")
    assert used.json()["state"] == "draining"
    assert used.json()["remaining"]["drained"] is True
    assert post(f"{one['id']}/cancel/").status_code == 409
    assert post(f"{one['id']}/finish/").json()["state"] == "done"
    listed = client.get("/api/v1/rotations/?state=done").json()
    assert [row["id"] for row in listed["results"]] == [one["id"]]


def test_the_command_does_the_same(answering, monkeypatch):
    server = answering()
    configuring.credential(configuring.provider(base_url=server.url), secret=OLD, activate=True)
    monkeypatch.setattr("sys.stdin", StringIO(NEW + "\n"))

    def run(*words: str) -> str:
        out = StringIO()
        call_command("rotate", *words, stdout=out)
        return out.getvalue()

    said = run("begin", "sim/primary", "--secret-stdin", "--activate", "--reason", "monthly")
    assert "New key in use" in said
    assert NEW not in said
    assert "still used: nothing" in run("show", "sim/primary")
    assert "Done, old key revoked" in run("finish", "sim/primary")
    assert "Done" in run("show", "sim/primary")
    with pytest.raises(CommandError, match="not being rotated"):
        run("finish", "sim/primary")
    with pytest.raises(CommandError, match="no provider key"):
        run("begin", "sim/none", "--reference", "env:X")
    server.script = answer(401)
    monkeypatch.setenv("ANOTHER_KEY", NEW + "z")
    with pytest.raises(CommandError, match="Nothing was changed"):
        run("begin", "sim/primary", "--reference", "env:ANOTHER_KEY")
