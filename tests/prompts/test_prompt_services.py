"""Prompts made, drafted, versioned, labelled, copied and put away: one event each, and versions never change."""

from __future__ import annotations

import pytest
from django.db import DatabaseError, connection, transaction

from llmops.access import services as access
from llmops.core.errors import Conflict, InvalidRequest, NotFound
from llmops.prompts import files, services
from llmops.prompts.api import import_archive
from llmops.prompts.models import Label, LabelMove, Prompt, PromptVersion
from llmops.prompts.rendering import Compiled
from llmops.prompts.selectors import content_to_edit, costs_of, moves_of
from tests import configuring
from tests.cast import in_threads, no_event, one_event
from tests.configuring import OPERATOR

pytestmark = pytest.mark.django_db

HELLO = {"system": "You greet.", "user": "{{ name }}"}
POLITE = {**HELLO, "system": "You greet politely."}


def prompt(slug="hello", content=HELLO, **fields):
    return services.create_prompt(OPERATOR, slug=slug, content=content, **fields)


def test_from_nothing_to_versions_and_labels():
    with one_event("prompt.created") as seen:
        made = prompt(note="first", description="Greets")
    assert seen.event.after["version"] == 1
    assert seen.event.after["changes"] == [
        "system policy: 3 words added",
        "user data: 5 words added",
        "variable name: text, required added",
    ]
    assert (seen.event.reason, made.current.note, made.current.number) == ("first", "first", 1)
    with one_event("prompt.draft_saved") as seen:
        made = services.save_draft(OPERATOR, prompt=made, draft={**POLITE, "task": "{{ half"})
    assert content_to_edit(made)["task"] == "{{ half"
    with no_event():
        services.save_draft(OPERATOR, prompt=made, draft={**POLITE, "task": "{{ half"})
        with pytest.raises(InvalidRequest) as refused:
            services.add_version(OPERATOR, prompt=made)
    assert refused.value.param == "task"
    services.save_draft(OPERATOR, prompt=made, draft=POLITE)
    with one_event("prompt.version_added") as seen:
        second = services.add_version(OPERATOR, prompt=made, note="politer", expected=1)
    assert (seen.event.before, seen.event.after["version"]) == ({"version": 1}, 2)
    assert seen.event.after["changes"] == ["system policy: 1 words added"]
    made.refresh_from_db()
    assert (made.draft, made.current) == (None, second)
    with pytest.raises(Conflict, match="Nothing differs"), no_event():
        services.add_version(OPERATOR, prompt=made, content=POLITE)
    with pytest.raises(Conflict, match="Version 2 of hello was made meanwhile"), no_event():
        services.add_version(OPERATOR, prompt=made, content=HELLO, expected=1)
    with pytest.raises(Conflict, match="no draft"), no_event():
        services.add_version(OPERATOR, prompt=made)


def test_every_move_of_a_label_is_kept():
    made = prompt()
    services.add_version(OPERATOR, prompt=made, content=POLITE)
    with one_event("prompt.label_moved") as seen:
        services.move_label(
            OPERATOR, prompt=made, name="production", number=1, reason="goes live", expected=0
        )
    assert (seen.event.before, seen.event.after) == (
        {"label": "production", "version": None},
        {"label": "production", "version": 1},
    )
    services.move_label(OPERATOR, prompt=made, name="production", number=2, reason="politer", expected=1)
    with pytest.raises(Conflict, match="moved meanwhile: it points to version 2"), no_event():
        services.move_label(OPERATOR, prompt=made, name="production", number=1, reason="back", expected=1)
    with pytest.raises(Conflict, match="already"), no_event():
        services.move_label(OPERATOR, prompt=made, name="production", number=2, reason="again")
    with pytest.raises(NotFound), no_event():
        services.move_label(OPERATOR, prompt=made, name="production", number=9, reason="x")
    for reason in ("", " ", "a\nb", "a" * 301):
        with pytest.raises(InvalidRequest), no_event():
            services.move_label(OPERATOR, prompt=made, name="production", number=1, reason=reason)
    for name in ("1", "Prod", "", "a b", "a" * 64):
        with pytest.raises(InvalidRequest), no_event():
            services.move_label(OPERATOR, prompt=made, name=name, number=1, reason="x")
    with one_event("prompt.label_removed"):
        services.remove_label(OPERATOR, prompt=made, name="production", reason="over")
    with pytest.raises(NotFound), no_event():
        services.remove_label(OPERATOR, prompt=made, name="production", reason="over")
    told = [(one.from_version, one.to_version, one.reason, one.moved_by) for one in moves_of(made)]
    assert told == [
        (2, None, "over", OPERATOR.name),
        (1, 2, "politer", OPERATOR.name),
        (None, 1, "goes live", OPERATOR.name),
    ]


@pytest.mark.parametrize("table", ["prompts_prompt_version", "prompts_label_move"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET id = id", "DELETE FROM {}"])
def test_the_database_refuses_to_change_what_is_kept(table, statement):
    services.move_label(OPERATOR, prompt=prompt(), name="production", number=1, reason="x")
    with (
        pytest.raises(DatabaseError, match="append-only"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(statement.format(table))
    assert (PromptVersion.objects.count(), LabelMove.objects.count()) == (1, 1)


def test_names_of_projects_and_shared_ones(cast):
    prompt(project=cast.support)
    prompt(project=cast.search)
    for project in (cast.support, None):
        with pytest.raises(Conflict), no_event():
            prompt(project=project)
    prompt("shared")
    for project in (cast.support, None):
        with pytest.raises(Conflict), no_event():
            prompt("shared", project=project)
    with pytest.raises(InvalidRequest), no_event():
        prompt("Not a name")
    access.archive_project(OPERATOR, project=cast.search)
    cast.search.refresh_from_db()
    with pytest.raises(InvalidRequest, match="archived"), no_event():
        prompt("late", project=cast.search)


def test_a_copy_begins_anew(cast):
    made = prompt()
    services.add_version(OPERATOR, prompt=made, content=POLITE)
    services.move_label(OPERATOR, prompt=made, name="production", number=1, reason="x")
    with one_event("prompt.created") as seen:
        copy = services.duplicate_prompt(OPERATOR, prompt=made, slug="other", project=cast.support)
    assert seen.event.after["copy_of"] == "hello"
    assert (copy.current.number, copy.current.content, copy.labels.count()) == (
        1,
        made.versions.get(number=2).content,
        0,
    )
    assert copy.current.note == "a copy of hello, version 2"
    drafted = services.create_prompt(OPERATOR, slug="drafted", draft={"task": "{{ half"})
    assert services.duplicate_prompt(OPERATOR, prompt=drafted, slug="drafted-2").draft["task"] == "{{ half"


def test_what_is_put_away_is_not_changed():
    made = prompt()
    with one_event("prompt.archived"):
        made = services.archive_prompt(OPERATOR, prompt=made)
    for change in (
        lambda: services.archive_prompt(OPERATOR, prompt=made),
        lambda: services.add_version(OPERATOR, prompt=made, content=POLITE),
        lambda: services.save_draft(OPERATOR, prompt=made, draft=POLITE),
        lambda: services.move_label(OPERATOR, prompt=made, name="production", number=1, reason="x"),
        lambda: services.update_prompt(OPERATOR, prompt=made, changes={"description": "x"}),
    ):
        with pytest.raises(Conflict), no_event():
            change()
    with one_event("prompt.restored"):
        services.unarchive_prompt(OPERATOR, prompt=made)
    with one_event("prompt.changed"):
        services.update_prompt(OPERATOR, prompt=made, changes={"description": "x"})
    with no_event():
        services.update_prompt(OPERATOR, prompt=made, changes={"description": "x"})
    services.save_draft(OPERATOR, prompt=made, draft=POLITE)
    with one_event("prompt.draft_discarded"):
        services.discard_draft(OPERATOR, prompt=made)


@pytest.mark.django_db(transaction=True)
def test_of_two_who_make_the_same_version_one_is_told():
    made = prompt()

    def version(text):
        return services.add_version(
            OPERATOR, prompt=made, content={**HELLO, "system": text}, expected=1
        ).number

    outcomes = in_threads(*(lambda text=text: version(text) for text in ("One.", "Two.", "Three.")))
    assert sorted(str(type(one).__name__) for one in outcomes) == ["Conflict", "Conflict", "int"]
    assert sorted(made.versions.values_list("number", flat=True)) == [1, 2]


@pytest.mark.django_db(transaction=True)
def test_of_two_who_move_a_label_one_is_told():
    made = prompt()
    services.add_version(OPERATOR, prompt=made, content=POLITE)

    def move(number):
        return services.move_label(
            OPERATOR, prompt=made, name="production", number=number, reason="race", expected=0
        )

    outcomes = in_threads(lambda: move(1), lambda: move(2))
    assert sorted(isinstance(one, Label) for one in outcomes) == [False, True]
    assert LabelMove.objects.count() == Label.objects.count() == 1


# Files ---------------------------------------------------------------------------------------------------------------------


FULL = {
    "system": "Line one.\n\n  Indented: {{ tone }}\n",
    "task": "Ünïcode ✓ — “quotes”",
    "context": "{% for d in docs %}- {{ d.title }}\n{% endfor %}",
    "user": "{{ ticket }}",
    "output_schema": {"type": "object", "properties": {"label": {"type": "string"}}},
    "variables": [
        {"name": "tone", "type": "choice", "choices": ["nice", "curt"], "default": "nice"},
        {"name": "docs", "type": "list", "max_items": 5},
        {"name": "ticket", "type": "text", "max_length": 100, "description": "What they wrote"},
    ],
    "route": "chat",
    "parameters": {"temperature": 0.5, "stop": ["END\nEND"]},
    "token_ceiling": 1000,
    "samples": [{"name": "one", "variables": {"docs": [{"title": "a"}], "ticket": "It\nburns"}}],
}


def test_files_and_back(cast):
    made = prompt("full", FULL, description="All of it", note="why", project=cast.search)
    packed = files.pack(
        {
            "full": files.folder_of(
                made.current.content, description="All of it", note="why", renderings=made.current.renderings
            )
        }
    )
    (folder,) = files.unpack(packed)
    assert (folder.slug, folder.description, folder.note) == ("full", "All of it", "why")
    assert folder.content["samples"][0]["digest"] == made.current.renderings[0]["digest"]
    with one_event("prompt.created"):
        ((copy, outcome),) = import_archive(OPERATOR, packed, project=cast.support)
    assert outcome == "created"
    same = {**copy.current.content, "samples": made.current.content["samples"]}
    assert same == made.current.content
    with no_event():
        assert import_archive(OPERATOR, packed, project=cast.support)[0][1] == "unchanged"
    changed = files.pack({"full": {**files.folder_of(made.current.content), "task.md": "Other"}})
    with one_event("prompt.version_added"):
        assert import_archive(OPERATOR, changed, project=cast.support)[0][1] == "version_added"
    # A promise that no longer holds is told, and nothing stays.
    broken = files.folder_of(made.current.content, renderings=made.current.renderings) | {"task.md": "Other"}
    with pytest.raises(InvalidRequest, match="otherwise than it promises"), no_event():
        import_archive(
            OPERATOR, files.pack({"a-new-one": {"task.md": "Hi"}, "full": broken}), project=cast.support
        )
    assert not Prompt.objects.filter(slug="a-new-one").exists()


def test_equal_prompts_are_equal_archives():
    folder = files.folder_of(prompt().current.content)
    assert files.pack({"hello": folder}) == files.pack({"hello": dict(reversed(folder.items()))})


@pytest.mark.parametrize(
    "entries",
    [
        {"task.md": b"x"},
        {"../task.md": b"x"},
        {"/etc/task.md": b"x"},
        {"a/../b/task.md": b"x"},
        {"a/other.txt": b"x"},
        {"A b/task.md": b"x"},
        {"a/task.md": b"\xff\xfe"},
        {"a/prompt.yaml": b"x: [1"},
        {"a/prompt.yaml": b"- a"},
        {"a/prompt.yaml": b"other: 1"},
        {"a/prompt.yaml": b"variables: &v [{name: x}]\nsamples: *v"},
        {"a/prompt.yaml": b"route: !!python/object/apply:os.system [ls]"},
        {"a/output_schema.json": b"{"},
        {"a/output_schema.json": b"[" * 100_000},
        {"a/task.md": b"x" * 2_000_000},
        {},
    ],
    ids=range(16),
)
def test_archives_that_are_wrong_are_refused(entries):
    import io
    import zipfile

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    with pytest.raises(InvalidRequest), no_event():
        import_archive(OPERATOR, packed.getvalue(), project=None)
    with pytest.raises(InvalidRequest), no_event():
        import_archive(OPERATOR, packed.getvalue()[:-9] + b"123456789", project=None)


def test_what_a_rendering_costs_with_each_model_of_its_route():
    small = configuring.model(upstream_model="gpt-4o-2024-08-06", prices={"input": "2.50", "output": "10"})
    large = configuring.model("large", context_window=110, max_output_tokens=110, prices={})
    configuring.route("chat", small, fallbacks=(large,))
    content = prompt(
        "priced", {**HELLO, "route": "chat", "parameters": {"max_output_tokens": 50}}
    ).current.content
    rendered = Compiled(content, content["variables"]).render({"name": "Ada"})
    first, second = costs_of(rendered, content)
    assert (first.model, first.role, first.exact, first.fits) == ("small", "target", True, True)
    assert first.input_nano == first.tokens * 2_500
    assert first.most_nano == first.tokens * 2_500 + 50 * 10_000
    assert (second.model, second.role, second.input_nano) == ("large", "fallback", None)
    assert second.fits is (second.tokens + 50 <= 110)
