"""What happens to a rotation without anybody: it ends, goes back, and reminds."""

from __future__ import annotations

import time
from datetime import timedelta
from uuid import uuid4

import pytest
from django.core import mail
from django.utils import timezone

from llmops.access import services as access
from llmops.core.errors import Conflict
from llmops.providers import rules, services
from llmops.providers.models import Credential
from llmops.providers.selectors import keys_due
from tests import configuring
from tests.cast import COMMAND, in_threads, no_event, one_event
from tests.configuring import OPERATOR
from tests.providers.test_rotations import (
    NEW,
    OLD,
    REFUSED,
    WORKS,
    a_data_plane,
    begin,
    heard,
    in_use,
    old,
    served,
    states,
    tend,
)

__all__ = ["old"]

pytestmark = pytest.mark.django_db


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


def test_words_that_are_forbidden_take_no_key_back(old):
    """Anybody may ask what a wall before the provider answers with 403, on the new key as on the old one: the probe decides."""
    rotation = in_use(old)
    for key in (rotation.new, old):
        for _ in range(3):
            heard(key, "refused", status=403)
    with no_event():
        assert tend(WORKS) == 0
    assert states(rotation)[0] == "draining"
    assert tend(REFUSED) == 1
    assert states(rotation)[0] == "returned"


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
