"""From what was tried to what is kept: a version of a prompt, a new prompt, a sample. The prompts room does the work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import transaction

from llmops.access.models import Project
from llmops.base import drafts
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, InvalidRequest
from llmops.playground.asked import DRAFT, EDITED, PROMPT, TEXT, edited_content
from llmops.playground.selectors import material_of
from llmops.prompts.content import EMPTY
from llmops.prompts.models import Prompt, PromptVersion
from llmops.prompts.parameters import checked_parameters
from llmops.prompts.services import add_version, create_prompt, save_draft
from llmops.providers.selectors import route_exists


def content_of(column: Mapping[str, Any], prompt: Prompt | None) -> dict[str, Any]:
    """What a version would say that asks what ``column`` asks. Raises ``InvalidRequest`` for turns that no version can hold."""
    if column.get("source") == TEXT:
        content = {**EMPTY, **_of_turns(column.get("messages")), "variables": None}
    elif column.get("source") in (PROMPT, EDITED) and prompt is not None:
        base = material_of(prompt, column.get("version")).content
        content = edited_content(column, base) if column["source"] == EDITED else dict(base)
        _complete_samples(content, column.get("variables"))
    else:
        raise InvalidRequest("source: choose what to save.", param="source")
    given = column.get("parameters")
    changed = checked_parameters({} if given is None else given)
    content["parameters"] = {**(content.get("parameters") or {}), **changed}
    shape = column.get("response_format")
    if isinstance(shape, Mapping) and isinstance(shape.get("schema"), Mapping):
        content["output_schema"] = dict(shape["schema"])
    model = column.get("model")
    if isinstance(model, str) and model and route_exists(model):
        content["route"] = model
    return content


def _complete_samples(content: dict[str, Any], values: object) -> None:
    """Samples of the prompt get the value that stands on the page for a variable that is new, and that they need."""
    if not isinstance(values, Mapping):
        return
    needed = {
        one["name"]: values[one["name"]]
        for one in content.get("variables") or ()
        if isinstance(one, Mapping)
        and one.get("required", True)
        and one.get("default") is None
        and one.get("name") in values
    }
    content["samples"] = [
        {**one, "variables": {**needed, **(one.get("variables") or {})}}
        for one in content.get("samples") or ()
        if isinstance(one, Mapping)
    ]


@transaction.atomic
def save_as_version(
    actor: Actor,
    *,
    project: Project,
    prompt: Prompt | None,
    column: Mapping[str, Any],
    note: str,
    slug: str = "",
    expected: int | None = None,
    replace_draft: bool = False,
) -> PromptVersion:
    """The next version of ``prompt``, or without one the first version of a new prompt ``slug`` of the project.

    A version takes the place of a draft: of one that it was not made from only with ``replace_draft``.
    """
    if prompt is not None:
        prompt = _as_it_stands(prompt)
    content = content_of(column, prompt)
    if prompt is None:
        made = create_prompt(actor, slug=slug, project=project, content=content, note=note)
        assert made.current is not None
        return made.current
    if prompt.draft is not None and column.get("version") != DRAFT and not replace_draft:
        raise Conflict(
            f"{prompt.slug} has a draft by {prompt.draft_by}, which would be gone: a version takes its place. Look at it "
            "first, or save once more to replace it.",
            code="draft_in_the_way",
        )
    return add_version(actor, prompt=prompt, content=content, note=note, expected=expected)


@transaction.atomic
def save_as_sample(actor: Actor, *, prompt: Prompt, name: str, variables: Mapping[str, Any]) -> str:
    """Keep these values with the prompt, to be rendered and tried again: in its draft where there is one, else in a version.

    Answers where it is, in words. Raises ``Conflict`` for a name that is taken.
    """
    if not name.strip():
        raise InvalidRequest("name: say what these values are a sample of.", param="name")
    prompt = _as_it_stands(prompt)
    base = prompt.draft if prompt.draft is not None else prompt.current.content if prompt.current else EMPTY
    samples = [one for one in base.get("samples") or () if isinstance(one, Mapping)]
    if any(one.get("name") == name.strip() for one in samples):
        raise Conflict(f"name: {prompt.slug} has a sample of this name already.", param="name")
    declared = base.get("variables") or ()
    names = {one.get("name") for one in declared if isinstance(one, Mapping)}
    kept = {key: value for key, value in variables.items() if not names or key in names}
    content = {**base, "samples": [*samples, {"name": name.strip(), "variables": kept}]}
    if prompt.draft is not None:
        save_draft(actor, prompt=prompt, draft=content)
        return f"in the draft of {prompt.slug}"
    version = add_version(actor, prompt=prompt, content=content, note=f"sample: {name.strip()}"[:300])
    return f"in version {version.number} of {prompt.slug}"


def _as_it_stands(prompt: Prompt) -> Prompt:
    """The stored prompt, which nobody changes until the transaction ends: what follows is written over what it says."""
    drafts.editing()
    return drafts.locked(prompt)


def _of_turns(given: object) -> dict[str, str]:
    turns = [one for one in given if isinstance(one, Mapping)] if isinstance(given, list) else []
    texts: dict[str, list[str]] = {"system": [], "user": [], "assistant": []}
    for one in turns:
        role, text = one.get("role"), one.get("content")
        if role in texts and isinstance(text, str) and text.strip():
            texts[role].append(text)
    if texts["assistant"] or len(texts["user"]) > 1:
        raise InvalidRequest(
            "messages: a prompt says one thing as the system and one as the user; what follows is the services' own. Take the "
            "other turns out, then save.",
            param="messages",
        )
    return {"system": "\n\n".join(texts["system"]), "user": "".join(texts["user"])}
