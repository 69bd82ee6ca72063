"""Moving labels: which version ``production`` means is said here, and holds once it is published."""

from __future__ import annotations

from django.db import transaction

from llmops.audit.services import record_of
from llmops.base import drafts
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, NotFound
from llmops.prompts.models import Label, LabelMove, Prompt
from llmops.prompts.services._rows import checked_line, in_use

MOST_LABELS = 50
_WHY = "say why; it is kept with the label's history and read by whoever undoes it."


def move_label(
    actor: Actor, *, prompt: Prompt, name: str, number: int, reason: str, expected: int | None = None
) -> Label:
    """Point the label ``name`` to version ``number``; a label that there is not is made.

    ``expected`` is the version that the caller saw it point to (0 for none). Raises ``NotFound`` for a version that there is not,
    ``Conflict`` when it points there already, or was moved meanwhile.
    """
    with transaction.atomic():
        drafts.editing()
        stored = in_use(prompt)
        why = checked_line(reason, "reason", needed=_WHY)
        version = stored.versions.filter(number=number).first()
        if version is None:
            raise NotFound(f"{stored.slug} has no version {number}.", param="version")
        label = stored.labels.select_related("version").filter(name=name).first()
        before = label.version.number if label else 0
        _check_expected(stored, name, before, expected)
        if before == number:
            raise Conflict(f"{name} of {stored.slug} points to version {number} already.")
        if label is None:
            if stored.labels.count() >= MOST_LABELS:
                raise Conflict(f"{stored.slug} has {MOST_LABELS} labels; remove one first.")
            label = Label(prompt=stored, name=name, version=version)
            drafts.checked(label)
            drafts.inserted(label)
        else:
            label.version = version
            label.save()
        _moved(actor, stored, name, before or None, number, why)
    return label


def remove_label(
    actor: Actor, *, prompt: Prompt, name: str, reason: str, expected: int | None = None
) -> None:
    """Take a label away; its history stays. Services that name it are refused once this is published."""
    with transaction.atomic():
        drafts.editing()
        stored = in_use(prompt)
        why = checked_line(reason, "reason", needed=_WHY)
        label = stored.labels.select_related("version").filter(name=name).first()
        if label is None:
            raise NotFound(f"{stored.slug} has no label {name!r}.", param="name")
        before = label.version.number
        _check_expected(stored, name, before, expected)
        label.delete()
        _moved(actor, stored, name, before, None, why)


def _check_expected(prompt: Prompt, name: str, before: int, expected: int | None) -> None:
    if expected is not None and expected != before:
        raise Conflict(
            f"{name} of {prompt.slug} was moved meanwhile: it {f'points to version {before}' if before else 'is gone'}. "
            "Look at its history, then decide again."
        )


def _moved(
    actor: Actor, prompt: Prompt, name: str, before: int | None, after: int | None, reason: str
) -> None:
    LabelMove.objects.create(
        prompt=prompt,
        name=name,
        from_version=before,
        to_version=after,
        reason=reason,
        moved_by=actor.name[:200],
    )
    record_of(
        actor,
        prompt,
        action="prompt.label_moved" if after else "prompt.label_removed",
        before={"label": name, "version": before},
        after={"label": name, "version": after},
        reason=reason,
    )
