"""Runs are made once, by those who may, for what they may; nothing that was typed is on the record."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from llmops.access import services as access
from llmops.access.models import ServiceKey
from llmops.audit.models import Event
from llmops.core.errors import Conflict, InvalidRequest, NotFound, RateLimited
from llmops.core.ids import uuid7
from llmops.playground import services
from llmops.playground.models import Piece, ProjectKey, Run, Setup
from llmops.playground.sealed import piece_identity, seal
from llmops.playground.selectors import callables, project_of, prompt_of, run_of, setup_of
from llmops.prompts import services as prompts
from llmops.serving import services as serving
from tests import configuring
from tests.access.test_service_keys import every_text_in_the_database
from tests.cast import COMMAND, acting, no_event, one_event, signed_in
from tests.playground.conftest import a_column, sent, some_text

pytestmark = [pytest.mark.django_db, pytest.mark.any_engine]


def start(lab, who, column, project=None):
    return services.start_run(acting(who), user=who, project=project or lab.support, column=column)


def test_a_run_leaves_one_event_without_a_text(lab):
    services.key_in_use(lab.support)
    with one_event("playground.run_started") as seen:
        run = start(lab, lab.bob, a_column(lab, variables={"name": "Secretly"}))
    assert seen.event.after == {"prompt": "hello", "version": "1", "model": "chat", "digest": run.digest}
    assert seen.event.project_id == lab.support.pk
    assert seen.event.actor_id == str(lab.bob.pk)
    assert not any("Secretly" in text for text in every_text_in_the_database())


def test_the_key_is_made_once_and_shown_to_nobody(lab):
    with one_event("service_key.created") as seen:
        row, secret = services.key_in_use(lab.support)
    assert seen.event.actor_kind == "system"
    with no_event():
        assert services.key_in_use(lab.support) == (row, secret)
    assert not any(secret in text or secret[16:] in text for text in every_text_in_the_database())
    assert row.service_key.held_by_console
    with pytest.raises(Conflict, match="the console's own"):
        access.rotate_service_key(acting(lab.alice), key=row.service_key)
    client = signed_in(lab.alice)
    page = client.get(f"/admin/access/servicekey/{row.service_key_id}/change/").content.decode()
    assert "the console" in page and secret not in page


def test_a_revoked_key_stops_the_playground_until_somebody_issues_another(lab):
    row, secret = services.key_in_use(lab.support)
    access.revoke_service_key(acting(lab.bob), key=row.service_key)
    with no_event(), pytest.raises(Conflict, match="was revoked") as refused:
        start(lab, lab.bob, a_column(lab))
    assert refused.value.code == "playground_key_revoked"
    with one_event("service_key.created"):
        services.renew_key(acting(lab.bob), project=lab.support)
    assert services.key_in_use(lab.support)[1] != secret
    with pytest.raises(Conflict):
        services.renew_key(acting(lab.bob), project=lab.support)
    assert ServiceKey.objects.filter(project=lab.support, name__startswith="playground").count() == 2


def test_a_paused_key_of_the_console_is_shown_as_paused(lab):
    client, state = signed_in(lab.bob), "the console&#x27;s own"
    row, _ = services.key_in_use(lab.support)
    address = f"/admin/access/servicekey/{row.service_key_id}/change/"
    assert state in client.get(address).content.decode()
    access.pause_service_key(acting(lab.bob), key=row.service_key, reason="loud")
    assert state not in client.get(address).content.decode()


def test_the_same_id_is_the_same_run(lab):
    services.key_in_use(lab.support)
    column = a_column(lab)
    run = start(lab, lab.bob, column)
    with no_event():
        assert start(lab, lab.bob, column).pk == run.pk
    for who in (lab.alice, lab.charlie):
        with no_event(), pytest.raises(Conflict):
            start(lab, who, column)
    assert Run.objects.count() == 1


@pytest.mark.parametrize("purpose", ["rerank", "embeddings"])
def test_what_does_not_talk_is_not_offered(lab, purpose):
    configuring.model("apart", capabilities=[purpose])
    configuring.route("sorts", configuring.model("sorting", capabilities=[purpose]))
    serving.publish(COMMAND, reason="models that do not talk")
    assert {one.name for one in callables(lab.support)} == {"chat", "sim-small"}


def test_only_what_is_live_and_allowed_may_be_asked(lab):
    row, _ = services.key_in_use(lab.support)
    assert [(one.name, one.kind) for one in callables(lab.support)] == [
        ("chat", "route"),
        ("sim-small", "model"),
    ]
    with no_event(), pytest.raises(InvalidRequest, match="not live"):
        start(lab, lab.bob, some_text(lab, model="nothing"))
    access.update_service_key(COMMAND, key=row.service_key, allowed_models=[])
    with no_event(), pytest.raises(InvalidRequest, match="may not call it"):
        start(lab, lab.bob, some_text(lab, model="sim-small"))
    assert [one.name for one in callables(lab.support)] == ["chat"]
    # Another project's playground is another key.
    assert len(callables(lab.search)) == 2


def test_one_person_makes_so_many_runs_a_minute(lab, settings):
    settings.PLAYGROUND_RUNS_PER_MINUTE = 2
    services.key_in_use(lab.support)
    for _ in range(2):
        start(lab, lab.bob, some_text(lab))
    with no_event(), pytest.raises(RateLimited, match="within a minute"):
        start(lab, lab.bob, some_text(lab))
    start(lab, lab.alice, some_text(lab))
    Run.objects.update(started_at=timezone.now() - timedelta(seconds=61), state=Run.DONE)
    start(lab, lab.bob, some_text(lab))


def test_one_person_has_so_many_runs_under_way(lab):
    services.key_in_use(lab.support)
    for _ in range(8):
        start(lab, lab.bob, some_text(lab))
    with pytest.raises(RateLimited, match="under way"):
        start(lab, lab.bob, some_text(lab))
    # Those whose process is gone do not count.
    Run.objects.update(beat_at=timezone.now() - timedelta(seconds=30))
    start(lab, lab.bob, some_text(lab))


def test_cancelling_is_on_the_record_once(lab):
    services.key_in_use(lab.support)
    run = start(lab, lab.bob, some_text(lab))
    with one_event("playground.run_cancelled"):
        services.cancel_run(acting(lab.bob), run=run)
    with no_event(), pytest.raises(Conflict):
        services.cancel_run(acting(lab.bob), run=run)


def test_nothing_of_another_project_or_person_is_found(lab):
    services.key_in_use(lab.support)
    run = start(lab, lab.bob, some_text(lab))
    setup = services.share_setup(
        acting(lab.bob), project=lab.support, setup={"columns": [{"source": "text"}]}
    )
    assert run_of(lab.bob, lab.bob.pk, run.pk) == run
    assert setup_of(lab.alice, setup.pk)[0] == setup
    for who in (lab.alice, lab.charlie, lab.carla):
        with pytest.raises(NotFound):
            run_of(who, who.pk, run.pk)
    # One's own run, once one's role is gone.
    lab.bob.memberships.all().delete()
    with pytest.raises(NotFound):
        run_of(lab.bob, lab.bob.pk, run.pk)
    for who in (lab.charlie, lab.carla, lab.bob):
        with pytest.raises(NotFound):
            setup_of(who, setup.pk)
        with pytest.raises(NotFound):
            project_of(who, lab.support.pk)
    with pytest.raises(NotFound):
        prompt_of(lab.support, lab.foreign_prompt.pk)
    with no_event(), pytest.raises(NotFound):
        start(lab, lab.alice, a_column(lab, prompt=str(lab.foreign_prompt.pk)))


def test_ids_of_others_say_nothing_over_the_web(lab):
    services.key_in_use(lab.support)
    run = start(lab, lab.bob, some_text(lab))
    client = signed_in(lab.charlie)
    search = str(lab.search.pk)
    for answer in (
        client.get(f"/playground/events/?run={run.pk}"),
        client.get(f"/playground/choices/?project={lab.support.pk}"),
        client.get(f"/playground/version/?project={search}&prompt={lab.prompt.pk}"),
        client.get(f"/playground/version/?project={lab.support.pk}&prompt={lab.prompt.pk}"),
        sent(client, "cancel", run=str(run.pk)),
        sent(client, "run", **a_column(lab)),
        sent(client, "run", **a_column(lab, project=search)),
        sent(client, "share", project=str(lab.support.pk), columns=[{}]),
        sent(
            client, "save-version", column=a_column(lab, project=search), prompt=str(lab.prompt.pk), note="x"
        ),
        sent(client, "save-sample", project=search, prompt=str(lab.prompt.pk), name="x", variables={}),
    ):
        assert answer.status_code == 404
        assert "hello" not in answer.content.decode() and "support" not in answer.content.decode()


def test_setups_are_shared_sealed_and_without_an_address_that_tells(lab):
    client = signed_in(lab.bob)
    with one_event("playground.setup_shared") as seen:
        answer = sent(
            client, "share", project=str(lab.support.pk), variables={"name": "Hush"},
            columns=[{"source": "text", "messages": [{"role": "user", "content": "Quietly"}], "run": "x", "id": "y"}],
        )  # fmt: skip
    url = answer.json()["url"]
    assert "Quietly" not in url and "Hush" not in url and seen.event.after == {"columns": 1}
    assert not any("Quietly" in text for text in every_text_in_the_database())
    page = signed_in(lab.alice).get(url)
    start = json.loads(
        page.content.decode().split('id="playground-start" type="application/json">')[1].split("</script>")[0]
    )
    assert start["opening"]["columns"] == [
        {"source": "text", "messages": [{"role": "user", "content": "Quietly"}]}
    ]
    assert start["opening"]["variables"] == {"name": "Hush"}
    assert signed_in(lab.charlie).get(url).status_code == 404


def test_saving_what_was_tried_as_a_version(lab):
    edited = a_column(
        lab, source="edited", content={"system": "You greet warmly."}, parameters={"temperature": 1}
    )
    with one_event("prompt.version_added"):
        made = services.save_as_version(
            acting(lab.bob), project=lab.support, prompt=lab.prompt, column=edited, note="warmer", expected=1
        )
    assert made.number == 2 and made.note == "warmer"
    assert made.content["system"] == "You greet warmly."
    assert made.content["parameters"] == {"temperature": 1}
    assert made.content["samples"] == lab.content["samples"]
    with no_event(), pytest.raises(Conflict, match="meanwhile"):
        services.save_as_version(
            acting(lab.bob), project=lab.support, prompt=lab.prompt, column=edited, note="", expected=1
        )


def test_samples_get_the_value_of_a_variable_that_is_new(lab):
    edited = a_column(
        lab,
        source="edited",
        content={"user": "{{ name }} of {{ shop }}"},
        variables={"name": "Eve", "shop": "Acme"},
    )
    made = services.save_as_version(
        acting(lab.bob), project=lab.support, prompt=lab.prompt, column=edited, note=""
    )
    assert made.content["samples"] == [{"name": "Ada", "variables": {"name": "Ada", "shop": "Acme"}}]


def test_saving_does_not_take_somebody_elses_draft_away(lab):
    prompts.save_draft(COMMAND, prompt=lab.prompt, draft={**lab.content, "system": "Precious."})
    lab.prompt.refresh_from_db()
    edited = a_column(lab, source="edited", content={"system": "Mine."})

    def save(**more):
        return services.save_as_version(
            acting(lab.bob), project=lab.support, prompt=lab.prompt, column=edited, note="", **more
        )

    with no_event(), pytest.raises(Conflict) as refused:
        save()
    assert refused.value.code == "draft_in_the_way"
    assert save(replace_draft=True).content["system"] == "Mine."


def test_free_text_becomes_a_prompt_of_the_project(lab):
    column = some_text(
        lab, messages=[{"role": "system", "content": "S"}, {"role": "user", "content": "U {{ who }}"}]
    )
    with one_event("prompt.created"):
        made = services.save_as_version(
            acting(lab.bob), project=lab.support, prompt=None, column=column, note="n", slug="fresh"
        )
    assert made.prompt.project == lab.support and made.content["route"] == "chat"
    assert (made.content["system"], made.content["user"]) == ("S", "U {{ who }}")
    column["messages"].append({"role": "assistant", "content": "no"})
    with no_event(), pytest.raises(InvalidRequest, match="other turns"):
        services.save_as_version(
            acting(lab.bob), project=lab.support, prompt=None, column=column, note="n", slug="other"
        )


def test_samples_stay_with_the_prompt(lab):
    def save(sample, /, **values):
        lab.prompt.refresh_from_db()
        return services.save_as_sample(acting(lab.bob), prompt=lab.prompt, name=sample, variables=values)

    with one_event("prompt.version_added"):
        assert save("Bob", name="Bob", of_another="x") == "in version 2 of hello"
    lab.prompt.refresh_from_db()
    assert lab.prompt.current.content["samples"][1] == {"name": "Bob", "variables": {"name": "Bob"}}
    with no_event(), pytest.raises(Conflict):
        save("Bob", name="Bob")
    with no_event(), pytest.raises(InvalidRequest):
        save("long", name="x" * 21)
    prompts.save_draft(COMMAND, prompt=lab.prompt, draft={**lab.content, "system": "Draft."})
    with one_event("prompt.draft_saved"):
        assert save("Eve", name="Eve") == "in the draft of hello"


def test_shared_prompts_are_tried_by_all_and_changed_by_few(lab):
    shared = prompts.create_prompt(COMMAND, slug="shared", content={"task": "Say hello."})
    client = signed_in(lab.bob)
    told = client.get(f"/playground/version/?project={lab.support.pk}&prompt={shared.pk}").json()
    assert told["content"]["layers"]["task"] == "Say hello." and told["may_change"] is False
    column = a_column(lab, prompt=str(shared.pk), source="edited", content={"task": "Say bye."})
    answer = sent(client, "save-version", column=column, prompt=str(shared.pk), note="x")
    assert answer.status_code == 403 and "whole organisation" in answer.json()["error"]["message"]


def test_what_was_tried_is_forgotten(lab, settings):
    services.key_in_use(lab.support)
    old, fresh = start(lab, lab.bob, some_text(lab)), start(lab, lab.bob, some_text(lab))
    piece = Piece(run=old, n=1)
    piece.sealed = seal([{"t": "text", "v": "x"}], identity=piece_identity(piece.pk))
    piece.save()
    for days in (31, 1):
        setup = services.share_setup(acting(lab.bob), project=lab.support, setup={"columns": [{}]})
        Setup.objects.filter(pk=setup.pk).update(made_at=timezone.now() - timedelta(days=days))
    Run.objects.filter(pk=old.pk).update(started_at=timezone.now() - timedelta(hours=25))
    with no_event():
        # Nobody reads what is older, whether or not somebody came by to remove it.
        with pytest.raises(NotFound):
            run_of(lab.bob, lab.bob.pk, old.pk)
        for row in Setup.objects.filter(made_at__lt=timezone.now() - timedelta(days=30)):
            with pytest.raises(NotFound):
                setup_of(lab.bob, row.pk)
        assert services.forget_old() == 2
    assert list(Run.objects.all()) == [fresh] and not Piece.objects.exists() and Setup.objects.count() == 1


def test_a_page_about_a_prompt_leads_here(lab):
    client = signed_in(lab.bob)
    page = client.get(f"/admin/prompts/prompt/{lab.prompt.pk}/change/").content.decode()
    assert f"/playground/?prompt={lab.prompt.pk}" in page
    opened = client.get(f"/playground/?prompt={lab.prompt.pk}").content.decode()
    assert str(lab.support.pk) in opened.split("playground-start")[1]
    assert client.get(f"/playground/?prompt={lab.foreign_prompt.pk}").status_code == 404


def test_a_prompt_is_found_at_the_same_cost_however_many_projects_there_are(lab):
    def opened():
        with CaptureQueriesContext(connection) as asked:
            assert client.get(f"/playground/?prompt={lab.prompt.pk}").status_code == 200
        return len(asked)

    client = signed_in(lab.root)
    opened()
    before = opened()
    for number in range(5):
        access.create_project(COMMAND, slug=f"before-{number}")
    assert opened() == before


def test_a_sample_takes_nothing_back_that_a_colleague_wrote_meanwhile(lab):
    stale = prompt_of(lab.support, lab.prompt.pk)
    prompts.add_version(COMMAND, prompt=lab.prompt, content={**lab.content, "system": "Newer."}, note="n")
    with one_event("prompt.version_added"):
        services.save_as_sample(acting(lab.bob), prompt=stale, name="Bob", variables={"name": "Bob"})
    lab.prompt.refresh_from_db()
    assert lab.prompt.current.number == 3 and lab.prompt.current.content["system"] == "Newer."


@pytest.mark.parametrize("asked", ["", "[]", "{", "null", '{"project": 5}', '{"id": "x", "project": null}'])
def test_nonsense_is_refused(lab, asked):
    client = signed_in(lab.bob)
    for name in ("run", "cancel", "share", "save-version", "save-sample", "renew-key"):
        with no_event():
            answer = client.post(f"/playground/{name}/", {"asked": asked})
        assert answer.status_code in (400, 404), (name, answer.content)
        assert answer.json()["error"]["message"]


def test_ids_must_be_ids(lab):
    with pytest.raises(InvalidRequest):
        start(lab, lab.bob, some_text(lab, id="1"))
    assert (
        not ProjectKey.objects.exists() and not Event.objects.filter(action__startswith="playground").exists()
    )
    assert str(uuid7())


@pytest.mark.parametrize("view", ["run", "share", "save-version", "save-sample"])
def test_what_cannot_be_passed_on_is_refused_before_anything_is_made(lab, view):
    asked = {
        "project": str(lab.support.pk), "columns": [{"source": "text", "messages": "ODD"}], "variables": {"name": "ODD"},
        "column": a_column(lab, variables={"name": "ODD"}), "slug": "odd", "note": "", "prompt": str(lab.prompt.pk), "name": "odd",
    }  # fmt: skip
    if view == "run":
        asked = a_column(lab, variables={"name": "ODD"})
    client = signed_in(lab.bob)
    for odd in ("NaN", "-Infinity", "1e999", '"\\ud800"', "[" * 50_000 + "]" * 50_000, "9" * 5_000):
        with no_event():
            answer = client.post(f"/playground/{view}/", {"asked": json.dumps(asked).replace('"ODD"', odd)})
        assert answer.status_code == 400 and answer.json()["error"]["param"] == "asked", odd[:20]
    assert not Setup.objects.exists() and not Run.objects.exists()
