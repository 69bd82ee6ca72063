"""A call is asked again once, by who may, with what was kept of it and nothing that would be carried out."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from llmops.access.models import Project
from llmops.core.errors import Conflict, InvalidRequest, NotFound, RateLimited
from llmops.core.ids import uuid7
from llmops.playground import services
from llmops.playground.again import estimated, request_again, why_not
from llmops.playground.selectors import live_document
from llmops.usage.models import Call, Replay
from llmops.usage.selectors.replays import call_made_by, original_of, replays_of
from tests.cast import acting, no_event, one_event, person, signed_in
from tests.console.world import a_call
from tests.usage.texts_kept import keep_texts, open_project

pytestmark = [pytest.mark.django_db, pytest.mark.any_engine]
ASKED = {"messages": [{"role": "user", "content": "Hi"}], "temperature": 0}


def kept(lab: Any, *, request: Any = ASKED, **known: Any) -> Call:
    open_project(lab.support)
    made = a_call(
        lab.support,
        **{
            "endpoint": "chat.completions",
            "route": "chat",
            "model": "sim-small",
            "input_tokens": 10,
            "output_tokens": 5,
            **known,
        },
    )
    keep_texts(made, request=request)
    return made


def replay(lab: Any, call: Call, who: Any = None, **how: Any) -> Replay:
    who = who or lab.bob
    return services.replay_call(acting(who), call=call, **{"replay_id": uuid7(), "model": "sim-small", **how})


# What is asked ---------------------------------------------------------------------------------------------------------


def test_the_same_question_of_another_model():
    again = request_again("chat.completions", ASKED, model="other", version=None, streamed=True)
    assert again.path == "/chat/completions" and again.left_out == ()
    assert again.body == {
        **ASKED,
        "model": "other",
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert request_again("responses", {"input": "Hi"}, model="o", version=None, streamed=False).body == {
        "input": "Hi",
        "model": "o",
        "store": False,
    }


def test_nothing_is_carried_out_for_it():
    own = {"type": "function", "function": {"name": "look"}}
    tools = [own, {"type": "web_search"}, {"type": "mcp", "server_url": "https://x"}, "odd"]
    request = {"input": "Hi", "tools": tools, "tool_choice": {"type": "web_search"}}
    again = request_again("responses", request, model="o", version=None, streamed=False)
    assert again.body["tools"] == [own] and "tool_choice" not in again.body
    assert again.left_out == ("tools that the provider would run itself",)
    alone = request_again(
        "responses", {**request, "tools": tools[1:]}, model="o", version=None, streamed=False
    )
    assert "tools" not in alone.body
    web = {**ASKED, "web_search_options": {}}
    assert (
        "web_search_options"
        not in request_again("chat.completions", web, model="o", version=None, streamed=False).body
    )


def test_another_version_of_the_prompt_that_was_named():
    request = {"prompt": {"id": "hello", "version": 1, "variables": {"name": "Ada"}}}
    again = request_again("chat.completions", request, model="chat", version=2, streamed=False)
    assert again.body["prompt"] == {"id": "hello", "version": 2, "variables": {"name": "Ada"}}
    assert request["prompt"]["version"] == 1
    with pytest.raises(InvalidRequest, match="variables of the prompt are not kept"):
        request_again("chat.completions", ASKED, model="chat", version=2, streamed=False)


@pytest.mark.parametrize(
    ("endpoint", "request_", "why"),
    [
        ("embeddings", {"input": "x"}, "Only chat completions"),
        ("chat.completions", None, "not kept whole"),
        (
            "responses",
            {"input": "x", "previous_response_id": "resp_1"},
            "goes on from what its provider keeps",
        ),
        ("responses", {"input": "x", "conversation": "conv_1"}, "goes on from what its provider keeps"),
    ],
)
def test_what_cannot_be_asked_again(endpoint, request_, why):
    assert why in why_not(endpoint, request_)
    with pytest.raises(Conflict, match=why):
        request_again(endpoint, request_, model="o", version=None, streamed=False)


def test_what_it_will_cost(lab):
    document = live_document()
    told = {"input_tokens": 1000, "output_tokens": 10, "at": timezone.now().timestamp()}
    by_model = estimated(document, "sim-small", request={}, **told)
    assert by_model == estimated(document, "chat", request={}, **told)
    assert by_model.least == by_model.most < by_model.bound
    capped = estimated(document, "sim-small", request={"max_tokens": 10}, **told)
    assert capped.bound == capped.most
    assert estimated(document, "gone", request={}, **told).least is None


# Who asks, and once --------------------------------------------------------------------------------------------------------


def test_one_event_without_a_text(lab):
    services.key_in_use(lab.support)
    call = kept(lab, request={**ASKED, "messages": [{"role": "user", "content": "Secretly"}]})
    with one_event("call.replayed") as seen:
        made = replay(lab, call)
    assert seen.event.object_id == str(call.pk) and seen.event.project_id == lab.support.pk
    assert seen.event.after["replay"] == str(made.pk) and "Secretly" not in str(seen.event.after)
    with no_event():
        assert replay(lab, call, replay_id=made.pk).pk == made.pk
    with pytest.raises(Conflict):
        replay(lab, call, lab.alice, replay_id=made.pk)


def test_what_is_not_live_or_not_kept_is_refused(lab):
    call = kept(lab)
    with pytest.raises(InvalidRequest, match="not live"):
        replay(lab, call, model="gpt-9")
    with pytest.raises(NotFound, match="not kept"):
        replay(lab, a_call(lab.support, endpoint="chat.completions"))
    Project.objects.filter(pk=lab.support.pk).update(keep_texts_readable=False)
    with pytest.raises(NotFound, match="not kept"):
        replay(lab, call)
    assert not Replay.objects.exists()


def test_a_person_asks_so_often_and_no_oftener(lab, settings):
    settings.PLAYGROUND_RUNS_PER_MINUTE = 2
    call = kept(lab)
    first = replay(lab, call)
    replay(lab, call)
    with pytest.raises(RateLimited):
        replay(lab, call)
    replay(lab, call, lab.alice)
    Replay.objects.filter(pk=first.pk).update(made_at=timezone.now() - timedelta(minutes=2))
    replay(lab, call)


def test_the_page_estimates_and_asks(lab):
    call = kept(lab)
    page = signed_in(lab.bob).get(f"/playground/replay/{call.pk}/")
    assert page.status_code == 200
    assert [one.name for one in page.context["offers"]] == ["chat", "sim-small"]
    assert all("about $" in one.words and "at most $" in one.words for one in page.context["offers"])
    # A line that wraps: the price is what is chosen by, and a list would cut it off on a phone.
    shown = page.content.decode()
    assert (
        all(one.words in shown for one in page.context["offers"])
        and "<option" not in shown.partition("</fieldset>")[0]
    )
    form = {"id": page.context["replay_id"], "model": "sim-small"}
    answer = signed_in(lab.bob).post(f"/playground/replay/{call.pk}/", form)
    made = Replay.objects.get()
    assert answer.status_code == 302 and answer["location"] == f"/playground/replays/{made.pk}/"
    wrong = signed_in(lab.bob).post(f"/playground/replay/{call.pk}/", {**form, "id": "x"})
    assert wrong.status_code == 400 and b"open the page anew" in wrong.content
    unkept = a_call(lab.support, endpoint="chat.completions")
    told = signed_in(lab.bob).get(f"/playground/replay/{unkept.pk}/")
    assert told.status_code == 200 and b"not among those that are kept" in told.content


def test_who_may(lab):
    call = kept(lab)
    address = f"/playground/replay/{call.pk}/"
    finance = person("frida", ("finance", lab.support))
    assert signed_in(finance).get(address).status_code == 403
    assert signed_in(lab.charlie).get(address).status_code == 404
    assert signed_in(lab.charlie).post(address, {"id": uuid7(), "model": "chat"}).status_code == 404
    made = replay(lab, call)
    assert signed_in(lab.charlie).get(f"/playground/replays/{made.pk}/").status_code == 404


# What becomes of it ------------------------------------------------------------------------------------------------------------


def booked(replay: Replay, **known: Any) -> Call:
    project = Project.objects.get(pk=replay.project_id)
    return a_call(project, **{"request_id": replay.request, "key_id": replay.key_id, **known})


def test_both_sides_name_each_other_and_lead_to_the_comparison(lab):
    call = kept(lab)
    made = replay(lab, call)
    client = signed_in(lab.bob)
    assert b"It is being asked" in client.get(f"/playground/replays/{made.pk}/").content
    assert client.get(f"/playground/replays/{made.pk}/live/").status_code == 204
    # The request id is anybody's to send; the key is not.
    booked(made, key_id=lab.support.pk)
    assert call_made_by(made) is None
    new = booked(made)
    assert client.get(f"/playground/replays/{made.pk}/live/").json()["reload"]
    answer = client.get(f"/playground/replays/{made.pk}/")
    assert answer["location"] == f"/calls/compare/?call={call.pk}&call={new.pk}"
    assert client.get(answer["location"]).status_code == 200
    assert [one.call for one in replays_of(call.pk)] == [new]
    assert original_of(new).of_call == call.pk and original_of(call) is None
    assert str(new.pk) in client.get(f"/calls/{call.pk}/").content.decode()
    assert str(call.pk) in client.get(f"/calls/{new.pk}/").content.decode()
