"""A service is told of the end of its run: signed, again until it is taken, never to an address that the guard refuses."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import timedelta

import pytest
from django.utils import timezone

from llmops.core.errors import InvalidRequest
from llmops.runs import services
from llmops.runs.models import Run
from llmops.runs.services import telling
from tests.runs.making import asked, begun, worked
from tests.tools.services import says, service

pytestmark = [pytest.mark.django_db, pytest.mark.any_engine]


@pytest.fixture(autouse=True)
def private(settings):
    settings.RUN_WEBHOOKS_PRIVATE = True


def state(run):
    run.refresh_from_db()
    return run.webhook_state, run.webhook_tries


def due(run):
    Run.objects.filter(pk=run.pk).update(webhook_at=timezone.now() - timedelta(seconds=1))


def test_it_is_told_once_and_the_signature_is_that_of_the_secret(lab, plane):
    with service(says("200 OK", b"{}")) as receiver:
        body = asked(webhook={"url": f"http://127.0.0.1:{receiver.port}/hook"})
        run, secret = services.start_run(lab.agent, project=lab.support, asked=body, inline=True)
        assert services.tell(run.pk) == "nothing to tell"
        worked(run)
        assert services.tell(run.pk) == "delivered" and services.tell(run.pk) == "nothing to tell"
    ((headers, raw),) = receiver.requests
    told = json.loads(raw)
    assert (told["run"], told["type"], told["project"]) == (str(run.pk), "run.succeeded", "support")
    assert "Hello" not in str(raw)
    text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + raw
    right = hmac.new(base64.b64decode(secret.removeprefix("whsec_")), text, hashlib.sha256).digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(right).decode()
    assert headers["webhook-id"] == str(run.pk)


def test_who_does_not_take_it_is_told_again_and_at_last_no_more(lab, plane):
    with service(says("500 No", b"")) as receiver:
        run = begun(lab, webhook={"url": f"http://127.0.0.1:{receiver.port}/hook"})
        worked(run)
        for tries in range(1, len(telling.AGAIN_AFTER_S) + 1):
            assert services.tell(run.pk) == "due" and state(run) == ("due", tries)
            assert services.tell(run.pk) == "nothing to tell"
            due(run)
        assert services.tell_due() == 1
        assert services.tell(run.pk) == "undelivered"
    assert len(receiver.requests) == len(telling.AGAIN_AFTER_S) + 1


def test_a_cancelled_run_is_told_as_well(lab, plane):
    run = begun(lab, webhook={"url": "http://127.0.0.1:9/hook"})
    services.cancel_run(lab.agent, run=run)
    assert services.tell(run.pk) == "due" and state(run) == ("due", 1)


def test_addresses_of_private_networks_are_refused_when_it_is_asked_and_when_it_is_told(lab, plane, settings):
    with service(says("200 OK", b"{}")) as receiver:
        url = f"http://127.0.0.1:{receiver.port}/hook"
        run = begun(lab, webhook={"url": url})
        worked(run)
        settings.RUN_WEBHOOKS_PRIVATE = False
        assert services.tell(run.pk) == "due"
        for address in (
            url,
            "https://localhost/x",
            "https://10.0.0.1/x",
            "https://[::1]/x",
            "https://u:p@example.com/",
        ):
            with pytest.raises(InvalidRequest) as refused:
                begun(lab, webhook={"url": address})
            assert refused.value.param == "webhook.url"
    assert receiver.requests == []
