"""Making prompts, naming them, and putting them away."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.utils import timezone

from llmops.access.models import Project
from llmops.audit.services import record_of
from llmops.base import drafts
from llmops.base.transitions import compare_and_set
from llmops.core.actors import Actor
from llmops.core.errors import Conflict
from llmops.prompts import content as contents
from llmops.prompts.models import Prompt
from llmops.prompts.services._rows import append_version, check_name, in_use, told

FIELDS = ("description",)


def create_prompt(
    actor: Actor,
    *,
    slug: str,
    project: Project | None = None,
    description: str = "",
    content: Any = None,
    draft: Any = None,
    note: str = "",
) -> Prompt:
    """A new prompt, with its first version (``content``), or with a ``draft``, or empty.

    Without a project it is shared by the whole organisation. Raises ``InvalidRequest`` naming what is wrong in the content,
    ``Conflict`` for a name that is taken.
    """
    with transaction.atomic():
        drafts.editing()
        prompt = Prompt(slug=slug, project=project, description=description)
        check_name(slug, project)
        drafts.checked(prompt)
        kept = None if content is None else contents.checked(content)
        if draft is not None and kept is None:
            prompt.draft = contents.drafted(draft)
            prompt.draft_by, prompt.draft_at = actor.name[:200], timezone.now()
        drafts.inserted(prompt)
        after = {"slug": slug, "project": project.slug if project else None, "description": description}
        if kept is not None:
            after |= told(append_version(actor, prompt, kept, number=1, note=note), None)
        record_of(actor, prompt, action="prompt.created", after=after, reason=note.strip())
    return prompt


def update_prompt(actor: Actor, *, prompt: Prompt, changes: dict[str, Any]) -> Prompt:
    """Change ``FIELDS``. Without a difference nothing is written."""
    with transaction.atomic():
        drafts.editing()
        stored = in_use(prompt)
        before = drafts.values(stored, FIELDS)
        drafts.assign(stored, changes, allowed=FIELDS)
        drafts.checked(stored, lines=("draft",))
        old, new = drafts.difference(before, drafts.values(stored, FIELDS))
        if not new:
            return stored
        stored.save()
        record_of(actor, stored, action="prompt.changed", before=old, after=new)
    return stored


def duplicate_prompt(
    actor: Actor, *, prompt: Prompt, slug: str, project: Project | None = None, note: str = ""
) -> Prompt:
    """A new prompt whose first version says what the newest one of ``prompt`` says; its draft, where there is no version."""
    with transaction.atomic():
        drafts.editing()
        source = drafts.locked(prompt)
        check_name(slug, project)
        copy = Prompt(slug=slug, project=project, description=source.description)
        drafts.checked(copy)
        if source.current is None:
            copy.draft = source.draft
            copy.draft_by, copy.draft_at = (actor.name[:200], timezone.now()) if source.draft else ("", None)
        drafts.inserted(copy)
        after = {"slug": slug, "project": project.slug if project else None, "copy_of": source.slug}
        if source.current is not None:
            line = note.strip() or f"a copy of {source.slug}, version {source.current.number}"
            after |= told(append_version(actor, copy, source.current.content, number=1, note=line), None)
        record_of(actor, copy, action="prompt.created", after=after, reason=note.strip())
    return copy


def archive_prompt(actor: Actor, *, prompt: Prompt) -> Prompt:
    """Put a prompt away: it is left out of what is published next."""
    return _set_archived(actor, prompt, archived=True)


def unarchive_prompt(actor: Actor, *, prompt: Prompt) -> Prompt:
    return _set_archived(actor, prompt, archived=False)


def _set_archived(actor: Actor, prompt: Prompt, *, archived: bool) -> Prompt:
    with transaction.atomic():
        drafts.editing()
        stored = drafts.locked(prompt)
        change = {"archived_at": timezone.now() if archived else None}
        if not compare_and_set(stored, expect={"archived_at__isnull": archived}, change=change):
            raise Conflict(f"This prompt is {'already archived' if archived else 'not archived'}.")
        record_of(
            actor,
            stored,
            action="prompt.archived" if archived else "prompt.restored",
            before={"archived": not archived},
            after={"archived": archived},
        )
    return stored


def note_export(actor: Actor, *, prompt: Prompt, number: int | None) -> None:
    """That somebody took a version of a prompt (None: the newest) out as files."""
    taken = number if number is not None else prompt.current.number if prompt.current else None
    with transaction.atomic():
        record_of(actor, prompt, action="prompt.exported", after={"version": taken})
