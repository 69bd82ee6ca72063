"""What providers say beside the ledger: files read whole or refused by line, days replaced, drifts found and told."""

from __future__ import annotations

import io
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.staticfiles import finders
from django.core import mail
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.db import DatabaseError, transaction

from llmops.audit.models import Event
from llmops.providers import services as providers
from llmops.providers.models import Provider
from llmops.usage import services
from llmops.usage.ingest.loop import Ingester
from llmops.usage.models import DriftAlert, ProviderFigure, ProviderImport
from llmops.usage.records import Tokens
from llmops.usage.selectors.reconciliation import drifts, percent
from llmops.usage.services import statements as statement_services
from llmops.usage.statements import BadStatement, read
from tests.cast import COMMAND, no_event, one_event, signed_in
from tests.usage.journals import Scribe, outcome

DAY = date(2026, 5, 16)
MIDNIGHT = datetime(2026, 5, 16, tzinfo=UTC)
#: As OpenAI's dashboard exports usage, with the columns that matter and some that do not.
USAGE = (
    "start_time,end_time,start_time_iso,project_id,num_model_requests,model,batch,input_tokens,output_tokens,input_cached_tokens\n"
    "1778889600,1778976000,2026-05-16T00:00:00+00:00,proj_a,2,gpt-4o-2024-08-06,false,200,40,10\n"
    "1778889600,1778976000,2026-05-16T00:00:00+00:00,proj_b,1,gpt-4o-2024-08-06,false,100,20,0\n"
    "1778976000,1779062400,2026-05-17T00:00:00+00:00,,,,,,,\n"
)
COSTS = (
    "start_time,end_time,start_time_iso,amount_value,amount_currency,line_item,project_id\n"
    '1778889600,1778976000,2026-05-16T00:00:00+00:00,0.0000200000000001,usd,"gpt-4o-2024-08-06, input",\n'
    '1778889600,1778976000,2026-05-16T00:00:00+00:00,0.00001,usd,"gpt-4o-2024-08-06, output",\n'
)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(statement_services, "send", lambda task, key: found.append(f"{task} {key}"))
    return found


@pytest.fixture
def openai(db: None) -> Provider:
    provider = providers.create_provider(
        COMMAND, slug="openai", kind="openai", base_url="https://api.openai.com/v1"
    )
    for slug, upstream in (("large", "gpt-4o-2024-08-06"), ("alias", "gpt-5")):
        providers.create_model(
            COMMAND, slug=slug, provider=provider, upstream_model=upstream, context_window=128_000,
            max_output_tokens=16_000, default_max_output_tokens=1_000, floats_reason="on purpose",
        )  # fmt: skip
    return provider


def ledger(directory: Path, *calls: tuple[int, int, int], model: str = "large", day: int = 0) -> None:
    """Calls of (input, output, nanodollars)."""
    scribe = Scribe.at(directory)
    for number, (asked, answered, cost) in enumerate(calls):
        at = MIDNIGHT + timedelta(days=day, hours=3, seconds=number)
        scribe.call(
            started=int(at.timestamp()) * 10**9,
            cost=cost,
            result=outcome(model=model, tokens=Tokens(input=asked, output=answered)),
        )
    Ingester(directory).run_once()


def test_openais_exports_are_read() -> None:
    usage = read(USAGE)
    assert [
        (one.day, one.model, one.requests, one.input_tokens, one.output_tokens) for one in usage.lines
    ] == [(DAY, "gpt-4o-2024-08-06", 3, 300, 60)]
    assert usage.days == [DAY, DAY + timedelta(days=1)]
    assert (usage.has_tokens, usage.has_cost, usage.lines[0].cached_input_tokens) == (True, False, 10)
    costs = read("\ufeff" + COSTS.replace(",", "\t").replace('"gpt-4o-2024-08-06\t', '"gpt-4o-2024-08-06, '))
    assert [(one.model, one.cost_nano) for one in costs.lines] == [("gpt-4o-2024-08-06", 30_000)]
    plain = read("date;model;input_tokens;output_tokens;cost_usd\n2026-05-16;m;1;2;$0.5\n")
    assert (plain.has_tokens, plain.has_cost, plain.lines[0].cost_nano) == (True, True, 500_000_000)


def page(*buckets: dict[str, Any], more: bool = False) -> str:
    return json.dumps({"object": "page", "data": list(buckets), "has_more": more, "next_page": None})


def test_pages_of_the_organisation_api_are_read() -> None:
    """As openai's SDK types them: ``organization.usage.completions.result`` and ``organization.costs.result``."""
    usage = {
        "object": "organization.usage.completions.result", "input_tokens": 300, "output_tokens": 60,
        "input_cached_tokens": 10, "num_model_requests": 3, "model": "gpt-4o-2024-08-06", "project_id": None,
    }  # fmt: skip
    first = {"object": "bucket", "start_time": 1778889600, "end_time": 1778976000, "results": [usage]}
    second = {"object": "bucket", "start_time": 1778976000, "end_time": 1779062400, "results": []}
    found = read(page(first, more=True) + "\n" + page(second))
    assert found == read(USAGE)
    amount = {"value": 0.06, "currency": "usd"}
    cost = {
        "object": "organization.costs.result",
        "amount": amount,
        "line_item": "gpt-5, input",
        "project_id": None,
    }
    costs = read(page({**first, "results": [cost, {**cost, "line_item": "gpt-5, output"}]}))
    assert [(one.model, one.cost_nano) for one in costs.lines] == [("gpt-5", 120_000_000)]
    assert (costs.has_tokens, costs.has_cost) == (False, True)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "not JSON"),
        ('{"object": "page"}', "page 1 has no list of buckets"),
        (page({"results": []}), "page 1, bucket 1: no start_time"),
        (page({"start_time": 1778889600, "results": [1]}), "results is not a list of objects"),
        (page({"start_time": 1778889600, "results": []}, more=True), "fetch them all"),
        (
            page({"start_time": 1778889600, "results": [{"model": "m", "input_tokens": "x"}]}),
            "'x' is not a number",
        ),
        (page({"start_time": 1778889600, "results": []}), "no column tells tokens or money"),
    ],
)
def test_pages_that_are_none_are_refused(text: str, told: str) -> None:
    with pytest.raises(BadStatement) as refusal:
        read(text)
    assert told in refusal.value.message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 1: no column tells the day"),
        ("date,model\n", "line 1: no column tells tokens or money"),
        ("date,model,input_tokens\n", "line 1: the file names no day"),
        (
            "date,model,input_tokens\n2026-05-16,m,12x\n",
            "line 2: input_tokens: '12x' is not a number of tokens",
        ),
        ("date,model,input_tokens\n2026-05-16,m,-1\n", "line 2: input_tokens: '-1' is not"),
        ("date,model,input_tokens\n16.5.2026,m,1\n", "line 2: '16.5.2026' is not a day"),
        ("date,model,input_tokens\n2026-05-16,m,1\n\n2026-05-16,,1\n", "line 4: tokens of no model"),
        ("date,model,cost_usd\n2026-05-16,m,NaN\n", "line 2: 'NaN' is not an amount"),
        ("date,model,cost_usd,currency\n2026-05-16,m,1,eur\n", "line 2: the currency is 'eur'"),
        ("date,model,cost_usd\n2026-05-16,m,1,2\n", "line 2: 4 values stand under 3 columns"),
        ('date,model,cost_usd\n2026-05-16,"m,1\n', "not CSV"),
    ],
)
def test_every_fault_is_told_by_line(text: str, told: str) -> None:
    with pytest.raises(BadStatement) as refusal:
        read(text)
    assert told in refusal.value.message


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(BadStatement) as refusal:
        read("date,model,input_tokens,output_tokens\nx,m,1,1\n2026-05-16,m,y,z\n")
    assert [line for line, _ in refusal.value.problems] == [2, 3, 3]


def test_what_agrees_raises_nothing_and_a_second_import_changes_nothing(
    tmp_path: Path, openai: Provider, sent: list[str]
) -> None:
    ledger(tmp_path, (200, 40, 20_000), (100, 20, 10_000))
    with one_event("provider_statement.imported") as seen:
        made = services.import_statement(COMMAND, provider=openai, text=USAGE, file_name="may.csv")
    assert seen.event.after["days"] == "2026-05-16 to 2026-05-17" and seen.event.after["drifts"] == 0
    services.import_statement(COMMAND, provider=openai, text=COSTS)
    with no_event():
        again = services.import_statement(COMMAND, provider=openai, text=COSTS)
    assert again.pk != made.pk and ProviderImport.objects.count() == 2
    [drift] = drifts("openai", DAY, DAY + timedelta(days=5))
    assert (drift.ledger_tokens, drift.stated_tokens, drift.ledger_nano, drift.stated_nano) == (
        360,
        360,
        30_000,
        30_000,
    )
    assert (drift.token_percent, drift.cost_percent, drift.drifts, drift.slugs) == (0, 0, False, ["large"])
    assert sent == [] and not DriftAlert.objects.exists()


def test_a_day_that_is_imported_again_is_replaced_and_the_first_stays_on_the_record(
    tmp_path: Path, openai: Provider, sent: list[str]
) -> None:
    ledger(tmp_path, (200, 40, 20_000), (100, 20, 10_000))
    first = services.import_statement(COMMAND, provider=openai, text=USAGE.replace(",200,40,", ",900,40,"))
    assert sent == [f"usage.tell_of_drift {first.pk}"]
    [alert] = DriftAlert.objects.all()
    assert (alert.what, alert.day, alert.ledger, alert.stated) == ("tokens", DAY, 360, 1060)
    services.import_statement(COMMAND, provider=openai, text=USAGE)
    [drift] = drifts("openai", DAY, DAY)
    assert drift.stated_tokens == 360 and not drift.drifts
    assert ProviderFigure.objects.filter(statement=first).count() == 2
    # An import of other days leaves this one alone.
    services.import_statement(
        COMMAND, provider=openai, text="date,model,input_tokens,output_tokens\n2026-05-18,gpt-5,1,1\n"
    )
    assert drifts("openai", DAY, DAY)[0].stated_tokens == 360
    for change in (
        lambda: ProviderFigure.objects.filter(statement=first).update(input_tokens=1),
        lambda: ProviderImport.objects.filter(pk=first.pk).delete(),
    ):
        with pytest.raises(DatabaseError), transaction.atomic():
            change()


def test_names_meet_whichever_side_is_dated_and_strangers_are_seen(
    tmp_path: Path, openai: Provider, sent: list[str]
) -> None:
    ledger(tmp_path, (100, 10, 5), model="alias")
    ledger(tmp_path / "2", (7, 1, 5))
    stated = (
        "date,model,input_tokens,output_tokens\n2026-05-16,gpt-5-2025-08-07,100,10\n2026-05-16,gpt-9,5,5\n"
    )
    services.import_statement(COMMAND, provider=openai, text=stated)
    found = {drift.model: drift for drift in drifts("openai", DAY, DAY)}
    assert found["gpt-5"].stated_tokens == 110 and not found["gpt-5"].drifts
    # Called past the console, and never billed.
    assert (found["gpt-9"].ledger_tokens, found["gpt-9"].token_percent) == (0, -100.0)
    assert (found["gpt-4o-2024-08-06"].stated_tokens, found["gpt-4o-2024-08-06"].token_percent) == (0, 100.0)
    assert DriftAlert.objects.count() == 2


def test_costs_without_a_model_stand_beside_the_whole_day(
    tmp_path: Path, openai: Provider, sent: list[str]
) -> None:
    ledger(tmp_path, (100, 10, 1_000_000_000))
    ledger(tmp_path / "2", (100, 10, 500_000_000), model="alias")
    services.import_statement(
        COMMAND,
        provider=openai,
        text="start_time,amount_value,amount_currency,line_item\n1778889600,1.45,usd,\n",
    )
    whole = next(drift for drift in drifts("openai", DAY, DAY) if not drift.model)
    assert (whole.ledger_nano, whole.stated_nano) == (1_500_000_000, 1_450_000_000)
    [alert] = DriftAlert.objects.all()
    assert (alert.model, alert.what) == ("", "cost")


@pytest.mark.parametrize(
    ("have", "stated", "wanted"),
    [(100, None, None), (0, 0, 0.0), (5, 0, 100.0), (101, 100, 1.0), (99, 100, -1.0), (-50, -100, 50.0)],
)
def test_drift_is_told_against_what_the_provider_says(
    have: int, stated: int | None, wanted: float | None
) -> None:
    assert percent(have, stated) == wanted


def test_days_to_come_are_refused_and_today_raises_no_alert(openai: Provider, sent: list[str]) -> None:
    today = datetime.now(UTC).date()
    with no_event(), pytest.raises(Exception, match="yet to come"):
        services.import_statement(
            COMMAND, provider=openai,
            text=f"date,model,input_tokens\n{today + timedelta(days=2)},m,1\n",
        )  # fmt: skip
    services.import_statement(COMMAND, provider=openai, text=f"date,model,input_tokens\n{today},m,1\n")
    assert not DriftAlert.objects.exists() and sent == []


@pytest.mark.any_engine
def test_the_page_does_not_judge_a_day_that_is_not_over(
    tmp_path: Path, openai: Provider, cast: SimpleNamespace, sent: list[str]
) -> None:
    alice = signed_in(cast.alice)
    today = datetime.now(UTC).date()
    said = f"{today} is not over: not judged yet"

    def take(text: str) -> str:
        file = SimpleUploadedFile("own.csv", text.encode())
        return alice.post(
            "/reconciliation/", {"provider": "openai", "file": file}, follow=True
        ).content.decode()

    alone = take(f"date,model,input_tokens\n{today},m,1\n")
    assert said in alone and "drifts by" not in alone and "differ" not in alone
    assert f'<strong id="headline">{said}</strong>' in alone and 'class="drift"' not in alone
    yesterday = today - timedelta(days=1)
    both = take(f"date,model,input_tokens,cost_usd\n{yesterday},m,1,2\n{today},m,1,2\n")
    # Tokens and money of one day: as many figures as there are alerts.
    assert "2 figures drift by more than 1 % on the days that are over" in both
    assert "2 of 2 figures differ by more than 1 % over 1 day" in both and said in both
    only = alice.get("/reconciliation/?provider=openai&only=drift").content.decode()
    assert f'<span class="nowrap">{yesterday}</span>' in only and "not judged</span>" not in only


def test_a_day_that_was_not_over_is_judged_when_the_same_file_comes_again(
    openai: Provider, cast: SimpleNamespace, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"date,model,input_tokens\n{DAY},m,1\n"
    with monkeypatch.context() as then:
        then.setattr(statement_services, "database_now", lambda: MIDNIGHT + timedelta(hours=20))
        early = services.import_statement(COMMAND, provider=openai, text=text)
        assert services.import_statement(COMMAND, provider=openai, text=text) == early
    query = f"/reconciliation/?provider=openai&from={DAY}&to={DAY}"
    alice = signed_in(cast.alice)
    said = f"{DAY} was not over when it was imported: not judged, import that day again"
    assert said in alice.get(query).content.decode() and not DriftAlert.objects.exists()
    late = services.import_statement(COMMAND, provider=openai, text=text)
    assert late != early and DriftAlert.objects.get().statement_id == late.pk
    assert "1 of 1 figure differs" in alice.get(query).content.decode()
    assert services.import_statement(COMMAND, provider=openai, text=text) == late


@pytest.mark.any_engine
def test_the_page_says_what_a_file_looks_like_and_its_sample_is_read(
    openai: Provider, cast: SimpleNamespace, sent: list[str]
) -> None:
    page = signed_in(cast.alice).get("/reconciliation/").content.decode()
    sample = finders.find("console/reconciliation-sample.csv")
    assert sample and "reconciliation-sample" in page
    text = Path(sample).read_text()
    assert all(f"<code>{column}</code>" in page for column in text.splitlines()[0].split(","))
    statement = read(text)
    assert statement.has_tokens and statement.has_cost and all(line.requests for line in statement.lines)


def test_requests_that_a_file_does_not_tell_are_not_zero(openai: Provider, sent: list[str]) -> None:
    text = f"date,model,input_tokens\n{DAY},gpt-4o-2024-08-06,10\n"
    services.import_statement(COMMAND, provider=openai, text=text)
    assert [drift.stated_requests for drift in drifts("openai", DAY, DAY)] == [None]
    text = f"date,model,input_tokens,requests\n{DAY},gpt-4o-2024-08-06,10,3\n{DAY},gpt-5,0,0\n"
    services.import_statement(COMMAND, provider=openai, text=text)
    assert [drift.stated_requests for drift in drifts("openai", DAY, DAY)] == [3]


def test_bookkeepers_are_told_by_mail(
    tmp_path: Path, openai: Provider, cast: SimpleNamespace, sent: list[str], settings: Any
) -> None:
    cast.alice.email = "alice@example.com"
    cast.alice.save()
    cast.carla.email = "carla@example.com"
    cast.carla.save()
    made = services.import_statement(COMMAND, provider=openai, text=USAGE, file_name="may.csv")
    assert services.tell_of_drift(made.pk) == 1
    [message] = mail.outbox
    # Carla does the books of one project only.
    assert message.to == ["alice@example.com"] and message.subject == "openai: 1 drifts from the ledger"
    assert (
        "2026-05-16 gpt-4o-2024-08-06: 0 tokens in the ledger, 360 tokens at the provider (-100.00 %)"
        in message.body
    )
    assert f"{settings.PUBLIC_URL}/reconciliation/?provider=openai" in message.body


def test_the_page_takes_an_export_over_and_leads_to_the_calls(
    tmp_path: Path, openai: Provider, cast: SimpleNamespace, sent: list[str]
) -> None:
    ledger(tmp_path, (200, 40, 20_000))
    alice = signed_in(cast.alice)
    empty = alice.get("/reconciliation/?provider=openai").content.decode()
    assert "Nothing to compare yet" in empty and "Import an export" in empty
    with one_event("provider_statement.imported"):
        answer = alice.post(
            "/reconciliation/",
            {"provider": "openai", "file": SimpleUploadedFile("may.csv", USAGE.encode())},
            follow=True,
        )
    assert "1 figure drifts by more than 1 %" in answer.content.decode()
    page = alice.get("/reconciliation/?provider=openai&from=2026-05-01&to=2026-05-31").content.decode()
    assert "-33.33 %" in page and "may.csv" in page and "1 of 1 figure differs" in page
    link = next(part for part in page.split('"') if part.startswith("/calls/?from=2026-05-16"))
    calls = alice.get(link.replace("&amp;", "&")).content.decode()
    assert calls.count('href="/calls/0') == 1 or "1 call" in calls
    before = Event.objects.count()
    bad = alice.post(
        "/reconciliation/",
        {
            "provider": "openai",
            "file": SimpleUploadedFile("x.csv", b"date,model,input_tokens\nx,m,1\n2026-05-16,m,y\n"),
        },
    )
    assert bad.status_code == 400
    told = bad.content.decode()
    assert "line 2: &#x27;x&#x27; is not a day" in told and "line 3: input_tokens" in told
    for wrong in ({"provider": "openai"}, {"provider": "nobody", "file": SimpleUploadedFile("a.csv", b"x")}):
        assert alice.post("/reconciliation/", wrong).status_code == 400
    assert (
        alice.post(
            "/reconciliation/", {"provider": "openai", "file": SimpleUploadedFile("a.csv", b"\xff\xfe")}
        ).status_code
        == 400
    )
    assert Event.objects.count() == before and ProviderImport.objects.count() == 1
    for query in (
        "from=x",
        "from=2026-06-01&to=2026-05-01",
        "from=2020-01-01&to=2026-05-01",
        "provider=nobody",
    ):
        assert alice.get(f"/reconciliation/?{query}").status_code == 200


@pytest.mark.any_engine
def test_invoices_of_the_whole_organisation_are_not_for_one_project(
    openai: Provider, cast: SimpleNamespace
) -> None:
    for name in ("bob", "carla", "dan", "charlie", "rita"):
        assert signed_in(getattr(cast, name)).get("/reconciliation/").status_code == 403
        assert signed_in(getattr(cast, name)).post("/reconciliation/", {}).status_code == 403


def test_the_command_imports_and_tells(tmp_path: Path, openai: Provider, sent: list[str]) -> None:
    path, out = tmp_path / "may.csv", io.StringIO()
    path.write_text(USAGE)
    with one_event("provider_statement.imported"):
        call_command("usage", "import", "--provider", "openai", "-f", str(path), stdout=out)
    assert "1 drifts above 1 %" in out.getvalue() and "0 tokens in the ledger" in out.getvalue()
    path.write_text("date,model\n")
    for arguments, told in (
        (("openai", str(path)), "line 1"),
        (("nobody", str(path)), "no provider"),
        (("openai", "/absent"), "No such"),
    ):
        with no_event(), pytest.raises(CommandError, match=told):
            call_command("usage", "import", "--provider", arguments[0], "-f", arguments[1])


@pytest.mark.parametrize(
    "text",
    [
        # A number of a billion digits would keep a process for hours.
        "date,model,input_tokens\n2026-05-16,m,1e999999999\n",
        "date,model,input_tokens\n2026-05-16,m,sNaN\n",
        "date,model,cost_usd\n2026-05-16,m,1e999999\n",
        "date,model,cost_usd\n2026-05-16,m,-1e999999999\n",
        "date,model,cost_usd\n2026-05-16,m,sNaN\n",
        # Each can be kept, together they cannot.
        "date,model,input_tokens\n" + "2026-05-16,m,1000000000000000\n" * 2,
        "date,model,cost_usd\n" + "2026-05-16,m,999999999\n" * 2,
        "date,model,cost_usd\n2026-05-16,m\0x,1\n",
        '{"data":[{"start_time":1778889600,"results":[{"model":"\\u0000","input_tokens":1}]}]}',
        '{"data":[{"start_time":1778889600,"results":[{"model":"\\ud800","input_tokens":1}]}]}',
        '{"data":[{"start_time":1778889600,"results":[{"model":"m","input_tokens":1e99999999}]}]}',
        '{"data":[{"start_time":99999999999999999999999,"results":[{"model":"m","input_tokens":1}]}]}',
    ],
)
def test_files_made_to_break_it_are_refused_by_line(
    openai: Provider, sent: list[str], cast: SimpleNamespace, text: str
) -> None:
    with no_event(), pytest.raises(BadStatement, match=r"line [23]"):
        services.import_statement(COMMAND, provider=openai, text=text)
    client = signed_in(cast.alice)
    file = SimpleUploadedFile("usage.csv", text.encode(), content_type="text/csv")
    answer = client.post("/reconciliation/", {"provider": "openai", "file": file})
    assert answer.status_code == 400 and not ProviderImport.objects.exists()


def test_what_nobody_uses_leads_nowhere(openai: Provider, sent: list[str]) -> None:
    """The most that can be said, for days as far off as there are, with credits: taken over as it stands."""
    text = (
        "date,model,input_tokens,output_tokens,cost_usd\n"
        "0001-01-01,m,1000000000000000,1000000000000000,1000000000\n"
        "2026-05-16,=cmd|' /C calc'!A0,1,1,-1000000000\n"
    )
    made = services.import_statement(COMMAND, provider=openai, text=text)
    assert ProviderFigure.objects.filter(statement=made).count() == 2
    assert DriftAlert.objects.filter(statement=made).count() == 4
