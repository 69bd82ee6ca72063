"""From work in progress to an immutable version."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.utils import timezone

from llmops.access.models import Project
from llmops.audit.services import record_of
from llmops.base import drafts
from llmops.core.actors import Actor
from llmops.core.errors import Conflict
from llmops.prompts import content as contents
from llmops.prompts.models import Prompt, PromptVersion
from llmops.prompts.services._rows import append_version, check_name, in_use, next_number, told
from llmops.prompts.services.prompts import create_prompt
from llmops.prompts.wording import differences


def save_draft(actor: Actor, *, prompt: Prompt, draft: Any, description: str | None = None) -> Prompt:
    """Keep work in progress, right or not yet, and the prompt's ``description`` if one is given."""
    with transaction.atomic():
        drafts.editing()
        stored = in_use(prompt)
        kept = contents.drafted(draft)
        described = _describe(stored, description)
        if stored.draft == kept and not described:
            return stored
        base = stored.current.content if stored.current else contents.EMPTY
        stored.draft, stored.draft_by, stored.draft_at = kept, actor.name[:200], timezone.now()
        stored.save()
        record_of(
            actor, stored, action="prompt.draft_saved", after={"changes": _changes(base, kept), **described}
        )
    return stored


def discard_draft(actor: Actor, *, prompt: Prompt) -> Prompt:
    """Raises ``Conflict`` when there is no draft."""
    with transaction.atomic():
        drafts.editing()
        stored = drafts.locked(prompt)
        if stored.draft is None:
            raise Conflict(f"{stored.slug} has no draft.")
        base = stored.current.content if stored.current else contents.EMPTY
        lost = _changes(base, stored.draft)
        stored.draft, stored.draft_by, stored.draft_at = None, "", None
        stored.save()
        record_of(actor, stored, action="prompt.draft_discarded", before={"changes": lost})
    return stored


def add_version(
    actor: Actor,
    *,
    prompt: Prompt,
    content: Any = None,
    note: str = "",
    expected: int | None = None,
    description: str | None = None,
) -> PromptVersion:
    """The next version: of ``content``, or of the draft. It serves once it is published.

    ``expected`` is the newest version that the caller saw (0 for none). Raises ``InvalidRequest`` naming what is wrong,
    ``Conflict`` when nothing differs from the newest version, or another one is the newest.
    """
    with transaction.atomic():
        drafts.editing()
        stored = in_use(prompt)
        newest = stored.current
        number = newest.number if newest else 0
        if expected is not None and expected != number:
            raise Conflict(
                f"Version {number} of {stored.slug} was made meanwhile, by {newest.created_by if newest else 'nobody'}. "
                "Compare with it, then make yours."
            )
        given = stored.draft if content is None else content
        if given is None:
            raise Conflict(f"{stored.slug} has no draft to make a version of.")
        kept = contents.checked(given)
        if newest is not None and contents.digest_of(kept) == newest.digest:
            raise Conflict(f"Nothing differs from version {number} of {stored.slug}.")
        described = _describe(stored, description)
        version = append_version(actor, stored, kept, number=next_number(stored), note=note)
        record_of(
            actor,
            stored,
            action="prompt.version_added",
            before={"version": number or None},
            after={**told(version, newest), **described},
            reason=note.strip(),
        )
    return version


def import_prompt(
    actor: Actor,
    *,
    slug: str,
    project: Project | None,
    content: Any,
    description: str | None = None,
    note: str = "",
) -> tuple[Prompt, str]:
    """Bring a prompt in from a file: a new one, another version of the one of that name, or nothing that differs.

    Returns the prompt and ``created``, ``version_added`` or ``unchanged``.
    """
    with transaction.atomic():
        drafts.editing()
        found = Prompt.objects.filter(slug=slug, project=project).first()
        if found is None:
            check_name(slug, project)
            made = create_prompt(
                actor, slug=slug, project=project, description=description or "", content=content, note=note
            )
            return made, "created"
        kept = contents.checked(content)
        if found.current is not None and contents.digest_of(kept) == found.current.digest:
            return found, "unchanged"
        add_version(actor, prompt=found, content=kept, note=note)
        found.refresh_from_db()
        return found, "version_added"


def _describe(prompt: Prompt, description: str | None) -> dict[str, str]:
    """Set the description, where one is given that differs; what of it goes on record."""
    if description is None or description == prompt.description:
        return {}
    prompt.description = description
    drafts.checked(prompt, lines=("draft",))
    return {"description": description}


def _changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    try:
        return differences(before, after)
    except (TypeError, KeyError, AttributeError, ValueError):
        # A draft may hold anything.
        return ["changed"]
