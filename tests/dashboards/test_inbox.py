"""The reviewers' inbox: what is shown is what is decided about, and nobody sees or does what is not theirs."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from llmops.approvals.models import Request
from llmops.dashboards.inbox import listing, reading
from llmops.dashboards.inbox.showing import arguments_of, exact
from llmops.tools import services
from llmops.tools.models import Action
from tests.cast import cast, no_event, one_event, person, quick_passwords, signed_in  # noqa: F401
from tests.tools.making import DONE, FUNCTIONS, a_service, a_tool, decide, proposed, state_of
from tests.trying import tries

DECIDE = "/inbox/decide/"


@pytest.fixture(autouse=True)
def functions(settings: Any) -> None:
    DONE.clear()
    settings.TOOL_FUNCTIONS = FUNCTIONS


@pytest.fixture
def support(cast: SimpleNamespace) -> SimpleNamespace:  # noqa: F811
    a_tool(cast.support)
    cast.agent = a_service(cast.support)
    cast.reviewer = signed_in(cast.rita)
    return cast


def sent(*actions: Action, what: str = "approve", **known: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "what": what,
        "reason": "so",
        "request": [str(one.request_id) for one in actions],
    }
    for one in actions:
        assert one.request is not None
        found[f"seen_{one.request_id}"] = one.request.digest
    return {**found, **known}


def text_of(answer: Any) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", answer.content.decode()).split())


def test_a_reviewer_reads_what_will_run_and_approves_it(support: SimpleNamespace) -> None:
    action = proposed(
        support.agent, support.support, 1200, reason="It broke.\nTwice.", run="run-1", behalf_of="bob"
    )
    earlier = proposed(support.agent, support.support, 20, run="run-1")
    listed = text_of(support.reviewer.get("/inbox/"))
    assert "Refund 1200 USD to Ada" in listed and "irreversible" in listed and "0 of 2 agreed" in listed
    shown = text_of(support.reviewer.get(f"/inbox/{action.request_id}/"))
    for told in ("amount 1200", "customer Ada", "amount &gt; 1000", "It broke.", "agent", "On behalf of bob", earlier.says, "run-1",
                 "left", "0 of 2 agreed", "its function count"):  # fmt: skip
        assert told in shown, (told, shown)
    with one_event("tool.action_approved"):
        answer = support.reviewer.post(DECIDE, sent(action))
    assert answer.status_code == 302 and answer["Location"] == f"/inbox/{action.request_id}/"
    assert "1 of 2 agreed" in text_of(support.reviewer.get(answer["Location"]))
    signed_in(support.alice).post(DECIDE, sent(action))
    assert state_of(action) == Action.APPROVED


@pytest.mark.any_engine
def test_what_was_not_shown_is_not_approved(support: SimpleNamespace) -> None:
    action = proposed(support.agent, support.support)
    for changed in ({f"seen_{action.request_id}": "0" * 64}, {f"seen_{action.request_id}": ""}):
        with no_event():
            answer = support.reviewer.post(DECIDE, {**sent(action), **changed})
        assert answer.status_code == 409 and "not what you were shown" in text_of(answer)
    for body in ({"what": "approve"}, {"request": "x", "what": "approve"}, sent(action, what="explode"), {}):
        with no_event():
            assert support.reviewer.post(DECIDE, body).status_code in (400, 404)
    assert state_of(action) == Action.WAITING


@pytest.mark.any_engine
def test_a_rejection_says_why_and_keeps_what_was_typed(support: SimpleNamespace) -> None:
    action = proposed(support.agent, support.support)
    with no_event():
        answer = support.reviewer.post(DECIDE, sent(action, what="reject", reason=" "))
    assert answer.status_code == 400 and "Say why" in text_of(answer)
    with one_event("tool.action_rejected"):
        support.reviewer.post(DECIDE, sent(action, what="reject", reason="not this one"))
    told = text_of(support.reviewer.get(f"/inbox/{action.request_id}/"))
    assert "Rejected" in told and "not this one" in told and 'name="what"' not in told
    assert state_of(action) == Action.REJECTED


@pytest.mark.any_engine
def test_an_edit_shows_what_it_changes_and_is_for_another_person(support: SimpleNamespace) -> None:
    action = proposed(support.agent, support.support, 500)
    body = sent(action, what="edit", arguments=json.dumps({"amount": 200, "customer": "Ada"}))
    with one_event("tool.action_requested"):
        answer = support.reviewer.post(DECIDE, body)
    new = Action.objects.select_related("request").get(supersedes=action)
    assert answer["Location"] == f"/inbox/{new.request_id}/"
    shown = support.reviewer.get(answer["Location"]).content.decode()
    assert "<del>500</del>" in shown and "<ins>200</ins>" in shown and "<ins>Ada</ins>" not in shown
    assert "another person must decide" in text_of(support.reviewer.get(answer["Location"]))
    assert "Replaced by another" in text_of(support.reviewer.get(f"/inbox/{action.request_id}/"))
    with no_event():
        assert support.reviewer.post(DECIDE, sent(new)).status_code == 403
    signed_in(support.alice).post(DECIDE, sent(new))
    assert state_of(new) == Action.APPROVED
    for wrong, told in (
        ("{", "This is not JSON"),
        ("[]", "An object is needed"),
        ('{"amount": 1, "amount": 2, "customer": "A"}', "a member is given twice"),
        ('{"amount": "x", "customer": "A"}', "rguments.amount: "),
    ):
        other = proposed(a_service(support.support, name=f"n{len(wrong)}"), support.support)
        with no_event():
            answer = support.reviewer.post(DECIDE, sent(other, what="edit", arguments=wrong))
        assert answer.status_code == 400 and told in text_of(answer), wrong


@pytest.mark.any_engine
def test_only_the_same_tool_and_class_are_decided_together(support: SimpleNamespace) -> None:
    a_tool(support.support, "other")
    first, second, third = (proposed(support.agent, support.support, 500 + n) for n in range(3))
    bigger = proposed(support.agent, support.support, 5000)
    other = proposed(support.agent, support.support, 500, tool="other")
    page = support.reviewer.get("/inbox/?tool=refund&risk=destructive").content.decode()
    assert page.count('type="checkbox" name="request"') == 3 and "Approve chosen" in page
    assert "Approve chosen" not in support.reviewer.get("/inbox/?tool=refund").content.decode()
    for mixed in ((first, bigger), (first, other)):
        with no_event():
            assert support.reviewer.post(DECIDE, sent(*mixed, together="1")).status_code == 400
    answer = support.reviewer.post(
        DECIDE, sent(first, second, together="1", tool="refund", risk="destructive")
    )
    assert answer.status_code == 302
    assert [state_of(one) for one in (first, second, third)] == ["approved", "approved", "waiting"]
    # One of them was decided meanwhile: the others are, and it is said.
    decide(support.alice, third, approves=False)
    fourth = proposed(support.agent, support.support, 504)
    answer = support.reviewer.post(
        DECIDE, sent(third, fourth, together="1", tool="refund", risk="destructive")
    )
    assert (
        answer.status_code == 409
        and "This is over" in text_of(answer)
        and state_of(fourth) == Action.APPROVED
    )


@pytest.mark.any_engine
def test_who_sees_and_decides(support: SimpleNamespace) -> None:
    action = proposed(support.agent, support.support)
    stranger = signed_in(person("zoe", ("reviewer", support.search)))
    for client in (stranger, signed_in(support.charlie)):
        assert "Refund" not in text_of(client.get("/inbox/"))
        for path in (
            f"/inbox/{action.request_id}/",
            f"/inbox/{action.request_id}/live/",
            f"/inbox/unknown/{action.pk}/",
        ):
            assert client.get(path).status_code == 404
        with no_event():
            assert client.post(DECIDE, sent(action)).status_code == 404
    # Whoever minds the money has no use for what customers wrote: a request whose arguments are for fewer eyes is not there.
    carla = signed_in(support.carla)
    assert "Refund" not in text_of(carla.get("/inbox/"))
    assert "refund" not in text_of(carla.get("/inbox/"))
    for path in (f"/inbox/{action.request_id}/", f"/api/v1/approvals/{action.request_id}/",
                 f"/admin/approvals/request/{action.request_id}/change/", f"/api/v1/actions/{action.pk}/"):  # fmt: skip
        assert carla.get(path).status_code in (302, 403, 404), path
    assert carla.get("/api/v1/approvals/").json()["results"] == []
    assert signed_in(support.dan).get(f"/api/v1/approvals/{action.request_id}/").status_code == 200
    with no_event():
        assert carla.post(DECIDE, sent(action)).status_code == 404
        rejects = f"/api/v1/approvals/{action.request_id}/reject/"
        body = json.dumps({"digest": "x", "reason": "y"})
        assert carla.post(rejects, body, content_type="application/json").status_code == 404
    for who in (support.bob, support.dan):
        shown = text_of(signed_in(who).get(f"/inbox/{action.request_id}/"))
        assert "Another person must decide" in shown or "You may not decide" in shown
        client = signed_in(who)
        with no_event():
            assert client.post(DECIDE, sent(action)).status_code == 403
    assert signed_in(person("nobody")).get("/inbox/").status_code == 403


def test_a_person_finds_out_about_an_unknown_outcome(support: SimpleNamespace) -> None:
    action = proposed(support.agent, support.support)
    decide(support.rita, action)
    assert services.claim(action.pk) is not None
    services.settle_crashed(timezone.now() + timezone.timedelta(hours=1))
    listed = text_of(support.reviewer.get("/inbox/?show=unknown"))
    assert "Refund 500 USD to Ada" in listed and "Outcome unknown" in listed
    shown = text_of(support.reviewer.get(f"/inbox/unknown/{action.pk}/"))
    assert str(action.pk) in shown and "It did not happen" in shown
    assert "It did not happen" not in text_of(signed_in(support.bob).get(f"/inbox/unknown/{action.pk}/"))
    for who, body, status in (
        (support.rita, {"reason": ""}, 400), (support.bob, {"reason": "so"}, 403), (support.charlie, {"reason": "so"}, 404),
    ):  # fmt: skip
        client = signed_in(who)
        with no_event():
            answer = client.post(DECIDE, {"what": "happened", "action": str(action.pk), **body})
        assert answer.status_code == status
    with one_event("tool.action_resolved"):
        support.reviewer.post(
            DECIDE, {"what": "did_not", "action": str(action.pk), "reason": "the ledger has none"}
        )
    assert state_of(action) == Action.FAILED and not DONE


def test_the_page_follows(support: SimpleNamespace) -> None:
    action = proposed(support.agent, support.support)
    for path in ("/inbox/live/", f"/inbox/{action.request_id}/live/"):
        first = support.reviewer.get(path).json()
        assert support.reviewer.get(path, {"marker": first["marker"]}).status_code == 204
    marks = {
        path: support.reviewer.get(path).json()["marker"]
        for path in ("/inbox/live/", f"/inbox/{action.request_id}/live/")
    }
    decide(support.alice, action)
    for path, mark in marks.items():
        told = support.reviewer.get(path, {"marker": mark})
        assert told.status_code == 200 and told.json()["marker"] != mark
    assert "Nothing waits for you" in support.reviewer.get("/inbox/live/").json()["parts"]["inbox"]


def test_ten_thousand_are_a_page_and_a_few_queries(
    support: SimpleNamespace, django_assert_max_num_queries: Any
) -> None:
    for number in range(60):
        proposed(support.agent, support.support, 500 + number)
    with django_assert_max_num_queries(20):
        page = support.reviewer.get("/inbox/").content.decode()
    assert page.count('class="cover"') == 50
    Request.objects.update(state=Request.REJECTED, closed_at=timezone.now())
    first = support.reviewer.get("/inbox/?show=decided").content.decode()
    older = re.search(r'href="(\?[^"]*before=[^"]*)"', first)
    assert older is not None
    assert (
        support.reviewer.get("/inbox/" + older[1].replace("&amp;", "&"))
        .content.decode()
        .count('class="cover"')
        == 10
    )


def test_a_list_that_ends_before_all_of_it_says_so(
    support: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "PAGE", 3)
    monkeypatch.setattr(reading, "PAGE", 3)
    made = [proposed(support.agent, support.support, 500 + number) for number in range(5)]

    def last_line(show: str) -> str:
        """What stands below the rows; the live part says the same."""
        page = support.reviewer.get(f"/inbox/?show={show}").content.decode()
        part = support.reviewer.get(f"/inbox/live/?show={show}").json()["parts"]["inbox"]
        found = [re.findall(r'<nav class="pages".*?</nav>', text, re.S) for text in (page, part)]
        assert found[0] == found[1] and len(found[0]) <= 1
        return " ".join(re.sub(r"<[^>]+>", " ", "".join(found[0])).split())

    assert (
        last_line("waiting")
        == "3 of 5 are listed, those that run out first. Filter, or decide some, to see the others."
    )
    for action in made[:2]:
        decide(support.alice, action)
    # As many as a page holds, and no more: nothing is left out, so nothing is said.
    assert last_line("waiting") == "" and last_line("unknown") == "" and last_line("decided") == ""
    for action in made[2:]:
        decide(support.alice, action)
    assert last_line("waiting") == "" and last_line("decided") == "3 on this page Older"
    for action in made[:4]:
        assert services.claim(action.pk) is not None
    services.settle_crashed(timezone.now() + timedelta(hours=1))
    assert last_line("unknown") == "3 of 4 are listed, the newest. Filter, or decide some, to see the others."


@pytest.mark.django_db
@pytest.mark.any_engine
@pytest.mark.parametrize("show", ["waiting", "decided"])
def test_rows_of_a_list_are_read_by_their_ids(support: SimpleNamespace, show: str) -> None:
    """Beside the projects of a reader SQLite begins with those, and reads all that was ever asked for there."""
    decide(support.rita, proposed(support.agent, support.support))
    proposed(support.agent, support.support, 600)
    with CaptureQueriesContext(connection) as queries:
        assert "Refund" in support.reviewer.get(f"/inbox/?show={show}").content.decode()
    wholes = [one["sql"] for one in queries if '"approvals_request"."content"' in one["sql"]]
    assert wholes
    for whole in wholes:
        assert '"project_id" IN' not in whole and '"approvals_request"."id" IN' in whole
        if connection.vendor == "sqlite":
            with connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN QUERY PLAN {whole}")
                plan = [row[3] for row in cursor.fetchall()]
            by_id = "approvals_request USING INDEX sqlite_autoindex_approvals_request_1 (id=?)"
            assert any(by_id in one for one in plan), plan


def test_what_was_decided_last_comes_first_and_no_page_leaves_one_out(
    support: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [proposed(support.agent, support.support, 500 + number).request for number in range(30)]
    monkeypatch.setattr(listing, "PAGE", 8)
    now = timezone.now()
    # Ends in another order than they were asked for, many at the same moment, the newest nobody's to see, two not closed yet.
    for number, one in enumerate(made[:28]):
        ended = now - timedelta(minutes=(number * 7) % 10 + 5)
        Request.objects.filter(pk=one.pk).update(state=Request.REJECTED, closed_at=ended)
    Request.objects.filter(pk__in=[one.pk for one in made[28:]]).update(expires_at=now - timedelta(seconds=1))
    wanted = list(
        Request.objects.filter(state=Request.REJECTED)
        .order_by("-closed_at", "-pk")
        .values_list("pk", flat=True)
    )
    lapsed = {one.pk for one in made[28:]}
    # Also where what a reader may see lies deeper than what is looked through first.
    for looked_through in ((200, 2_000), (2, 12), (1,)):
        monkeypatch.setattr(listing, "_LOOKED_THROUGH", looked_through)
        for narrowed in ("", "&tool=refund"):
            found, address = [], f"/inbox/?show=decided{narrowed}"
            while address:
                page = support.reviewer.get(address).content.decode()
                found += [
                    UUID(pk) for pk in re.findall(r'class="cover" href="/inbox/([0-9a-f-]{36})/"', page)
                ]
                older = re.search(r'href="(\?[^"]*before=[^"]*)"', page)
                address = "/inbox/" + older[1].replace("&amp;", "&") if older else ""
            assert set(found[:2]) == lapsed and found[2:] == wanted


# What cannot be seen --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [("plain é 漢字 🙂", "plain é 漢字 🙂"), ("a\u202eb", "a\\u202eb"), ("a\u200bb", "a\\u200bb"), ("a\u00a0b", "a\\u00a0b"),
     ("a\x07b", "a\\u0007b"), ("two\nlines\t", "two\nlines\t"), ("\u3164", "\\u3164"), ("\U000e0041", "\\U000e0041"), ("a\rb", "a\\u000db")],
)  # fmt: skip
def test_what_cannot_be_seen_is_written_out(text: str, shown: str) -> None:
    assert exact(text).text == shown and exact(text).odd == (text != shown)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@tries(200)
@given(
    st.dictionaries(st.sampled_from("abc"), JSON, max_size=3),
    st.dictionaries(st.sampled_from("abc"), JSON, max_size=3),
)
def test_every_value_has_a_line_and_every_difference_is_marked(new: Any, old: Any) -> None:
    lines = arguments_of(new, old)
    assert not any(line.changed for line in arguments_of(new, new))
    if json.dumps(new, sort_keys=True) == json.dumps(old, sort_keys=True):
        assert not any(line.changed for line in lines)


def test_hidden_characters_and_markup_reach_nobody(support: SimpleNamespace) -> None:
    action = proposed(
        support.agent, support.support, reason="<script>alert(1)</script>\u202e",
        arguments={"amount": 500, "customer": "Ada\u202e<b onclick=x>"},
    )  # fmt: skip
    for path in ("/inbox/", f"/inbox/{action.request_id}/"):
        page = support.reviewer.get(path)
        assert "\u202e" not in page.content.decode() and "<script>alert" not in page.content.decode()
        assert "<b onclick" not in page.content.decode()
        assert "unsafe" not in page["Content-Security-Policy"]
    assert "cannot be seen" in text_of(page)


def test_no_two_arguments_look_like_one() -> None:
    given: dict[str, Any] = {
        "a.b": "hidden",
        "a": {"b": "shown", "c\u202ed": 1},
        "c[0]": {"x": 1},
        "c": [{"x": 2}],
        '"a.b"': "too",
    }
    paths = {line.path: line.value.text for line in arguments_of(given)}
    assert paths == {
        '"a.b"': "hidden",
        "a.b": "shown",
        'a."c\\u202ed"': "1",
        '"c[0]".x': "1",
        "c[0].x": "2",
        '"\\"a.b\\""': "too",
    }


@pytest.mark.any_engine
def test_neither_the_title_nor_the_other_page_for_approvals_shows_what_turns_text_around(
    support: SimpleNamespace,
) -> None:
    arguments = {"amount": 500, "customer": "\u202emoc.live@ada"}
    action = proposed(support.agent, support.support, arguments=arguments)
    assert "\u202e" not in action.says and "\\u202e" in action.says
    assert action.given == arguments
    for page in (
        f"/admin/approvals/request/{action.request_id}/change/",
        f"/admin/tools/action/{action.pk}/change/",
        f"/inbox/{action.request_id}/",
    ):
        shown = support.reviewer.get(page)
        assert shown.status_code == 200 and "\u202e" not in shown.content.decode(), page


@pytest.mark.any_engine
def test_a_reviewer_sees_what_the_run_asked_for_before_and_what_came_of_it(support: SimpleNamespace) -> None:
    a_tool(support.support, "look", risk="read", rules=[])
    looked = proposed(support.agent, support.support, 7, tool="look", run="run-5")
    services.execute(looked.pk)
    first = proposed(support.agent, support.support, 900, run="run-5")
    decide(support.rita, first, approves=False, reason="Half of it")
    proposed(support.agent, support.support, 800, run="run-6")
    second = proposed(support.agent, support.support, 450, run="run-5")
    page = support.reviewer.get(f"/inbox/{second.request_id}/")
    shown, whole = text_of(page), page.content.decode()
    assert "an earlier attempt of this run" in shown and "rita: Half of it" in shown and "800" not in shown
    assert "<del>900</del>" in whole and "<ins>450</ins>" in whole
    assert "What came of it" in shown and "&quot;refunded&quot;: 7" in whole
