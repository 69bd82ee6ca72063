"""What a worker that died leaves behind is gone on with soon, and a broker that is behind is not told everything again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from django.utils import timezone

from console import file_broker
from llmops.base import tasks as broker
from llmops.runs import services, tasks
from llmops.runs.models import Run
from llmops.tools import services as tools
from tests.runs.conftest import call, plays
from tests.runs.making import actions, asked, begun, steps, worked
from tests.tools.making import decide


def test_a_worker_goes_on_with_what_a_dead_one_left_before_it_takes_the_next_message(
    lab: Any, plane: Any, settings: Any
) -> None:
    left, other, named = begun(lab, user="left"), begun(lab, user="other"), begun(lab, user="named")
    settings.RUN_LEASE_SECONDS = 0.0
    assert services.take(left.pk) is not None
    settings.RUN_LEASE_SECONDS = 600.0
    assert services.take(other.pk) is not None
    assert tasks.advance(str(named.pk)) == "succeeded"
    found = dict(Run.objects.values_list("pk", "state"))
    assert found == {left.pk: "succeeded", other.pk: "running", named.pk: "succeeded"}
    left.refresh_from_db()
    assert steps(left)[0] == "note followed" and tasks.advance("of another console") == "none of ours"


@pytest.mark.parametrize(("waiting", "at_once"), [(0, 1), (50, 1), (None, 1), (51, 0), (10_000, 0)])
def test_what_may_still_be_before_the_broker_is_not_sent_again(
    lab: Any, monkeypatch: pytest.MonkeyPatch, waiting: int | None, at_once: int
) -> None:
    run = begun(lab)
    monkeypatch.setattr(broker, "waiting_messages", lambda: waiting)
    now = timezone.now()
    assert services.hand_out(now + timedelta(seconds=5)) == 0
    assert services.hand_out(now + timedelta(seconds=60)) == at_once
    # However far behind it is, a message is not waited for for ever.
    Run.objects.filter(pk=run.pk).update(handed_at=now)
    assert services.hand_out(now + timedelta(minutes=3)) == 1


@pytest.mark.any_engine
def test_messages_of_a_broker_made_of_files_are_counted(tmp_path: Any, settings: Any) -> None:
    for name in ("queue", "control"):
        (tmp_path / name).mkdir()
    app = Celery("counted", set_as_current=False, broker="filesystem://")
    app.conf.broker_transport_options = {
        "data_folder_in": str(tmp_path / "queue"), "data_folder_out": str(tmp_path / "queue"),
        "control_folder": str(tmp_path / "control"),
    }  # fmt: skip
    settings.TASK_APP = f"{__name__}.COUNTED"
    globals()["COUNTED"] = app
    assert broker.waiting_messages() == 0 and broker.lost_after() == timedelta(seconds=10)
    for number in range(51):
        app.send_task("runs.advance", args=[str(number)])
    assert broker.waiting_messages() == 51 and broker.lost_after() == timedelta(minutes=2)
    app.pool.force_close_all()


@pytest.mark.any_engine
def test_a_broker_that_is_away_keeps_nobody_from_telling_again(settings: Any) -> None:
    app = Celery("away", set_as_current=False, broker="redis://127.0.0.1:1/0")
    app.conf.broker_connection_max_retries = 0
    globals()["AWAY"] = app
    settings.TASK_APP = f"{__name__}.AWAY"
    assert broker.waiting_messages() is None and broker.lost_after() == timedelta(seconds=10)


class Told:
    """Stands for Celery's application: what workers are told, and what of it comes after all others."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, bool]] = []

    def send_task(self, task: str, args: list[str], retry: bool, priority: int = 0) -> None:
        self.sent.append((task, args[0], priority > 0))


@pytest.fixture
def told(settings: Any) -> list[tuple[str, str, bool]]:
    app = Told()
    globals()["TOLD"] = app
    settings.TASK_APP = f"{__name__}.TOLD"
    return app.sent


@pytest.mark.any_engine
def test_what_a_run_does_by_itself_tells_nobody(
    lab: Any, plane: Any, told: Any, django_capture_on_commit_callbacks: Any
) -> None:
    plane.script = plays([call("look", {"name": "Ada"})], "Done.")
    with django_capture_on_commit_callbacks(execute=True):
        run = begun(lab, tools=["look"])
        assert worked(run).state == "succeeded"
    assert told == []


@pytest.mark.any_engine
def test_a_run_that_waited_goes_on_before_those_that_have_not_begun(
    lab: Any, plane: Any, told: Any, monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
) -> None:
    monkeypatch.setattr(broker, "waiting_messages", lambda: 0)
    plane.script = plays([call("refund", {"amount": 500, "customer": "Ada"})], "Done.")
    with django_capture_on_commit_callbacks(execute=True):
        run = begun(lab, tools=["refund"])
        assert worked(run).state == "parked"
    assert told == []
    (action,) = actions(run)
    with django_capture_on_commit_callbacks(execute=True):
        decide(lab.rita, action)
        assert tools.execute(action.pk) == "succeeded"
    assert told == [("runs.advance", str(run.pk), False)]
    told.clear()
    with django_capture_on_commit_callbacks(execute=True):
        new, _ = services.start_run(lab.agent, project=lab.support, asked=asked())
        # The message of either is lost.
        services.hand_out(timezone.now() + timedelta(minutes=3))
    assert told == [
        ("runs.advance", str(new.pk), True), ("runs.advance", str(run.pk), False), ("runs.advance", str(new.pk), True),
    ]  # fmt: skip


def test_what_is_sent_behind_comes_after_all_others(
    tmp_path: Any, settings: Any, db: None, django_capture_on_commit_callbacks: Any
) -> None:
    """On the broker of this installation, in a queue of its own."""
    file_broker.use()
    app = Celery("ordered", set_as_current=False, broker=settings.CELERY_BROKER_URL)
    app.conf.task_default_queue = f"ordered-{tmp_path.name}"
    app.conf.task_ignore_result = True
    if settings.CELERY_BROKER_URL == "filesystem://":
        (tmp_path / "queue").mkdir()
        app.conf.broker_transport_options = {
            "data_folder_in": str(tmp_path / "queue"), "data_folder_out": str(tmp_path / "queue"),
            "control_folder": str(tmp_path / "control"),
        }  # fmt: skip
    globals()["ORDERED"] = app
    settings.TASK_APP = f"{__name__}.ORDERED"
    with django_capture_on_commit_callbacks(execute=True):
        for name, behind in (("first", True), ("second", True), ("third", False), ("fourth", False)):
            broker.send(name, "x", behind=behind)
    assert broker.waiting_messages() == 4
    with app.connection_for_read() as connection, connection.channel() as channel:
        queue = app.amqp.queues[app.conf.task_default_queue].bind(channel)
        got = [queue.get(no_ack=True).headers["task"] for _ in range(4)]
        queue.delete()
    assert got == ["third", "fourth", "first", "second"]
    app.pool.force_close_all()
