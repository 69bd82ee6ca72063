"""Price lists: read with the line of every fault, compared, added and never edited; models without a price."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from llmops.core.money import parse_usd
from llmops.providers import catalogue, services
from llmops.providers.models import Model, Price, Provider
from llmops.providers.selectors import unpriced_models
from tests.cast import COMMAND, no_event, one_event, signed_in

LIST = """\
version: 1
provider: openai
date: 2026-11-26
sources:
  page: The pricing page, read 2026-11-26
prices:
  - models: [gpt-5-2025-08-07, gpt-5]
    source: page
    usd:
      input: "1.25"
      output: "10.00"
  - models: [gpt-5-2025-08-07]
    from: 2026-12-01
    usd: {input: "1.00"}
"""


@pytest.fixture
def openai(db: None) -> Provider:
    return services.create_provider(
        COMMAND, slug="openai", kind="openai", base_url="https://api.openai.com/v1"
    )


def model(provider: Provider, slug: str, upstream: str, **known: Any) -> Model:
    return services.create_model(
        COMMAND, slug=slug, provider=provider, upstream_model=upstream, context_window=128_000,
        max_output_tokens=16_000, default_max_output_tokens=1_000, **known,
    )  # fmt: skip


def prices_of(one: Model) -> dict[str, int]:
    return dict(one.prices.order_by("effective_from").values_list("token_class", "nano_per_million"))


def test_the_shipped_list_can_be_read_and_every_price_says_where_it_is_from() -> None:
    listed = catalogue.shipped()
    assert listed.provider == "openai" and len(listed.prices) > 100
    assert all(price.source for price in listed.prices)
    flagship = {price.token_class: price.nano_per_million for price in listed.of("gpt-4o-2024-08-06")}
    assert flagship["input"] == parse_usd("2.50") and flagship["batch_output"] == parse_usd("5.00")
    # A discount that is dearer than the price it is a discount of was typed wrongly.
    for name in {price.model for price in listed.prices}:
        known = {price.token_class: price.nano_per_million for price in listed.of(name)}
        for cheaper, dearer in (
            ("cached_input", "input"), ("batch_input", "input"), ("batch_output", "output"),
            ("input_flex", "input"), ("output_flex", "output"), ("input", "input_priority"),
            ("output", "output_priority"), ("input", "cache_write"), ("input", "audio_input"),
        ):  # fmt: skip
            if cheaper in known and dearer in known:
                assert known[cheaper] <= known[dearer], (name, cheaper)


@pytest.mark.parametrize(
    ("line", "wrong", "told"),
    [
        (2, "provider: nobody", "line 2: provider: 'nobody' is not one of"),
        (3, "date: yesterday", "line 3: date: 'yesterday' is not a day"),
        (10, '      inputt: "1.25"', "line 10: usd: 'inputt' is not a class of tokens"),
        (10, '      input: "-1.25"', "line 10: input: an amount of USD must be zero or more"),
        (10, "      input: [1]", "line 10: input must be a plain value"),
        (11, '      output: "1.0000000001"', "line 11: output: at most 9 decimal places"),
        (12, "  - models: [gpt-5-2025-08-07]\n    note: x", "line 13: 'note' is not known here"),
        (13, "    source: page", "line 14: models: input of gpt-5-2025-08-07 stands in line"),
        (7, "  - models: [", "not valid YAML"),
    ],
)
def test_every_fault_names_its_line(line: int, wrong: str, told: str) -> None:
    lines = LIST.splitlines()
    lines[line - 1] = wrong
    with pytest.raises(catalogue.BadPriceList) as refusal:
        catalogue.parse("\n".join(lines))
    if "stands in" in told:
        assert "stands in line 10 already" in refusal.value.message
    else:
        assert told in refusal.value.message


def test_what_differs_is_added_once_and_nothing_is_edited(openai: Provider) -> None:
    pinned, other = model(openai, "big", "gpt-5-2025-08-07"), model(openai, "odd", "odd-2026-01-01")
    services.add_price(COMMAND, model=pinned, token_class="input", nano_per_million=parse_usd("1.50"))
    first = Price.objects.get()
    planned = services.plan_prices(catalogue.parse(LIST))
    assert [(one.model.slug, one.token_class, one.before) for one in planned] == [
        ("big", "input", parse_usd("1.50")),
        ("big", "output", None),
        ("big", "input", parse_usd("1.50")),
    ]
    with one_event("prices.updated") as seen:
        services.add_prices(COMMAND, planned, reason="new list")
    assert seen.event.reason == "new list" and len(seen.event.after["prices"]) == 3
    assert Price.objects.get(pk=first.pk).nano_per_million == parse_usd("1.50")
    later = pinned.prices.get(effective_from=datetime(2026, 12, 1, tzinfo=UTC))
    assert later.nano_per_million == parse_usd("1.00")
    assert pinned.prices.filter(source="The pricing page, read 2026-11-26").count() == 2
    assert not other.prices.exists()
    with no_event():
        again = services.plan_prices(catalogue.parse(LIST), now=timezone.now() + timedelta(seconds=1))
        services.add_prices(COMMAND, again)
    assert again == []


def test_another_providers_models_are_left_alone(openai: Provider) -> None:
    azure = services.create_provider(
        COMMAND, slug="azure", kind="azure", base_url="https://x.openai.azure.com/openai/v1"
    )
    model(azure, "theirs", "gpt-5-2025-08-07")
    archived = model(openai, "old", "gpt-5-2025-08-07")
    services.archive_model(COMMAND, model=archived)
    assert services.plan_prices(catalogue.parse(LIST)) == []


def test_a_new_model_comes_with_its_prices_in_one_step(openai: Provider) -> None:
    with one_event("model.created") as seen:
        new = model(openai, "big", "gpt-4o-2024-08-06", load_prices=True)
    assert prices_of(new)["output"] == parse_usd("10.00")
    assert len(seen.event.after["prices"]) == new.prices.count() == 5
    with one_event("model.created"):
        unknown = model(openai, "odd", "odd-2026-01-01", load_prices=True)
    assert list(unpriced_models()) == [unknown]


def test_models_without_a_price_are_told_everywhere(openai: Provider, cast: SimpleNamespace) -> None:
    model(openai, "priced", "gpt-4o-2024-08-06", load_prices=True)
    odd = model(openai, "odd", "odd-2026-01-01")
    services.add_price(COMMAND, model=odd, token_class="output", nano_per_million=5)
    later = timezone.now() + timedelta(days=1)
    services.add_price(COMMAND, model=odd, token_class="input", nano_per_million=5, effective_from=later)
    alice = signed_in(cast.alice)
    listed = alice.get("/api/v1/models/?unpriced=true").json()["results"]
    assert [one["slug"] for one in listed] == ["odd"]
    assert [one["slug"] for one in alice.get("/api/v1/models/?unpriced=false").json()["results"]] == [
        "priced"
    ]
    page = alice.get("/admin/providers/model/").content.decode()
    assert "Without a price: odd." in page and "cannot be called under any budget, hard or soft" in page
    narrowed = alice.get("/admin/providers/model/?price=none").content.decode()
    assert ">odd<" in narrowed and ">priced<" not in narrowed
    out = StringIO()
    call_command("prices", "unpriced", stdout=out)
    assert out.getvalue() == "Without a price: odd (odd-2026-01-01)\n"


def test_the_command_plans_adds_and_refuses_with_lines(openai: Provider, tmp_path: Path) -> None:
    model(openai, "big", "gpt-5-2025-08-07")
    path, out = tmp_path / "list.yaml", StringIO()
    path.write_text(LIST)
    with no_event():
        call_command("prices", "update", "-f", str(path), "--dry-run", stdout=out)
    assert "big: input none -> 1.25 USD per million" in out.getvalue() and "--dry-run" in out.getvalue()
    assert "Without a price: big" in out.getvalue()
    with one_event("prices.updated"):
        call_command("prices", "update", "-f", str(path), stdout=out)
    assert "3 prices were added" in out.getvalue()
    with no_event():
        call_command("prices", "update", "-f", str(path), stdout=out)
    assert "Nothing to add" in out.getvalue()
    path.write_text(LIST.replace("output", "outputs"))
    with no_event(), pytest.raises(CommandError, match="line 11: usd: 'outputs'"):
        call_command("prices", "update", "-f", str(path))
    with pytest.raises(CommandError, match="No such file"):
        call_command("prices", "update", "-f", str(tmp_path / "absent"))
