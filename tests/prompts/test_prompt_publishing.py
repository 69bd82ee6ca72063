"""Prompts on their way to what is live: what is compiled, what stands in the way, what is said, and the way back."""

from __future__ import annotations

import json

import pytest

from llmops.access import services as access
from llmops.core.errors import UnprocessableEntity
from llmops.prompts import published, services
from llmops.prompts.models import PromptVersion
from llmops.prompts.rendering import RENDERER
from llmops.providers import services as providers
from llmops.serving import services as serving
from llmops.serving.selectors import live_prompts, load_snapshot, pending
from tests import configuring
from tests.cast import cast  # noqa: F401
from tests.configuring import OPERATOR

pytestmark = pytest.mark.django_db

HELLO = {"system": "You greet.", "user": "{{ name }}", "route": "chat"}


@pytest.fixture
def hello(cast):  # noqa: F811
    configuring.everything()
    made = services.create_prompt(OPERATOR, slug="hello", project=cast.support, content=HELLO)
    services.add_version(OPERATOR, prompt=made, content={**HELLO, "system": "You greet politely."})
    services.move_label(OPERATOR, prompt=made, name="production", number=1, reason="goes live")
    return made


def publish(reason="ready"):
    return serving.publish(OPERATOR, reason=reason)


def refused():
    with pytest.raises(UnprocessableEntity) as raised:
        publish()
    return [problem["message"] for problem in raised.value.data["problems"]]


def test_from_a_label_to_what_is_live_and_back(hello):
    first = publish()
    assert "prompt support/hello added: 2 versions, the newest 2; production → version 1" in first.changes
    live = live_prompts()["support", "hello"]
    assert (live.revision, live.labels, live.versions) == (1, {"production": 1}, {1, 2})
    snapshot = load_snapshot()
    entry = snapshot.prompts["support", "hello"]
    assert (
        published.served(entry, "production").compiled.render({"name": "Ada"}).user
        == "<user_data>\nAda\n</user_data>"
    )
    services.move_label(OPERATOR, prompt=hello, name="production", number=2, reason="politer")
    assert live_prompts()["support", "hello"].labels == {"production": 1}
    assert publish().changes == ["prompt support/hello: production version 1 → version 2"]
    assert live_prompts()["support", "hello"].labels == {"production": 2}
    # Rolling back takes the label back with everything else.
    serving.restore(OPERATOR, number=1, reason="not so polite")
    assert live_prompts()["support", "hello"].labels == {"production": 1}
    assert load_snapshot(snapshot).prompts["support", "hello"].labels == {"production": 1}


def test_a_document_names_no_ids_and_equal_configuration_is_equal_bytes(hello):
    text = publish().document
    assert str(hello.pk) not in text
    assert str(hello.project_id) not in text
    services.save_draft(OPERATOR, prompt=hello, draft={"task": "{{ half"})
    assert pending().changes == []


def test_what_a_label_points_to_must_be_able_to_serve(hello):
    publish()
    providers.archive_route(OPERATOR, route=configuring.Route.objects.get())
    assert refused() == [
        "Prompt support/hello, version 1 (production) goes the route chat, which is not there."
    ]
    # What no label points to keeps nobody from publishing.
    services.move_label(OPERATOR, prompt=hello, name="production", number=2, reason="x")
    services.add_version(OPERATOR, prompt=hello, content={**HELLO, "route": ""})
    services.move_label(OPERATOR, prompt=hello, name="production", number=3, reason="x")
    assert publish().number == 2


def test_a_version_that_renders_otherwise_than_it_promised_is_refused(hello):
    content = {**HELLO, "samples": [{"name": "ada", "variables": {"name": "Ada"}}]}
    version = services.add_version(OPERATOR, prompt=hello, content=content)
    made = PromptVersion(
        prompt=hello,
        number=version.number + 1,
        content={**version.content, "system": "Other words."},
        digest="0" * 64,
        # As an earlier renderer would have left it.
        renderings=version.renderings,
        renderer=RENDERER + 1,
        created_by="x",
    )
    made.save(force_insert=True)
    assert not [one for one in pending().problems if one.level == "error"]
    services.move_label(OPERATOR, prompt=hello, name="production", number=made.number, reason="x")
    assert refused() == [
        f"Prompt support/hello, version {made.number} (production) renders ada otherwise than when it was made. Make a new "
        "version of it."
    ]


def test_a_ceiling_is_held_against_each_model_of_the_route(hello):
    old = configuring.model("old", upstream_model="gpt-3.5-turbo-0125", prices={"input": "1", "output": "1"})
    samples = [{"name": "jp", "variables": {"name": "東京特許許可局長今日急遽休暇許可拒否" * 3}}]
    content = {**HELLO, "route": "older", "samples": samples, "token_ceiling": 130}
    version = services.add_version(OPERATOR, prompt=hello, content=content)
    (told,) = version.renderings
    assert told["tokens"]["o200k_base"] <= 130 < told["tokens"]["cl100k_base"]
    services.move_label(OPERATOR, prompt=hello, name="production", number=version.number, reason="x")
    configuring.route("older", old)
    assert "more than the 130 that it allows itself" in refused()[0]


def test_archived_prompts_are_left_out_and_said(hello):
    publish()
    services.archive_prompt(OPERATOR, prompt=hello)
    assert publish().changes == ["prompt support/hello removed: services that name it are refused"]
    assert live_prompts() == {}


def test_a_label_that_was_removed_is_said_and_its_version_can_still_be_named(hello):
    publish()
    services.move_label(OPERATOR, prompt=hello, name="beta", number=2, reason="x")
    services.remove_label(OPERATOR, prompt=hello, name="production", reason="x")
    assert publish().changes == [
        "prompt support/hello: label beta added: version 2",
        "prompt support/hello: label production removed (it meant version 1): services that name it are refused",
    ]
    assert live_prompts()["support", "hello"].versions == {1, 2}


def test_a_prompt_without_a_label_is_worth_knowing(hello):
    services.create_prompt(OPERATOR, slug="lonely", content={"task": "Hi"})
    found = pending()
    assert found.publishable
    assert [one.message for one in found.warnings if one.kind == "prompt"] == [
        "Prompt lonely has no label: services can name its versions by their numbers only."
    ]


def test_many_versions_keep_what_labels_ever_meant(hello, monkeypatch):
    monkeypatch.setattr("llmops.prompts.serving.NEWEST", 2)
    for number in range(3, 7):
        services.add_version(OPERATOR, prompt=hello, content={**HELLO, "system": f"Version {number}."})
    services.move_label(OPERATOR, prompt=hello, name="production", number=3, reason="x")
    services.move_label(OPERATOR, prompt=hello, name="production", number=6, reason="x")
    document = json.loads(publish().document)
    assert [one["number"] for one in document["prompts"][0]["versions"]] == [1, 3, 5, 6]


def test_a_project_that_is_archived_takes_its_prompts_along(hello, cast):  # noqa: F811
    publish()
    access.archive_project(OPERATOR, project=cast.support)
    # Its keys are refused at once; its prompts are nobody's then.
    assert load_snapshot().live.keys == {}
