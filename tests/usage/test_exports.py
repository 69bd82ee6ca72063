"""What is taken away adds up to the ledger, opens as what it is, and fits the specification it names."""

from __future__ import annotations

import csv
import io
import json
import re
import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.core.errors import InvalidRequest
from llmops.core.money import NANO
from llmops.providers.models import Model, ModelConfig, Provider
from llmops.usage.exports import KINDS, Wanted, calls, cells, export, focus
from llmops.usage.ingest.loop import Ingester
from llmops.usage.models import Call
from llmops.usage.selectors import Span, SpendFilters
from tests.cast import issue
from tests.kept import kept
from tests.usage.journals import Scribe

DAY = datetime(2024, 5, 16, tzinfo=UTC)
SPAN = Span(DAY, DAY + timedelta(days=2))


@kept
def traffic(cast: SimpleNamespace) -> SimpleNamespace:
    provider = Provider.objects.create(
        slug="openai", name="OpenAI", kind="openai", base_url="https://api.openai.com/v1"
    )
    for slug in ("small", "large"):
        model = Model.objects.create(slug=slug)
        model.current = ModelConfig.objects.create(
            model=model, version=1, provider=provider, upstream_model=slug, context_window=9, max_output_tokens=9,
            default_max_output_tokens=9, digest="0" * 64, created_by="test",
        )  # fmt: skip
        model.save()
    cast.support.cost_center = "=CC(1)"
    cast.support.save()
    keys = [issue(cast.support, name="+key").key, issue(cast.search, name="search").key]
    with tempfile.TemporaryDirectory() as directory:
        projects = [cast.support.pk, cast.search.pk]
        scribe = Scribe.at(Path(directory), projects=projects, keys=[key.pk for key in keys])
        scribe.traffic(160, since=DAY.timestamp(), seconds=2 * 86_400)
        Ingester(Path(directory)).run_once()
        scribe.writer.close()
    return cast


def read(wanted: Wanted) -> list[dict[str, str]]:
    content = b"".join(export(wanted).chunks).decode("utf-8-sig")
    assert content.count("\r\n") == content.count("\n") > 0
    return list(csv.DictReader(io.StringIO(content)))


def nano(rows: list[dict[str, str]], column: str = "cost_usd") -> int:
    return sum(int(Decimal(row[column]) * NANO) for row in rows)


def total(**filters: object) -> int:
    return sum(Call.objects.filter(**filters).values_list("cost_nano", flat=True))


def test_calls_are_all_there_once_oldest_first(
    traffic: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "CHUNK", 7)
    # Several calls of one instant lie across the ends of chunks.
    same = DAY + timedelta(hours=5)
    Call.objects.filter(started_at__gte=same, started_at__lt=same + timedelta(hours=9)).update(
        started_at=same
    )
    rows = read(Wanted("calls", SPAN, SpendFilters()))
    expected = Call.objects.order_by("started_at", "id")
    assert [row["call_id"] for row in rows] == [str(call.pk) for call in expected]
    assert [datetime.fromisoformat(row["started_at_utc"]) for row in rows] == [
        call.started_at for call in expected
    ]
    assert nano(rows) == total()
    mine = read(Wanted("calls", SPAN, SpendFilters(project_ids=[traffic.search.pk], model="large")))
    assert nano(mine) == total(project_id=traffic.search.pk, model="large")
    assert {row["project"] for row in mine} == {"search"}
    narrow = Span(DAY + timedelta(hours=5), DAY + timedelta(hours=6))
    assert len(read(Wanted("calls", narrow, SpendFilters()))) == Call.objects.filter(started_at=same).count()
    assert {row["cost_centre"] for row in rows} == {"'=CC(1)", ""}
    assert "'+key" in {row["service_key"] for row in rows}


def test_a_formula_behind_what_is_left_out_is_none() -> None:
    assert [cells.text(one) for one in ("\0=1+1", "\0\0@x", "a\0b", "\0", "")] == [
        "'=1+1",
        "'@x",
        "ab",
        "",
        "",
    ]


def test_whatever_callers_sent_stays_in_its_cell(
    traffic: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts are joined in the database: nothing in them may look like the end of a cell, a line or a formula."""
    monkeypatch.setattr(calls, "CHUNK", 9)
    odd = [
        "a,b",
        'say "so"',
        "two\r\nlines",
        "=1+1",
        "+1",
        "-1",
        "@x",
        "\tt",
        "\uff1dx",
        "\x1fx",
        "\x1f",
        "\u2028",
        ",",
        '"',
        "'=1",
        "%s",
    ]
    stored = list(Call.objects.order_by("started_at", "id"))
    for number, call in enumerate(stored[::3]):
        first, second = odd[number % len(odd)], odd[number * 7 % len(odd)]
        Call.objects.filter(pk=call.pk).update(
            session=first, request_id=second, endpoint=first[:40], finish_reason=second,
            tags=["plain", first], started_at=call.started_at.replace(microsecond=number % 2 * 250_000), cost_nano=-number,
        )  # fmt: skip
    content = b"".join(export(Wanted("calls", SPAN, SpendFilters())).chunks).decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(content, newline="")))
    expected = Call.objects.order_by("started_at", "id")
    assert len(rows) == len(expected) == len(stored)
    for row, call in zip(rows, expected, strict=True):
        for name in calls._TEXTS:
            assert row[name] == cells.text(getattr(call, name)), name
        for name in calls._NUMBERS:
            assert row[name] == str(getattr(call, name))
        assert row["tags"] == cells.text(" ".join(call.tags))
        assert (row["call_id"], Decimal(row["cost_usd"]) * NANO) == (str(call.pk), call.cost_nano)
        assert row["started_at_utc"] == call.started_at.isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize("group_by", ["project", "feature", "model", "key", "user", "cost_centre", "day"])
def test_spend_by_anything_adds_up(traffic: SimpleNamespace, group_by: str) -> None:
    rows = read(Wanted("spend", SPAN, SpendFilters(), group_by))
    assert nano(rows) == total()
    assert {row["day_utc"] for row in rows} == {"2024-05-16", "2024-05-17"}
    assert sum(int(row["calls"]) for row in rows) == 160


def test_focus_holds_what_the_specification_asks(traffic: SimpleNamespace) -> None:
    rows = read(Wanted("focus", SPAN, SpendFilters()))
    assert nano(rows, "BilledCost") == total()
    header = list(rows[0])
    assert set(focus.MANDATORY) <= set(header)
    assert len(focus.MANDATORY) == 21
    assert all(re.fullmatch(r"(x_)?[A-Z][A-Za-z]+", name) for name in header)
    nullable = {"ChargeClass", "PricingQuantity", "PricingUnit"}
    tokens: Counter[str] = Counter()
    for row in rows:
        assert all(row[name] for name in focus.MANDATORY if name not in nullable), row
        assert row["BilledCost"] == row["EffectiveCost"] == row["ListCost"] == row["ContractedCost"]
        for name in ("BilledCost", "PricingQuantity", "ConsumedQuantity"):
            assert re.fullmatch(r"-?\d+(\.\d+)?", row[name])
        for name in ("BillingPeriodStart", "BillingPeriodEnd", "ChargePeriodStart", "ChargePeriodEnd"):
            assert datetime.fromisoformat(row[name]).tzinfo is not None and row[name].endswith("Z")
        assert (
            row["BillingPeriodStart"]
            <= row["ChargePeriodStart"]
            < row["ChargePeriodEnd"]
            <= row["BillingPeriodEnd"]
        )
        assert (row["BillingPeriodStart"], row["BillingPeriodEnd"]) == (
            "2024-05-01T00:00:00Z",
            "2024-06-01T00:00:00Z",
        )
        assert row["ChargeCategory"] == "Usage" and row["ChargeClass"] == ""
        assert (row["ChargeFrequency"], row["PricingCategory"]) == ("Usage-Based", "Standard")
        assert (row["ServiceCategory"], row["ServiceSubcategory"]) == (
            "AI and Machine Learning",
            "Generative AI",
        )
        assert (row["BillingCurrency"], row["ProviderName"]) == ("USD", "OpenAI")
        assert isinstance(json.loads(row["Tags"]), dict)
        tokens[row["PricingUnit"]] += int(row["PricingQuantity"])
    assert tokens["Tokens"] == sum(call.input_tokens + call.output_tokens for call in Call.objects.all())


def test_what_cannot_be_exported_is_named(db: None) -> None:
    for wanted, param in (
        (Wanted("moods", SPAN, SpendFilters()), "what"),
        (Wanted("spend", SPAN, SpendFilters(), "mood"), "group_by"),
        (Wanted("spend", SPAN, SpendFilters(model="small"), "user"), "model"),
    ):
        with pytest.raises(InvalidRequest) as refused:
            export(wanted)
        assert refused.value.param == param


def test_names_of_files_say_what_they_hold(db: None) -> None:
    assert export(Wanted("calls", SPAN, SpendFilters())).filename == "calls_2024-05-16_to_2024-05-17.csv"
    one = Span(DAY, DAY + timedelta(days=1))
    assert (
        export(Wanted("spend", one, SpendFilters(), "cost_centre")).filename
        == "spend-by-cost-centre_2024-05-16.csv"
    )
    assert set(KINDS) == {"calls", "spend", "focus"}


@given(st.text(max_size=30))
def test_no_text_is_a_formula(value: str) -> None:
    cell = cells.text(value)
    assert cells.lines([[value and cell, "x"]]).decode() == f"{cells.cell(value)},x\r\n"
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert cell.removeprefix("'") == value.replace("\0", "").removeprefix("'") or "\0" in value


@given(st.integers(-(2**62), 2**62))
def test_amounts_are_exact(amount: int) -> None:
    assert int(Decimal(cells.usd(amount)) * NANO) == amount
