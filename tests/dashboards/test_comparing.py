"""Two calls side by side: where they part, for those who may see both, and what they said for those who may read it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from django.test import Client

from llmops.audit.models import Event
from llmops.dashboards.comparing.sides import change_between
from llmops.usage.models import Call
from tests.dashboards import seed
from tests.dashboards.conftest import signed_in
from tests.dashboards.reading import text_of
from tests.usage.texts_kept import keep_texts, open_project

pytestmark = pytest.mark.django_db


@pytest.fixture
def two(stage: SimpleNamespace) -> list[Call]:
    now = datetime.now(UTC)
    return seed.store(
        [
            seed.make_call(stage, now - timedelta(minutes=2), prompt_name="triage", prompt_version=3),
            seed.failed_over_twice(stage, now - timedelta(minutes=1), prompt_name="triage", prompt_version=4),
        ]
    )


def compared(client: Client, *names: object, **how: object) -> object:
    return client.get("/calls/compare/", {"call": [str(one) for one in names]}, **how)


def lines(page) -> dict[str, tuple[tuple[str, str], bool]]:
    return {
        line.name: (line.of, line.differs) for section in page.context["sections"] for line in section.lines
    }


@pytest.mark.any_engine
def test_differences_stand_out(alice: Client, two: list[Call]):
    page = compared(alice, two[0].pk, two[1].pk)
    assert page.status_code == 200
    found = lines(page)
    assert found["Prompt"] == (("triage version 3", "triage version 4"), True)
    assert found["Route"] == (("chat", "chat"), False)
    assert found["Model"] == (("gpt-4o-2024-08-06", "sim-large"), True)
    assert found["Attempts"] == (("1", "4"), True)
    assert found["Attempt 4"][0][0] == "–" and "sim-large" in found["Attempt 4"][0][1]
    assert "Until the first token" in found and found["Cost"][1]
    assert page.content.count(b'<tr role="row" class="differs">') == page.context["apart"] > 5
    assert "the same call" not in text_of(page)


@pytest.mark.any_engine
def test_the_address_says_which(alice: Client, two: list[Call]):
    page = compared(alice, two[0].pk, two[1].pk)
    assert alice.get(page.context["here"]).context["apart"] == page.context["apart"]
    swapped = alice.get(page.context["swapped"])
    assert [side["call"].pk for side in swapped.context["sides"]] == [two[1].pk, two[0].pk]
    # By whatever id somebody has at hand.
    assert compared(alice, two[0].request_id, two[1].request_id).context["apart"] == page.context["apart"]
    assert "Both are the same call" in text_of(compared(alice, two[0].pk, two[0].request_id))


@pytest.mark.any_engine
def test_without_two_calls_it_asks_which(alice: Client, two: list[Call]):
    assert alice.get("/calls/compare/").status_code == 200
    page = compared(alice, two[0].pk, "")
    assert page.status_code == 200 and str(two[0].pk) in page.content.decode()
    missing = compared(alice, two[0].pk, "req_nowhere")
    assert missing.status_code == 404 and "There is no call" in text_of(missing)
    three = compared(alice, two[0].pk, two[1].pk, two[0].pk)
    assert three.status_code == 404 and "3 were chosen" in text_of(three)


@pytest.mark.any_engine
def test_a_call_of_another_project_is_none(
    bob: Client, charlie: Client, stage: SimpleNamespace, two: list[Call]
):
    [foreign] = seed.store([seed.make_call(stage, datetime.now(UTC), project=stage.search)])
    assert compared(bob, two[0].pk, two[1].pk).status_code == 200
    for name in (foreign.pk, foreign.request_id):
        answer = compared(bob, two[0].pk, name)
        assert answer.status_code == 404 and "There is no call" in text_of(answer)
    assert compared(charlie, two[0].pk, two[1].pk).status_code == 403


def test_texts_are_read_on_the_record_word_by_word(bob: Client, stage: SimpleNamespace, two: list[Call]):
    open_project(stage.support)
    keep_texts(two[0], "Is <b>this</b> good?", "It is very good", request={"messages": [], "temperature": 0})
    keep_texts(two[1], "Is <b>this</b> good?", "It is bad", request={"messages": [], "temperature": 1})
    address = compared(bob, two[0].pk, two[1].pk).context["here"]
    assert not Event.objects.filter(action="usage.texts_read").exists()
    page = bob.post(address)
    assert page.status_code == 200
    html = page.content.decode()
    assert '<del class="gone">very good</del>' in html and '<ins class="new">bad</ins>' in html
    assert "<b>this</b>" not in html and "the same in both" in html
    assert lines(page)["temperature"] == (("0", "1"), True)
    [event] = Event.objects.filter(action="usage.texts_read")
    assert event.after == {"for": "compared", "calls": [str(one.pk) for one in two]}


@pytest.mark.any_engine
def test_one_whose_texts_are_kept_beside_one_whose_are_not(
    bob: Client, stage: SimpleNamespace, two: list[Call]
):
    open_project(stage.support)
    keep_texts(two[1])
    page = bob.post(compared(bob, two[0].pk, two[1].pk).context["here"])
    assert "The texts of the first call are not kept." in text_of(page)
    [event] = Event.objects.filter(action="usage.texts_read")
    assert event.object_id == str(two[1].pk)


@pytest.mark.any_engine
def test_who_may_not_read_sees_the_figures_alone(stage: SimpleNamespace, two: list[Call]):
    open_project(stage.support)
    keep_texts(two[0], "secretly")
    keep_texts(two[1], "secretly")
    finance = signed_in(seed.person("frida", ("finance", stage.support)))
    page = compared(finance, two[0].pk, two[1].pk)
    assert page.status_code == 200 and "for operators and administrators" in text_of(page)
    assert finance.post(page.context["here"]).status_code == 403
    assert finance.post(f"/calls/{two[0].pk}/").status_code == 403
    assert not Event.objects.filter(action="usage.texts_read").exists()


@pytest.mark.any_engine
def test_the_story_reads_what_was_said(bob: Client, stage: SimpleNamespace, two: list[Call]):
    address = f"/calls/{two[0].pk}/"
    assert "keeps no texts" in text_of(bob.get(address))
    assert bob.post(address).status_code == 404
    open_project(stage.support)
    keep_texts(two[0], "Say <i>hello</i>", "Hello you", cut=True, changed=True)
    closed = bob.get(address)
    assert "Hello you" not in closed.content.decode() and "Replay this call" in text_of(closed)
    opened = text_of(bob.post(address))
    assert "Say &lt;i&gt;hello&lt;/i&gt;" in opened and "Hello you" in opened
    assert "without its beginning" in opened and "taken out of it" in opened
    assert Event.objects.filter(action="usage.texts_read", object_id=str(two[0].pk)).count() == 1


def test_the_list_offers_to_compare(alice: Client, two: list[Call]):
    page = alice.get("/calls/").content.decode()
    assert page.count('form="compare-two"') == 2 and 'id="compare-two"' in page


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [(0, 5, ""), (None, 5, ""), (5, None, ""), (100, 100, ""), (100, 112, "+12 %"), (100, 60, "−40 %"), (10, 32, "×3.2"),
     (1000, 1001, "")],
)  # fmt: skip
def test_changes_in_words(first, second, told):
    assert change_between(first, second) == told
