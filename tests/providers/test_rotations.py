"""A provider key takes the place of another: every step, who may not step out of turn, and what happens by itself."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from llmops.base.live import LIVE_STATE, versions
from llmops.core.errors import Conflict, InvalidRequest, UnprocessableEntity
from llmops.core.ids import uuid7
from llmops.providers import services
from llmops.providers.draining import remaining
from llmops.providers.models import Credential, CredentialUse, HealthEvent, Rotation
from llmops.providers.probing import Outcome
from llmops.serving.selectors import load_snapshot
from llmops.usage.models import Journal, KeptObject
from tests import configuring
from tests.cast import no_event, one_event
from tests.configuring import OPERATOR
from tests.kept import kept

pytestmark = pytest.mark.django_db

OLD, NEW = "sk-proj-OLDPLANTED7f3a9c2e5b8d10", "sk-proj-NEWPLANTED4d4c0ffee00011"
WORKS, REFUSED = Outcome(True, "Works."), Outcome(False, "The provider refused the key: 401.", 401)


@kept
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


def heard(credential: Credential, *said: str, process: Any = None, status: int = 401) -> None:
    """Data planes say what they met; each time a process of its own, unless one is given."""
    services.note_health(
        process=process or uuid4(),
        host="h",
        changes=[
            services.CredentialChange(
                timezone.now(), credential.pk, 200 if one == "accepted" else status, one
            )
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
