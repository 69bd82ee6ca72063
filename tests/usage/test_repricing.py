"""What the last month would have cost at other prices, against a reckoning call by call."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmops.access.models import Project
from llmops.providers import services
from llmops.providers.models import Model
from llmops.providers.previews import NewPrice, preview
from llmops.usage.ingest.loop import Ingester
from llmops.usage.records import Media, Tokens
from tests.cast import COMMAND, no_event, signed_in
from tests.usage.journals import Scribe, outcome

MILLION = 10**6


@pytest.fixture
def priced(cast: SimpleNamespace) -> Model:
    provider = services.create_provider(
        COMMAND, slug="openai", kind="openai", base_url="https://api.openai.com/v1"
    )
    model = services.create_model(
        COMMAND, slug="small", provider=provider, upstream_model="small-2026-01-01", context_window=128_000,
        max_output_tokens=16_000, default_max_output_tokens=1_000,
    )  # fmt: skip
    for name, nano in (("input", 1_000), ("cached_input", 100), ("output", 8_000), ("input_flex", 500)):
        services.add_price(COMMAND, model=model, token_class=name, nano_per_million=nano * MILLION)
    return model


def sent(directory: Path, project: Project, *calls: Any) -> None:
    scribe = Scribe.at(directory)
    for days_ago, tokens, known in calls:
        at = time.time_ns() - int(days_ago * 86_400e9)
        result = outcome(tokens=tokens, model=known.pop("model", "small"))
        scribe.call(started=at, project=str(project.pk), cost=known.pop("cost", 7), result=result, **known)
    Ingester(directory).run_once()


def change(model: Model, token_class: str, nano: int) -> NewPrice:
    return NewPrice(model, token_class, nano * MILLION, datetime.now(UTC) + timedelta(hours=1))


def test_last_months_traffic_is_priced_anew_by_route_and_project(
    tmp_path: Path, priced: Model, cast: SimpleNamespace
) -> None:
    plain = Tokens(input=100, cached=40, output=10)
    sent(
        tmp_path, cast.support,
        (2, plain, {"route": "chat"}), (2, plain, {"route": "chat"}), (3, plain, {"route": "search"}),
        (2, Tokens(input=100, cached=40, output=10, tier="flex"), {"route": "chat"}),
        (2, Tokens(input=100, output=10, media=Media(audio_input=30)), {"route": "search"}),
        (40, plain, {"route": "chat"}), (0, plain, {"route": "chat"}), (2, plain, {"route": "chat", "model": "large"}),
    )  # fmt: skip
    with no_event():
        found = preview([change(priced, "output", 10_000), change(priced, "audio_input", 4_000)])
    usual, flex = 60 * 1_000 + 40 * 100 + 10 * 8_000, 60 * 500 + 40 * 100 + 10 * 8_000
    heard = 100 * 1_000 + 10 * 8_000
    assert [
        (line.route, line.project, line.calls, line.before_nano, line.after_nano) for line in found.lines
    ] == [
        ("search", "support", 2, usual + heard, usual + heard + 2 * 10 * 2_000 + 30 * 3_000),
        ("chat", "support", 3, 2 * usual + flex, 2 * usual + flex + 3 * 10 * 2_000),
    ]
    assert (found.calls, found.recorded_nano) == (5, 35)
    assert found.change_nano == 5 * 20_000 + 90_000
    assert (found.last - found.first).days == 29


def test_a_model_without_prices_cost_nothing_before(
    tmp_path: Path, priced: Model, cast: SimpleNamespace
) -> None:
    new = services.create_model(
        COMMAND, slug="large", provider=priced.current.provider, upstream_model="large-2026-01-01",  # type: ignore[union-attr]
        context_window=128_000, max_output_tokens=16_000, default_max_output_tokens=1_000,
    )  # fmt: skip
    sent(tmp_path, cast.search, (2, Tokens(input=10, output=5), {"model": "large"}))
    found = preview([change(new, "input", 3), change(new, "output", 4)])
    assert [(line.before_nano, line.after_nano) for line in found.lines] == [(0, 50)]
    assert found.change_percent is None
    assert preview([]).lines == []


def test_the_form_shows_it_before_anything_is_saved(
    tmp_path: Path, priced: Model, cast: SimpleNamespace
) -> None:
    sent(tmp_path, cast.support, (2, Tokens(input=100, output=10), {"route": "chat"}))
    alice = signed_in(cast.alice)
    address = f"/admin/providers/model/{priced.pk}/price/"
    typed = {"token_class": "output", "usd_per_million": "10.00", "source": "a letter"}
    with no_event():
        page = alice.post(address, {**typed, "_preview": ""}).content.decode()
    assert "1 calls would have cost 0.0002 USD instead of 0.00018" in page
    assert 'value="10.00"' in page and 'value="a letter"' in page
    assert priced.prices.filter(token_class="output").count() == 1
    # The same where a price is added from the list of prices.
    plain = {**typed, "model": str(priced.pk)}
    with no_event():
        page = alice.post("/admin/providers/price/add/", {**plain, "_preview": ""}).content.decode()
    assert "1 calls would have cost 0.0002 USD instead of 0.00018" in page and "Preview on last month" in page
    alice.post(address, typed)
    assert priced.prices.filter(token_class="output").count() == 2
