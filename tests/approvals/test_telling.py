"""Those who may decide are told once, with a link, and nobody else is."""

from __future__ import annotations

import json
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.core import mail
from django.utils import timezone

from llmops.approvals import telling
from llmops.approvals.models import Request
from llmops.base.requests import user_actor
from llmops.tools import services as tools
from tests.cast import cast, person  # noqa: F401
from tests.tools.making import FUNCTIONS, a_service, a_tool, proposed
from tests.tools.services import says, service


@pytest.fixture
def world(cast: SimpleNamespace, settings: Any) -> SimpleNamespace:  # noqa: F811
    settings.TOOL_FUNCTIONS = FUNCTIONS
    settings.PUBLIC_URL = "https://console.example.com"
    for name in ("alice", "bob", "carla", "dan", "rita", "charlie"):
        user = getattr(cast, name)
        user.email = f"{name}@example.com"
        user.save()
    person("left", ("reviewer", cast.support), email="left@example.com", is_active=False)
    person("elsewhere", ("reviewer", cast.search), email="elsewhere@example.com")
    a_tool(cast.support)
    cast.agent = a_service(cast.support)
    return cast


def test_who_may_decide_is_told_once_with_a_link(world: SimpleNamespace) -> None:
    action = proposed(world.agent, world.support)
    assert telling.tell_of_what_waits() == 1
    assert sorted(one.to[0] for one in mail.outbox) == ["alice@example.com", "rita@example.com"]
    letter = mail.outbox[0]
    assert letter.subject == "Waits for you: Refund 500 USD to Ada"
    assert f"https://console.example.com/inbox/{action.request_id}/" in letter.body
    assert "approve" not in letter.body.lower() and "decide/" not in letter.body
    assert telling.tell_of_what_waits() == 0 and len(mail.outbox) == 2


def test_whoever_asked_is_not_told(world: SimpleNamespace) -> None:
    tools.propose(
        user_actor(world.rita),
        project=world.support,
        tool="refund",
        arguments={"amount": 500, "customer": "A"},
    )
    telling.tell_of_what_waits()
    assert [one.to for one in mail.outbox] == [["alice@example.com"]]


def test_whoever_it_is_asked_for_is_not_told_to_decide(world: SimpleNamespace) -> None:
    proposed(world.agent, world.support, behalf_of="rita")
    telling.tell_of_what_waits()
    assert [one.to for one in mail.outbox] == [["alice@example.com"]]


def test_a_secret_among_the_arguments_goes_out_by_no_letter(world: SimpleNamespace, settings: Any) -> None:
    """Whoever reads it signs in. Letters and chats are kept by others, for longer."""
    key = "sk-proj-" + "abcDEF123456" * 3
    a_tool(world.support, "say", says="Say {customer}")
    a_tool(world.support, "plain", says="")
    for tool in ("say", "plain"):
        arguments = {
            "amount": 500,
            "customer": f"use {key}, https://ada:hunter2@shop.example/",
            "environment": "inner",
        }
        proposed(world.agent, world.support, tool=tool, arguments=arguments, reason=f"Try {key}")
    with service(says("200 OK", b"ok")) as chat:
        settings.APPROVALS_WEBHOOK = f"http://127.0.0.1:{chat.port}/hook"
        settings.APPROVALS_WEBHOOK_PRIVATE = True
        assert telling.tell_of_what_waits() == 2
    [(_, body)] = chat.requests
    for told in (body.decode(), *(f"{one.subject} {one.body}" for one in mail.outbox)):
        assert "[redacted]" in told and key not in told and "abcDEF" not in told and "hunter2" not in told


def test_many_are_one_letter_and_the_next_comes_later(world: SimpleNamespace) -> None:
    for number in range(30):
        proposed(world.agent, world.support, 500 + number)
    now = timezone.now()
    assert telling.tell_of_what_waits(now) == 30 and len(mail.outbox) == 2
    assert mail.outbox[0].subject == "30 requests wait for you" and "and 10 more" in mail.outbox[0].body
    proposed(world.agent, world.support, 600)
    assert telling.tell_of_what_waits(now + timedelta(minutes=1)) == 0
    # What ends soon does not wait.
    Request.objects.filter(told_at=None).update(expires_at=now + timedelta(minutes=10))
    assert telling.tell_of_what_waits(now + timedelta(minutes=1)) == 1
    proposed(world.agent, world.support, 601)
    assert telling.tell_of_what_waits(now + timedelta(minutes=7)) == 1


def test_a_server_that_is_away_is_tried_again(
    world: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.APPROVAL_CHANNELS = {"mail": "llmops.approvals.telling.by_mail"}
    proposed(world.agent, world.support)

    class Away:
        def open(self) -> None:
            raise ConnectionRefusedError

    with monkeypatch.context() as patch:
        patch.setattr(telling, "get_connection", Away)
        assert telling.tell_of_what_waits() == 0
    assert telling.tell_of_what_waits() == 1 and len(mail.outbox) == 2


def test_a_chat_is_told_without_mark_up_of_its_own(world: SimpleNamespace, settings: Any) -> None:
    a_tool(world.support, "say", says="Say {customer}")
    proposed(
        world.agent,
        world.support,
        tool="say",
        arguments={"amount": 500, "customer": "<!channel> & <https://evil|click>"},
    )
    with service(says("200 OK", b"ok")) as chat:
        settings.APPROVALS_WEBHOOK = f"http://127.0.0.1:{chat.port}/hook"
        settings.APPROVALS_WEBHOOK_PRIVATE = True
        assert telling.tell_of_what_waits() == 1
    [(head, body)] = chat.requests
    told = json.loads(body)["text"]
    assert (
        "Say &lt;!channel&gt; &amp; &lt;https://evil|click&gt;" in told
        and "https://console.example.com/inbox/" in told
    )
    assert "authorization" not in head


def test_a_private_address_gets_nothing(world: SimpleNamespace, settings: Any) -> None:
    proposed(world.agent, world.support)
    with service(says("200 OK")) as inside:
        settings.APPROVALS_WEBHOOK = f"http://127.0.0.1:{inside.port}/"
        telling.tell_of_what_waits()
        assert inside.connections == 0
