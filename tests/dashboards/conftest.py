from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
import time_machine
from django.test import Client

from llmops.usage.models import Call
from tests.cast import quick_passwords  # noqa: F401
from tests.dashboards import seed
from tests.kept import kept


@kept
def stage() -> SimpleNamespace:
    """Who is there and what is configured, without any call."""
    return seed.fill()


@pytest.fixture
def alice(stage: SimpleNamespace) -> Client:
    return signed_in(stage.alice)


@pytest.fixture
def bob(stage: SimpleNamespace) -> Client:
    return signed_in(stage.bob)


@pytest.fixture
def charlie(stage: SimpleNamespace) -> Client:
    return signed_in(stage.charlie)


def signed_in(user: object) -> Client:
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


@pytest.fixture
def still() -> Iterator[None]:
    """The clock stands: figures do not grow old by themselves."""
    with time_machine.travel(datetime(2026, 11, 21, 14, 37, 22, tzinfo=UTC), tick=False):
        yield


@pytest.fixture
def day(stage: SimpleNamespace) -> list[Call]:
    """A day of calls in both projects, up to a moment ago."""
    now = datetime.now(UTC)
    calls = seed.traffic(stage, until=now - timedelta(minutes=1), hours=5, per_hour=24)
    return seed.store([*calls, seed.unknown(stage, now - timedelta(seconds=20))])
