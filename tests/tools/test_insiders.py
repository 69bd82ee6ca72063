"""What somebody who may propose tries on whoever decides: calls that no page can show, words that say something else than what runs,
texts that no database holds."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from llmops.core.appearance import written_out
from llmops.dashboards.inbox.showing import as_json
from llmops.tools.models import Action
from tests.cast import bearer, cast, issue, quick_passwords, signed_in  # noqa: F401
from tests.tools.making import DONE, FUNCTIONS, a_service, a_tool, decide, proposed, state_of

URL = "/api/v1/actions/"
ANYTHING = {"parameters": {"type": "object"}, "says": ""}


@pytest.fixture(autouse=True)
def functions(settings: Any) -> None:
    DONE.clear()
    settings.TOOL_FUNCTIONS = FUNCTIONS


@pytest.fixture
def support(cast: SimpleNamespace) -> SimpleNamespace:  # noqa: F811
    cast.agent = bearer(issue(cast.support, "actions", name="agent").secret)
    cast.reviewer = signed_in(cast.rita)
    for client in (cast.agent, cast.reviewer):
        client.raise_request_exception = False
    return cast


def post(client: Any, path: str, body: str) -> Any:
    return client.post(path, body, content_type="application/json")


def nested(depth: int, kind: str) -> str:
    opens, closes = ("[", "]") if kind == "list" else ('{"a":', "}")
    return opens * depth + "1" + closes * depth


@pytest.mark.parametrize("kind", ["list", "object"])
def test_a_call_is_nested_no_deeper_than_every_page_can_show(support: SimpleNamespace, kind: str) -> None:
    a_tool(support.support, "any", risk="destructive", rules=[], **ANYTHING)
    taken = []
    for depth in (1, 31, 32, 300, 500, 900, 30_000):
        for written in (f'{{"x":{nested(depth, kind)}}}', json.dumps(f'{{"x":{nested(depth, kind)}}}')):
            answer = post(support.agent, URL, f'{{"tool":"any","arguments":{written}}}')
            assert answer.status_code in (201, 400), (depth, answer.status_code, answer.content[:300])
            if answer.status_code == 201:
                taken.append(depth)
                action = Action.objects.get(pk=answer.json()["id"])
                for page in (
                    f"/inbox/{action.request_id}/",
                    f"/admin/tools/action/{action.pk}/change/",
                    "/inbox/",
                ):
                    assert support.reviewer.get(page).status_code == 200, (depth, page)
            else:
                assert answer.json()["error"]["param"] in ("arguments", None)
    assert taken == [1, 1, 31, 31]


def test_texts_that_no_database_holds_are_refused_by_name(support: SimpleNamespace) -> None:
    a_tool(support.support)
    a_tool(support.support, "own", execution="service", executor="", settings={})
    agent = a_service(support.support, name="model")
    action = proposed(agent, support.support)
    assert action.request is not None
    form = {"request": str(action.request_id), f"seen_{action.request_id}": action.request.digest}
    for bad in ("a\x00b", "a\x07b", "a\ud800b"):
        encoded = bad.encode("utf-8", "surrogatepass").decode("latin-1") if bad == "a\ud800b" else bad
        for what in ("approve", "reject", "edit"):
            sent = {**form, "what": what, "reason": encoded, "arguments": '{"amount": 5, "customer": "B"}'}
            if bad == "a\ud800b":
                continue
            answer = support.reviewer.post("/inbox/decide/", sent)
            assert answer.status_code == 400, (bad, what, answer.status_code)
        for door in ("approve", "reject"):
            body = json.dumps({"digest": action.request.digest, "reason": bad})
            answer = post(support.reviewer, f"/api/v1/approvals/{action.request_id}/{door}/", body)
            assert answer.status_code == 400, (bad, door, answer.status_code)
    assert state_of(action) == Action.WAITING

    made = post(support.agent, URL, '{"tool":"own","arguments":{"amount":5,"customer":"A"}}').json()
    claim = post(support.agent, f"{URL}{made['id']}/redeem/", json.dumps({"token": made["token"]})).json()[
        "claim"
    ]
    for bad in ("a\x00b", "a\ud800b"):
        for told in ({"message": bad}, {"result": {"x": [bad]}}, {"result": {bad: 1}}):
            body = json.dumps({"claim": claim, "succeeded": True, **told})
            answer = post(support.agent, f"{URL}{made['id']}/report/", body)
            assert answer.status_code == 400, (bad, told, answer.status_code, answer.content[:200])
    deep = f'{{"claim":"{claim}","succeeded":true,"result":{nested(900, "list")}}}'
    assert post(support.agent, f"{URL}{made['id']}/report/", deep).status_code == 400
    good = json.dumps({"claim": claim, "succeeded": True, "result": {"x": 1}})
    assert post(support.agent, f"{URL}{made['id']}/report/", good).json()["state"] == "succeeded"


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        # Latin with letters of other alphabets in the same word.
        ("p\u0430ypal", "p\\u0430ypal"), ("\u0410da", "\\u0410da"), ("te\u03bft", "te\\u03bft"), ("a\u0561b", "a\\u0561b"),
        # A word of nothing but letters that look like Latin ones, in a text that has no other of that alphabet.
        ("pay \u0440\u0430\u0443 now", "pay \\u0440\\u0430\\u0443 now"), ("\u0430", "\\u0430"),
        # Other alphabets by themselves stay as they are.
        ("\u041f\u0440\u0438\u0432\u0435\u0442, \u0430 \u044d\u0442\u043e Ada", "\u041f\u0440\u0438\u0432\u0435\u0442, \u0430 \u044d\u0442\u043e Ada"),
        ("\u03ba\u03b1\u03bb\u03b7\u03bc\u03ad\u03c1\u03b1", "\u03ba\u03b1\u03bb\u03b7\u03bc\u03ad\u03c1\u03b1"), ("Zo\u00eb \u0141\u00f3d\u017a \u6f22\u5b57", "Zo\u00eb \u0141\u00f3d\u017a \u6f22\u5b57"),
        # Letters and figures that are others in other clothes.
        ("\uff41da 5\uff10\uff10", "\\uff41da 5\\uff10\\uff10"), ("\U0001d4d0", "\\U0001d4d0"), ("5\u0665", "5\\u0665"),
        # Marks that cannot be seen, spaces that are none, and more marks than a letter takes.
        ("a\ufe00b", "a\\ufe00b"), ("a\U000e0100", "a\\U000e0100"), ("a\u034fb", "a\\u034fb"), ("\u2764\ufe0f", "\u2764\ufe0f"), ("1\ufe0f", "1\\ufe0f"),
        ("a\u2003b", "a\\u2003b"), ("a\u3000b", "a\u3000b"), ("e\u0301", "e\u0301"), ("e\u0301\u0302\u0303\u0304", "e\u0301\u0302\\u0303\\u0304"),
    ],
)  # fmt: skip
def test_what_looks_like_something_else_is_written_out(text: str, shown: str) -> None:
    assert written_out(text) == shown


def test_a_reviewer_sees_which_letters_they_are(support: SimpleNamespace) -> None:
    a_tool(support.support)
    action = proposed(
        a_service(support.support, name="model"),
        support.support,
        arguments={"amount": 500, "customer": "\u0410d\u0430"},
    )
    assert action.says == "Refund 500 USD to \\u0410d\\u0430" and action.given["customer"] == "\u0410d\u0430"
    page = support.reviewer.get(f"/inbox/{action.request_id}/").content.decode()
    assert (
        "\u0410" not in page.replace("&#x27;", "")
        and "\\u0410d\\u0430" in page
        and "look like others" in page
    )


def test_a_text_and_a_number_do_not_look_the_same(support: SimpleNamespace) -> None:
    a_tool(support.support, "any", risk="destructive", rules=[], **ANYTHING)
    agent = a_service(support.support, name="model")
    pages = []
    for value in (500, "500", True, "true", None, "null", [1], "[1]", "", " 500", "500 "):
        action = proposed(agent, support.support, tool="any", arguments={"x": value})
        page = support.reviewer.get(f"/inbox/{action.request_id}/").content.decode()
        (shown,) = [part.split("</dd>")[0] for part in page.split("<dt>x</dt>")[1:]] or [page]
        pages.append(shown)
    assert len(set(pages)) == len(pages)


def test_words_that_are_cut_say_so(support: SimpleNamespace) -> None:
    says = "Move {note} " + "w" * 180 + " and remove the archive of {customer}"
    a_tool(support.support, "move", says=says, parameters={"type": "object"}, risk="destructive", rules=[])
    action = proposed(
        a_service(support.support, name="model"),
        support.support,
        tool="move",
        arguments={"note": "n" * 200, "customer": "Ada"},
    )
    assert action.request is not None
    for text in (action.says, action.request.title):
        assert text.endswith("Ada") or text.endswith("…")
    page = support.reviewer.get(f"/inbox/{action.request_id}/").content.decode()
    assert action.says in page


def test_what_others_wrote_about_it_turns_nothing_around(support: SimpleNamespace) -> None:
    a_tool(support.support)
    agent = a_service(support.support, name="model")
    first = proposed(agent, support.support, 500, run="run-1")
    decide(support.rita, first, approves=False, reason="no\u202eyes <b>x</b>")
    second = proposed(agent, support.support, 501, run="run-1")
    for action in (first, second):
        page = support.reviewer.get(f"/inbox/{action.request_id}/").content.decode()
        assert "\u202e" not in page and "<b>x</b>" not in page and "no\\u202eyes" in page


@pytest.mark.any_engine
@pytest.mark.parametrize(
    "text",
    [
        "\U000e0041",
        "a\\U0001d4d0 \U0001d4d0",
        "\\\U0001d4d0",
        "p\u0430ypal\u202e",
        "\\\\u0430",
        "\U0001f642 \u6f22",
    ],
)
def test_the_exact_text_can_be_edited_and_says_the_same(text: str) -> None:
    shown = as_json({"x": text, text: [1]})
    assert json.loads(shown) == {"x": text, text: [1]} and written_out(shown) == shown
