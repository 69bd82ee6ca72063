"""Service keys that the console holds itself, to call models for a project as its services do: made when first needed, shown to
nobody. Each room that calls has its own (``HeldKeys``), so that revoking one stops that room alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import models, transaction

from llmops.access.models import Project
from llmops.access.services import create_service_key
from llmops.base.locks import lock
from llmops.base.models import TimestampedModel
from llmops.core.actors import SYSTEM, Actor
from llmops.core.errors import Conflict, InvalidRequest

#: What such a key may call until somebody narrows it.
EVERYTHING = ("*",)


class HeldKey(TimestampedModel):
    """The ground of a room's table: a row for each project, with ``project`` and ``service_key`` of its own. The secret is sealed."""

    sealed = models.TextField(editable=False)

    class Meta:
        abstract = True


@dataclass(frozen=True)
class HeldKeys:
    """``model`` is a ``HeldKey`` with ``project`` and ``service_key``; ``name`` what its keys are called; ``whose`` how the room is
    named in a sentence; ``again`` what to do about a key that was revoked. ``seal`` and ``opened`` take the row's id."""

    model: Any
    name: str
    whose: str
    again: str
    revoked_code: str
    seal: Callable[[str, object], str]
    opened: Callable[[str, object], str]

    @transaction.atomic
    def in_use(self, project: Project) -> tuple[Any, str]:
        """The project's row and the secret of its key; made now if there is none yet. Raises ``Conflict`` when it was revoked."""
        found = self._row(project)
        if found is None:
            lock(f"{self.name}.key.{project.pk}")
            found = self._row(project)
        if found is None:
            # The system's doing, and not that of whoever happens to come first: it may be more than they may call.
            found = self._made(SYSTEM, project, self.name)
        elif found.service_key.revoked_at is not None:
            raise Conflict(
                f"The key of {self.whose} of {project} was revoked, so {self.again}", code=self.revoked_code
            )
        return found, self.opened(found.sealed, found.pk)

    @transaction.atomic
    def renew(self, actor: Actor, *, project: Project) -> Any:
        """Issue another key in place of one that was revoked. Raises ``Conflict`` while the present one works."""
        lock(f"{self.name}.key.{project.pk}")
        found = self._row(project)
        if found is None:
            raise InvalidRequest(
                f"The key of {self.whose} of {project} is made by itself with the first run."
            )
        if found.service_key.revoked_at is None:
            raise Conflict(f"The key of {self.whose} of {project} works; there is no need for another one.")
        found.delete()
        taken = set(project.service_keys.values_list("name", flat=True))
        name = next(name for n in range(2, 10_000) if (name := f"{self.name} {n}") not in taken)
        return self._made(actor, project, name)

    def _row(self, project: Project) -> Any:
        return self.model.objects.filter(project=project).select_related("service_key").first()

    def _made(self, actor: Actor, project: Project, name: str) -> Any:
        taken = set(project.service_keys.values_list("name", flat=True))
        while name in taken:
            name = f"{name} of the console"
        issued = create_service_key(
            actor,
            project=project,
            name=name,
            allowed_routes=EVERYTHING,
            allowed_models=EVERYTHING,
            held_by_console=True,
        )
        row = self.model(project=project, service_key=issued.key)
        row.sealed = self.seal(issued.secret, row.pk)
        row.save(force_insert=True)
        return row
