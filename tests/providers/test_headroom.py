"""What providers say is left of their limits: the newest stays, shows on Reliability, and a rule goes by it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from llmops.alerts.figures import Figures, Scope
from llmops.alerts.kinds import rate_limit
from llmops.alerts.kinds.base import Asked
from llmops.providers import services as providers
from llmops.providers.models import CredentialHeadroom
from llmops.providers.selectors import headroom
from llmops.providers.services import LimitsLeft, note_headroom
from llmops.usage.ingest.loop import Ingester
from llmops.usage.journal import JournalWriter
from llmops.usage.records import LimitsSeen, LimitTold
from tests.cast import COMMAND, signed_in
from tests.kept import kept

pytestmark = pytest.mark.django_db


@kept
def key(cast: Any) -> Any:
    provider = providers.create_provider(
        COMMAND,
        slug="sim",
        kind="simulator",
        base_url="http://127.0.0.1:9/v1",
        fields={"allow_private_network": True},
    )
    return providers.add_credential(
        COMMAND, provider=provider, name="primary", secret="simulated-key-1", activate=True
    )


def left(key: Any, requests_left: int, *, ago: float = 1.0, model: str = "m", **changes: int) -> LimitsLeft:
    figures = {"requests": 100, "tokens": 0, "tokens_left": 0, **changes}
    return LimitsLeft(
        at=timezone.now() - timedelta(seconds=ago),
        credential=key.pk,
        model=model,
        requests_left=requests_left,
        **figures,
    )


def test_the_newest_stays_whoever_tells_it_last(key):
    note_headroom([left(key, 50, ago=10)])
    note_headroom([left(key, 20, ago=5), left(key, 99, model="other")])
    note_headroom([left(key, 90, ago=8)])
    assert {(row.model, row.requests_left) for row in CredentialHeadroom.objects.all()} == {
        ("m", 20),
        ("other", 99),
    }
    assert [row.model for _, row in headroom(timedelta(minutes=1))] == ["m", "other"]
    assert headroom(timedelta(seconds=1)) == []


def test_what_is_told_of_no_key_shows_nowhere(key):
    note_headroom([left(type(key)(pk=uuid4()), 1)])
    assert headroom(timedelta(minutes=1)) == []


def test_reliability_shows_it_to_those_who_see_providers(key, cast):
    note_headroom([left(key, 1, tokens=1000, tokens_left=900)])
    page = signed_in(cast.alice).get("/reliability/?range=24h")
    board = page.context["board"]
    [row] = board.panel("provider-limits").rows
    assert (
        [cell.text for cell in row[1:4]] == ["m", "1", "900"] and row[2].tone == "bad" and row[3].tone == ""
    )
    mine = signed_in(cast.bob).get("/reliability/?range=24h")
    assert mine.context["board"].panel("provider-limits").rows == ()


def test_the_rule_goes_by_it_while_it_is_fresh(key, cast):
    asked = Asked(scope=Scope(), settings={"percent": 80})
    note_headroom([left(key, 10), left(key, 50, model="other"), left(key, 0, model="old", ago=300)])
    [found] = rate_limit.KIND.look(asked, Figures(timezone.now()))
    assert found.subject == f"credential:{key.pk}:m" and found.holds and found.value == pytest.approx(90)
    of_a_project = Asked(scope=Scope(project_id=cast.support.pk), settings={"percent": 80})
    assert list(rate_limit.KIND.look(of_a_project, Figures(timezone.now()))) == []


@pytest.mark.django_db(transaction=True)
def test_the_journal_brings_it(key, tmp_path: Path):
    writer = JournalWriter(tmp_path)
    at = int(timezone.now().timestamp() * 10**9)
    told = [LimitTold(str(key.pk), "m", 100, 7), LimitTold("of the environment", "m", 100, 7)]
    writer.append(LimitsSeen(n=0, at=at, told=told))
    writer.append(LimitsSeen(n=0, at=at + 1, told=[LimitTold(str(key.pk), "m", 100, 5, 10**12, 3)]))
    Ingester(tmp_path).run_once()
    writer.close()
    [row] = CredentialHeadroom.objects.all()
    assert (row.requests_left, row.tokens, row.tokens_left) == (5, 10**12, 3)
    assert row.used == (pytest.approx(1.0), "tokens")
