"""Exports by e-mail: once for each period, never twice, and what went wrong is seen and tried again."""

from __future__ import annotations

import smtplib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.core.mail import EmailMessage

from llmops.access.models import Membership
from llmops.core.errors import Conflict, InvalidRequest
from llmops.usage import services
from llmops.usage.ingest.loop import Ingester
from llmops.usage.models import Call, ExportRun, ExportSchedule
from llmops.usage.services import schedules
from tests.cast import acting, in_threads, issue, no_event, one_event, signed_in
from tests.usage.journals import Scribe


@pytest.fixture
def calls(tmp_path: Path, cast: SimpleNamespace) -> SimpleNamespace:
    keys = [issue(cast.support).key.pk, issue(cast.search).key.pk]
    scribe = Scribe.at(tmp_path, projects=[cast.support.pk, cast.search.pk], keys=keys)
    scribe.traffic(40, since=datetime.now(UTC).timestamp() - 60, seconds=30)
    Ingester(tmp_path).run_once()
    return cast


def made(cast: SimpleNamespace, **known: Any) -> ExportSchedule:
    values: dict[str, Any] = {
        "owner": cast.carla, "name": "Day end", "what": "calls", "recipients": ["finance@example.com"], "period": "day",
        "project": cast.support,
    }  # fmt: skip
    return services.create_schedule(acting(cast.carla), **(values | known))


def due(schedule: ExportSchedule, *, periods: int = 0) -> datetime:
    return schedule.next_run_at + timedelta(days=periods, seconds=1)


class Post:
    """A mail server that a test controls."""

    def __init__(self, *failures: Exception | None) -> None:
        self.failures = list(failures)
        self.taken: list[EmailMessage] = []

    def __call__(self, message: EmailMessage) -> None:
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        self.taken.append(message)


def test_each_period_is_sent_once_with_its_calls(calls: SimpleNamespace) -> None:
    with one_event("export_schedule.created"):
        schedule = made(calls)
    post = Post()
    assert services.send_exports(send=post, now=schedule.next_run_at - timedelta(seconds=1)) == 0
    when = due(schedule)
    with one_event("export.sent") as seen:
        assert services.send_exports(send=post, now=when) == 1
    assert seen.event.actor_kind == "job"
    for _ in range(3):
        assert services.send_exports(send=post, now=when) == 0
    run = ExportRun.objects.get()
    assert (run.state, run.tries) == (ExportRun.SENT, 1)
    [message] = post.taken
    assert message.to == ["finance@example.com"]
    [(name, content, kind)] = message.attachments
    assert kind == "text/csv" and name.startswith("calls_")
    text = content if isinstance(content, str) else content.decode()
    own = Call.objects.filter(project_id=calls.support.pk)
    assert text.count("\n") == own.count() + 1 and all(str(call.pk) in text for call in own)
    schedule.refresh_from_db()
    assert services.send_exports(send=post, now=due(schedule)) == 1
    assert ExportRun.objects.count() == 2 and len(post.taken) == 2


@pytest.mark.django_db(transaction=True)
def test_many_workers_send_one_message(calls: SimpleNamespace) -> None:
    schedule = made(calls)
    when, post = due(schedule), Post()
    sent = in_threads(*[lambda: services.send_exports(send=post, now=when) for _ in range(4)])
    assert sorted(one for one in sent if isinstance(one, int)) == sorted(sent), sent
    assert sum(sent) == 1 and len(post.taken) == 1 and ExportRun.objects.count() == 1


def test_what_was_certainly_not_sent_is_tried_again(calls: SimpleNamespace) -> None:
    schedule = made(calls)
    post = Post(ConnectionRefusedError(), smtplib.SMTPRecipientsRefused({}))
    when = due(schedule)
    assert services.send_exports(send=post, now=when) == 0
    run = ExportRun.objects.get()
    assert (run.state, run.tries) == (ExportRun.WAITING, 1) and "did not take it" in run.problem
    assert services.send_exports(send=post, now=run.due_at) == 0
    run.refresh_from_db()
    assert services.send_exports(send=post, now=run.due_at) == 1
    run.refresh_from_db()
    assert (run.state, run.tries, run.problem) == (ExportRun.SENT, 3, "")


def test_after_many_tries_a_person_decides(calls: SimpleNamespace) -> None:
    schedule = made(calls)
    post = Post(*[ConnectionRefusedError()] * schedules.MOST_TRIES)
    when = due(schedule)
    for _ in range(schedules.MOST_TRIES + 2):
        services.send_exports(send=post, now=when)
        when = max(when, ExportRun.objects.get().due_at)
    run = ExportRun.objects.get()
    assert (run.state, run.tries) == (ExportRun.FAILED, schedules.MOST_TRIES)
    with one_event("export.sent_again"):
        services.send_again(acting(calls.carla), run_id=run.pk)
    assert services.send_exports(send=post, now=datetime.now(UTC) + timedelta(minutes=1)) == 1
    with pytest.raises(Conflict):
        services.send_again(acting(calls.carla), run_id=run.pk)


def test_what_may_have_been_sent_is_never_sent_by_itself(calls: SimpleNamespace) -> None:
    schedule = made(calls)
    post, when = Post(TimeoutError("after the message was handed over")), due(schedule)
    assert services.send_exports(send=post, now=when) == 0
    assert services.send_exports(send=post, now=when + timedelta(hours=5)) == 0
    assert ExportRun.objects.get().state == ExportRun.UNKNOWN
    # A worker that died in the middle is the same.
    ExportRun.objects.update(state=ExportRun.SENDING, claimed_at=when)
    assert services.send_exports(send=post, now=when + timedelta(hours=6)) == 0
    run = ExportRun.objects.get()
    assert run.state == ExportRun.UNKNOWN and "may or may not" in run.problem
    assert post.taken == []


def test_it_sends_what_its_owner_may_still_see(calls: SimpleNamespace) -> None:
    schedule = made(calls)
    Membership.objects.filter(user=calls.carla).delete()
    post = Post()
    with no_event():
        assert services.send_exports(send=post, now=due(schedule)) == 0
    assert "may not see this usage any more" in ExportRun.objects.get().problem and post.taken == []


def test_a_large_export_is_a_link(
    calls: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    monkeypatch.setattr(schedules, "MOST_ATTACHED", 100)
    settings.PUBLIC_URL = "https://console.example"
    schedule, post = made(calls), Post()
    assert services.send_exports(send=post, now=due(schedule)) == 1
    assert post.taken[0].attachments == []
    assert "https://console.example/spend/exports/" in post.taken[0].body
    assert ExportRun.objects.get().attached_bytes is None


def test_a_stopped_schedule_sends_nothing(calls: SimpleNamespace) -> None:
    schedule = made(calls)
    with one_event("export_schedule.stopped"):
        services.stop_schedule(acting(calls.carla), schedule_id=schedule.pk)
    assert services.send_exports(send=Post(), now=due(schedule)) == 0
    assert not ExportRun.objects.exists()


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("known", "param"),
    [
        ({"name": " "}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"what": "moods"}, "what"),
        ({"period": "year"}, "period"),
        ({"timezone": "Mars/Base"}, "timezone"),
        ({"timezone": "Asia/Kolkata"}, "timezone"),
        ({"recipients": []}, "recipients"),
        ({"recipients": ["nobody"]}, "recipients"),
        ({"recipients": ["a@example.com\nBcc: b@example.com"]}, "recipients"),
        ({"group_by": "mood"}, "group_by"),
        ({"project": None}, "project"),
    ],
)
def test_what_cannot_be_scheduled_is_named(cast: SimpleNamespace, known: dict[str, Any], param: str) -> None:
    with no_event(), pytest.raises(InvalidRequest) as refused:
        made(cast, **known)
    assert refused.value.param == param


@pytest.mark.any_engine
def test_the_form_tells_all_that_is_wrong_at_once(cast: SimpleNamespace) -> None:
    asked = {
        "name": "Day end", "what": "calls", "period": "day", "project": "nobody", "timezone": "Mars/Base", "recipients": "nobody",
    }  # fmt: skip
    carla = signed_in(cast.carla)
    with no_event():
        answer = carla.post("/spend/exports/", asked)
    assert answer.status_code == 400
    page = answer.content.decode()
    for field in ("project", "timezone", "recipients"):
        assert f'name="{field}" aria-invalid="true" aria-describedby="problem-{field}"' in page
        assert f'id="problem-{field}"' in page
    assert page.count('aria-invalid="true"') == 3
    with no_event(), pytest.raises(InvalidRequest) as refused:
        made(cast, name=" ", recipients=[])
    assert list(refused.value.data["problems"]) == ["name", "recipients"]


@pytest.mark.any_engine
def test_pages_say_when_no_mail_leaves(cast: SimpleNamespace, settings: Any) -> None:
    alice = signed_in(cast.alice)
    pages = "/spend/exports/", "/admin/budgets/budget/add/"
    assert [alice.get(page).content.decode().count("EMAIL_URL") for page in pages] == [0, 0]
    settings.EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
    assert [alice.get(page).content.decode().count("EMAIL_URL") for page in pages] == [1, 1]


@pytest.mark.any_engine
def test_times_of_a_schedule_are_told_in_its_own_zone(cast: SimpleNamespace) -> None:
    schedule = made(cast, period="day", timezone="America/New_York")
    services.send_exports(send=Post(), now=due(schedule))
    schedule.refresh_from_db()
    page = signed_in(cast.carla).get("/spend/exports/").content.decode()
    local = schedule.next_run_at.astimezone(ZoneInfo("America/New_York"))
    assert local.hour == 1
    # Without ``data-as``, which would have the browser write it in the viewer's zone.
    assert f'Z">{local.day} {local:%b, %H:%M}</time> <span class="quiet">America/New_York</span>' in page
    began = ExportRun.objects.get().starts_at.astimezone(ZoneInfo("America/New_York"))
    assert f"from {began.day} {began:%b %Y}" in page


def test_periods_are_those_of_their_zone(cast: SimpleNamespace) -> None:
    schedule = made(cast, period="month", timezone="Europe/Berlin")
    local = (schedule.next_run_at - timedelta(hours=1)).astimezone(
        schedules.bounds.__globals__["zone"]("Europe/Berlin")
    )
    assert (local.day, local.hour) == (1, 0)
    services.send_exports(send=Post(), now=due(schedule))
    run = ExportRun.objects.get()
    assert run.ends_at == local.astimezone(UTC)
    assert 28 <= (run.ends_at - run.starts_at).days <= 31


def test_the_last_period_is_sent_at_once_when_somebody_asks(calls: SimpleNamespace) -> None:
    schedule = made(calls)
    post = Post()
    with one_event("export.sent_now") as seen:
        run = services.send_now(acting(calls.carla), schedule_id=schedule.pk)
    assert seen.event.after["recipients"] == schedule.recipients
    now = datetime.now(UTC)
    assert run.ends_at <= now < run.ends_at + timedelta(days=1)
    with no_event(), pytest.raises(Conflict, match="on its way"):
        services.send_now(acting(calls.carla), schedule_id=schedule.pk)
    assert services.send_exports(send=post) == 1
    # Sent once more because a person said so; the schedule itself goes on with the period under way.
    services.send_now(acting(calls.carla), schedule_id=schedule.pk)
    assert services.send_exports(send=post) == 1
    schedule.refresh_from_db()
    assert schedule.next_run_at > now
    assert services.send_exports(send=post, now=due(schedule)) == 1
    assert ExportRun.objects.count() == 2 and len(post.taken) == 3
    services.stop_schedule(acting(calls.carla), schedule_id=schedule.pk)
    with no_event(), pytest.raises(Conflict, match="stopped"):
        services.send_now(acting(calls.carla), schedule_id=schedule.pk)


def test_the_page_sends_now_for_who_may(calls: SimpleNamespace) -> None:
    schedule = made(calls)
    page = signed_in(calls.carla)
    assert "Send now" in page.get("/spend/exports/").content.decode()
    auditor, stranger = signed_in(calls.dan), signed_in(calls.charlie)
    with no_event():
        assert auditor.post("/spend/exports/", {"now": str(schedule.pk)}).status_code == 403
        assert stranger.post("/spend/exports/", {"now": str(schedule.pk)}).status_code == 404
    with one_event("export.sent_now"):
        assert page.post("/spend/exports/", {"now": str(schedule.pk)}).status_code == 302


def test_an_export_that_is_due_within_the_hour_is_not_made_twice(calls: SimpleNamespace) -> None:
    schedule = made(calls)
    # The day is over, its export is due in half an hour: a person who does not want to wait gets this one.
    yesterday = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    ExportSchedule.objects.filter(pk=schedule.pk).update(next_run_at=yesterday + timedelta(hours=1))
    services.send_now(acting(calls.carla), schedule_id=schedule.pk)
    post = Post()
    assert services.send_exports(send=post, now=datetime.now(UTC) + timedelta(minutes=1)) == 1
    assert ExportRun.objects.count() == 1
