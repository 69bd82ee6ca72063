"""What ``test_killed_while_telling.py`` runs in a process of its own, in a whole installation: workers that are killed while they open an
incident or tell of it, and who follows them. Each is a fork that ends itself with SIGKILL at one boundary."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from typing import Any
from uuid import uuid4

from django.conf import settings

from tests.runs.killing import DEAD, in_a_fork

#: What each fork would load for itself.
_LOADED = (
    "llmops.alerts.channels.mail",
    "llmops.alerts.channels.webhook",
    "llmops.alerts.kinds.error_rate",
    "tests.cast",
)


def die(*_: Any, **__: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def made(hook: str) -> None:
    from llmops.alerts import services
    from llmops.alerts.models import Rule
    from tests.cast import COMMAND

    services.ensure_shipped()
    Rule.objects.update(archived_at="2026-01-01T00:00:00Z")
    services.create_channel(COMMAND, slug="a-mail", kind="mail", addresses=["on-call@example.com"])
    services.create_channel(COMMAND, slug="b-hook", kind="webhook", url=hook, allow_private_network=True)


def begun(name: str) -> None:
    """A route of which every call fails, and a rule that sees it; the other ones are put away."""
    from llmops.alerts import services
    from llmops.alerts.models import Rule
    from llmops.base.clock import database_now
    from llmops.usage.models import Rollup
    from llmops.usage.selectors.spans import floor
    from tests.cast import COMMAND

    now = database_now()
    Rule.objects.filter(archived_at=None).update(archived_at=now)
    services.create_rule(COMMAND, slug=name, kind="error_rate", severity="critical", route=name)
    Rollup.objects.create(
        granularity=60, bucket=floor(now, 60), project_id=uuid4(), key_id=uuid4(), endpoint="chat.completions",
        route=name, model="m", feature="", status="error", error_code="upstream_error", calls=50, attempts=50,
    )  # fmt: skip


def in_the_transaction_that_opens() -> None:
    from llmops.alerts.services import evaluating

    evaluating.plan = die


def at_the_end_of_that_transaction() -> None:
    from llmops.alerts.services import evaluating

    evaluating.record_about = die


def between_opening_and_telling() -> None:
    """Committed, and nobody was asked to send."""
    from django.db import transaction

    from llmops.alerts.services import evaluating

    evaluating.tasks.send = lambda *_: transaction.on_commit(die)


def between_claim_and_sending() -> None:
    from llmops.alerts.services import outbox

    outbox._send = die


def between_two_channels() -> None:
    from llmops.alerts.services import outbox

    real = outbox._send
    outbox._send = lambda channel, rows, now: die() if channel.slug == "b-hook" else real(channel, rows, now)


def after_sending_before_its_record() -> None:
    from llmops.alerts.services import outbox

    real = outbox._was_sent
    outbox._was_sent = lambda row, now: die() if row.channel.slug == "b-hook" else real(row, now)


def within_its_record() -> None:
    from llmops.alerts.services import outbox

    real = outbox.add
    outbox.add = lambda incident, kind, text, **more: (
        die() if text.startswith("b-hook") else real(incident, kind, text, **more)
    )


BOUNDARIES: dict[str, Callable[[], None]] = {
    one.__name__.replace("_", "-"): one
    for one in (
        in_the_transaction_that_opens, at_the_end_of_that_transaction, between_opening_and_telling,
        between_claim_and_sending, between_two_channels, after_sending_before_its_record, within_its_record,
    )
}  # fmt: skip


def killed(name: str) -> None:
    from llmops.alerts import services

    BOUNDARIES[name]()
    services.evaluate(claim=False)
    services.deliver()


def followed() -> None:
    """Whoever comes next, as the schedule has it: at once, and when what a dead worker had is free again."""
    from llmops.alerts import services
    from llmops.base.clock import database_now

    for _ in range(2):
        services.evaluate(claim=False)
        services.deliver()
    for minutes in (3, 6):
        services.deliver(database_now() + timedelta(minutes=minutes))


def story(name: str) -> dict[str, Any]:
    from llmops.alerts.models import Entry, Incident, Notification
    from llmops.audit.checking import check_database
    from llmops.audit.models import Event

    incidents = Incident.objects.filter(rule__slug=name)
    of = {"incident__in": incidents}
    return {
        "incidents": incidents.count(),
        "told": list(
            Notification.objects.filter(**of)
            .order_by("channel__slug")
            .values_list("channel__slug", "state", "event")
        ),
        "tries": list(Notification.objects.filter(**of).order_by("channel__slug").values_list("tries", flat=True)),
        "ids": [str(pk) for pk in Notification.objects.filter(**of).values_list("pk", flat=True)],
        "timeline": sorted(Entry.objects.filter(**of).values_list("kind", "text")),
        "events": Event.objects.filter(
            action="incident.opened", object_id__in=[str(pk) for pk in incidents.values_list("pk", flat=True)]
        ).count(),
        "trail": check_database().intact,
    }  # fmt: skip


def main(hook: str, letters: str) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
    settings.EMAIL_FILE_PATH = letters
    for name in _LOADED:
        import_module(name)
    in_a_fork(lambda: made(hook))
    found: dict[str, Any] = {}
    for name in BOUNDARIES:
        in_a_fork(lambda name=name: begun(name))
        assert in_a_fork(lambda name=name: killed(name)) == DEAD, name
        in_a_fork(followed)
        found[name] = in_a_fork(lambda name=name: story(name))
    print("TOLD", json.dumps(found))
