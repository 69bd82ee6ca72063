from __future__ import annotations

from types import SimpleNamespace

import pytest
from django.test import Client

from tests.dashboards import seed


@pytest.fixture
def stage(db: None) -> SimpleNamespace:
    """Who is there and what is configured, without any call."""
    return seed.fill()


@pytest.fixture
def alice(stage: SimpleNamespace) -> Client:
    return signed_in(stage.alice)


@pytest.fixture
def bob(stage: SimpleNamespace) -> Client:
    return signed_in(stage.bob)


def signed_in(user: object) -> Client:
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client
