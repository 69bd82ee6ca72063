"""What a replay sends, and what is said where it brings no call."""

from __future__ import annotations

import threading

import pytest

from tests.cast import signed_in
from tests.playground.conftest import refuses, says
from tests.playground.test_replays import ASKED, kept, replay


@pytest.fixture
def asked_at_once(monkeypatch):
    """Threads whose end a test can wait for."""
    started: list[threading.Thread] = []
    begin = threading.Thread.start

    def noted(thread: threading.Thread) -> None:
        if thread.name == "playground-replay":
            started.append(thread)
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", noted)
    return started


@pytest.mark.django_db(transaction=True)
def test_it_goes_the_road_of_services(open_lab, plane, asked_at_once):
    call = kept(open_lab, streamed=True)
    plane.script = says("Hello")
    made = replay(open_lab, call)
    for thread in asked_at_once:
        thread.join(30)
    [(headers, body)] = plane.asked
    assert headers["x-request-id"] == made.request and headers["x-llmops-feature"] == "replay"
    assert headers["x-llmops-tags"] == f"replay,replay-of:{call.pk}"
    assert headers["x-llmops-keep-texts"] == "true" and headers["cache-control"] == "no-store"
    assert body == {**ASKED, "model": "sim-small", "stream": True, "stream_options": {"include_usage": True}}
    made.refresh_from_db()
    assert made.problem == ""


@pytest.mark.django_db(transaction=True)
def test_why_there_is_no_call(open_lab, plane, asked_at_once, monkeypatch):
    monkeypatch.setattr("llmops.playground.services.replays.KEY_TRAVELS_S", 0.0)
    plane.script = refuses(401, "invalid_api_key", "no")
    refused = replay(open_lab, kept(open_lab))
    for thread in asked_at_once:
        thread.join(30)
    refused.refresh_from_db()
    assert "refused the playground's key" in refused.problem
    page = signed_in(open_lab.bob).get(f"/playground/replays/{refused.pk}/")
    assert b"could not be asked" in page.content
    plane.script = lambda handler: handler.connection.close()
    broken = replay(open_lab, kept(open_lab))
    for thread in asked_at_once:
        thread.join(30)
    broken.refresh_from_db()
    assert "broke, or could not be made" in broken.problem
