"""A threshold that is crossed leaves one event in its window, and at most one e-mail at each address."""

from __future__ import annotations

import smtplib
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.core import mail
from django.db import IntegrityError, transaction
from django.utils import timezone

from llmops.budgets import services
from llmops.budgets.models import Budget, ThresholdCrossing, ThresholdNotice
from llmops.core.money import NANO
from tests.cast import COMMAND, in_threads, person, signed_in

ADDRESSES = ["finance@example.com", "lead@example.com"]


def watched(limit: int = 100, **known: Any) -> Budget:
    values: dict[str, Any] = {
        "slug": f"w-{uuid4()}",
        "scope_kind": "organisation",
        "limit_nano": limit,
        "thresholds": [50, 80, 100],
        "notify": ADDRESSES,
    }
    return services.create_budget(COMMAND, **(values | known))


def settle(budget: Budget, *costs: int) -> None:
    state = services.open_window(budget_id=budget.pk, at=timezone.now())
    for cost in costs:
        journal = uuid4()
        services.lease(window_id=state.window_id, journal_id=journal, need=cost, want=cost, lease_seconds=60)
        with transaction.atomic():
            services.book(
                journal_id=journal, charges=[services.WindowCharge(state.window_id, cost)], closing=True
            )


def crossed(budget: Budget) -> list[int]:
    rows = ThresholdCrossing.objects.filter(window__budget=budget).order_by("percent")
    return list(rows.values_list("percent", flat=True))


def told(budget: Budget) -> list[int]:
    notices = ThresholdNotice.objects.filter(crossing__window__budget=budget)
    return sorted(notices.values_list("crossing__percent", flat=True))


def test_each_threshold_once(db: None) -> None:
    budget = watched()
    settle(budget, 49)
    assert crossed(budget) == []
    settle(budget, 1)
    assert crossed(budget) == [50]
    settle(budget, 10, 20, 5)
    assert crossed(budget) == [50, 80]
    settle(budget, 15)
    assert crossed(budget) == [50, 80, 100] and told(budget) == [50, 50, 80, 80, 100, 100]
    row = ThresholdCrossing.objects.get(window__budget=budget, percent=80)
    assert (row.settled_nano, row.limit_nano) == (80, 100)


def test_a_leap_over_several_leaves_all_events_and_one_mail_to_each(db: None) -> None:
    budget = watched()
    settle(budget, 90)
    assert crossed(budget) == [50, 80] and told(budget) == [80, 80]


def test_soft_budgets_tell_beyond_their_limit(db: None) -> None:
    budget = watched(hard=False, thresholds=[100, 150])
    for cost in (90, 20, 20, 30):
        with transaction.atomic():
            services.book(journal_id=uuid4(), soft=[services.SoftCharge(budget.pk, timezone.now(), cost)])
    assert crossed(budget) == [100, 150]


def test_what_a_settlement_rolled_back_was_not_crossed(db: None) -> None:
    budget = watched()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        settle(budget, 60)
        raise ZeroDivisionError
    assert crossed(budget) == []
    settle(budget, 60)
    assert crossed(budget) == [50]


def test_a_lowered_limit_crosses_and_a_threshold_set_too_late_does_not(db: None) -> None:
    budget = watched()
    settle(budget, 40)
    services.update_budget(COMMAND, budget_id=budget.pk, limit_nano=50)
    assert crossed(budget) == [50, 80]
    services.update_budget(COMMAND, budget_id=budget.pk, thresholds=[60, 80, 90, 100])
    settle(budget, 1)
    assert crossed(budget) == [50, 80]
    settle(budget, 5)
    assert crossed(budget) == [50, 80, 90]


def refuse(budget: Budget, limit: int | None = None) -> None:
    state = services.open_window(budget_id=budget.pk, at=timezone.now())
    with transaction.atomic():
        services.book(journal_id=uuid4(), refusals={state.window_id: limit or budget.limit_nano})


def refusals(budget: Budget) -> list[tuple[int, int]]:
    rows = ThresholdCrossing.objects.filter(window__budget=budget, refusing=True).order_by("limit_nano")
    return list(rows.values_list("settled_nano", "limit_nano"))


def test_the_first_refusal_of_a_period_is_told_once(db: None, settings: Any) -> None:
    budget = watched(slug="tight")
    settle(budget, 99)
    for _ in range(3):
        refuse(budget)
    assert (
        refusals(budget) == [(99, 100)]
        and crossed(budget) == [50, 80, 100]
        and told(budget) == [80, 80, 100, 100]
    )
    services.send_notices()
    said = [one for one in mail.outbox if one.subject == "Budget tight: calls are refused"]
    assert len(said) == 2 and "has refused a call" in said[0].body
    root = signed_in(person("root", is_superuser=True))
    page = f"/admin/budgets/budget/{budget.pk}/change/"
    assert "first refusal on" in root.get(page).content.decode()
    assert "has too little left and refuses calls since" in root.get("/").content.decode()
    # With more money it refuses no longer, until that is at its end, too.
    services.update_budget(COMMAND, budget_id=budget.pk, limit_nano=200)
    assert "refuses calls since" not in root.get("/").content.decode()
    assert "first refusal of 0.0000001 on" in root.get(page).content.decode()
    refuse(budget, 100)
    assert refusals(budget) == [(99, 100)], "it was booked late"
    refuse(budget, 200)
    refuse(budget, 200)
    assert refusals(budget) == [(99, 100), (99, 200)]


def test_a_soft_budget_refuses_nothing(db: None) -> None:
    budget = watched(hard=False)
    refuse(budget)
    assert refusals(budget) == []


def test_refusals_that_are_booked_at_once_are_told_once(transactional_db: None) -> None:
    budget = watched()
    services.open_window(budget_id=budget.pk, at=timezone.now())
    assert in_threads(*[lambda: refuse(budget)] * 8) == [None] * 8
    assert refusals(budget) == [(0, 100)]


def test_thresholds_count_anew_after_the_limit_rises_and_not_when_it_comes_down(db: None) -> None:
    budget = watched(limit=50)
    settle(budget, 45)
    assert crossed(budget) == [50, 80]
    services.update_budget(COMMAND, budget_id=budget.pk, limit_nano=150)
    assert crossed(budget) == [50, 80]
    settle(budget, 35, 5)
    assert crossed(budget) == [50, 50, 80]
    settle(budget, 40)
    assert crossed(budget) == [50, 50, 80, 80] and told(budget) == [50, 50, 80, 80, 80, 80]
    services.update_budget(COMMAND, budget_id=budget.pk, limit_nano=140)
    services.update_budget(COMMAND, budget_id=budget.pk, limit_nano=150)
    assert crossed(budget) == [50, 50, 80, 80]


def test_many_that_settle_at_once_cross_once(transactional_db: None) -> None:
    budget = watched(limit=1000, notify=[])
    services.open_window(budget_id=budget.pk, at=timezone.now())
    assert in_threads(*[lambda: settle(budget, *[25] * 5)] * 8) == [None] * 8
    assert crossed(budget) == [50, 80, 100]


def test_crossings_are_never_changed(db: None) -> None:
    budget = watched()
    settle(budget, 60)
    with pytest.raises(IntegrityError), transaction.atomic():
        ThresholdCrossing.objects.update(percent=1)
    with pytest.raises(IntegrityError), transaction.atomic():
        ThresholdNotice.objects.all().delete()
        ThresholdCrossing.objects.all().delete()


# E-mails --------------------------------------------------------------------------------------------------------------


def test_each_address_gets_one_mail_that_says_what_matters(db: None, settings: Any) -> None:
    settings.PUBLIC_URL = "https://console.example.com"
    budget = watched(limit=20 * NANO, slug="support-month", at_limit_route="")
    settle(budget, 11 * NANO)
    assert services.send_notices() == 2 and services.send_notices() == 0
    assert sorted(one.to[0] for one in mail.outbox) == ADDRESSES
    message = mail.outbox[0]
    assert message.subject == "Budget support-month: 50 % spent"
    for part in (
        "$11.00 of $20.00",
        "organisation",
        "refused",
        f"https://console.example.com/admin/budgets/budget/{budget.pk}/",
    ):
        assert part in message.body, message.body
    assert set(ThresholdNotice.objects.values_list("state", flat=True)) == {ThresholdNotice.SENT}


def test_two_workers_send_each_once(transactional_db: None) -> None:
    budget = watched()
    settle(budget, 100)
    sent: list[str] = []
    done = in_threads(
        *[lambda: services.send_notices(send=lambda subject, text, address: sent.append(address))] * 4
    )
    assert sum(done) == 2 and sorted(sent) == ADDRESSES


def test_a_server_that_says_no_is_asked_again_and_not_for_ever(db: None) -> None:
    budget = watched(notify=["finance@example.com"])
    settle(budget, 60)
    tries = []

    def refuses(subject: str, text: str, address: str) -> None:
        tries.append(address)
        raise smtplib.SMTPRecipientsRefused({})

    now = timezone.now()
    assert services.send_notices(send=refuses, now=now) == 0
    assert services.send_notices(send=refuses, now=now) == 0 and len(tries) == 1, "not at once again"
    for day in range(1, 20):
        services.send_notices(send=refuses, now=now + timedelta(days=day))
    assert len(tries) == 6
    assert ThresholdNotice.objects.get().state == ThresholdNotice.FAILED


@pytest.mark.parametrize("how", ["died", "hung"])
def test_what_may_have_gone_out_is_not_sent_again(db: None, how: str) -> None:
    budget = watched(notify=["finance@example.com"])
    settle(budget, 60)

    def breaks(subject: str, text: str, address: str) -> None:
        raise (KeyboardInterrupt if how == "died" else TimeoutError)

    now = timezone.now()
    if how == "died":
        with pytest.raises(KeyboardInterrupt):
            services.send_notices(send=breaks, now=now)
        assert ThresholdNotice.objects.get().state == ThresholdNotice.SENDING
    else:
        services.send_notices(send=breaks, now=now)
    for hours in range(1, 5):
        assert services.send_notices(now=now + timedelta(hours=hours)) == 0
    assert ThresholdNotice.objects.get().state == ThresholdNotice.UNKNOWN and not mail.outbox


def test_a_mail_server_out_of_reach_is_tried_again(db: None, settings: Any) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_TIMEOUT = "127.0.0.1", 9, 1
    settle(watched(notify=["finance@example.com"]), 60)
    assert services.send_notices() == 0
    notice = ThresholdNotice.objects.get()
    assert (notice.state, notice.tries) == (ThresholdNotice.WAITING, 1) and "NotReached" in notice.problem


def test_the_page_and_the_api_tell_of_crossings_and_of_mails_that_did_not_go_out(db: None) -> None:
    budget = watched(slug="told", notify=ADDRESSES)
    settle(budget, 60)
    ThresholdNotice.objects.filter(address=ADDRESSES[0]).update(state=ThresholdNotice.FAILED)
    root = signed_in(person("root", is_superuser=True))
    page = root.get(f"/admin/budgets/budget/{budget.pk}/change/").content.decode()
    assert "1 of 2 e-mails not sent" in page
    [window] = root.get(f"/api/v1/budgets/{budget.pk}/windows/").json()
    assert [one["percent"] for one in window["crossings"]] == [50]
    assert (window["limit_usd"], window["settled_usd"]) == ("0.0000001", "0.00000006")
