"""The service key with which the playground calls for a project: made when it is first needed, shown to nobody."""

from __future__ import annotations

from django.db import transaction

from llmops.access.models import Project
from llmops.access.services import create_service_key
from llmops.base.locks import lock
from llmops.core.actors import SYSTEM, Actor
from llmops.core.errors import Conflict, InvalidRequest
from llmops.playground.models import ProjectKey
from llmops.playground.sealed import key_identity, opened, seal
from llmops.playground.selectors import EVERYTHING

NAME = "playground"


@transaction.atomic
def key_in_use(project: Project) -> tuple[ProjectKey, str]:
    """The project's key and its secret; made now if there is none yet. Raises ``Conflict`` when somebody revoked it."""
    found = ProjectKey.objects.filter(project=project).select_related("service_key").first()
    if found is None:
        lock(f"playground.key.{project.pk}")
        found = ProjectKey.objects.filter(project=project).select_related("service_key").first()
    if found is None:
        # The system's doing, and not that of whoever happens to come first: it may be more than they may call.
        found = _made(SYSTEM, project, NAME)
    elif found.service_key.revoked_at is not None:
        raise Conflict(
            f"The key of the playground of {project} was revoked, so nobody can try anything there. Whoever manages its "
            "service keys can issue another one.",
            code="playground_key_revoked",
        )
    return found, opened(found.sealed, identity=key_identity(found.pk))


@transaction.atomic
def renew_key(actor: Actor, *, project: Project) -> ProjectKey:
    """Issue another key in place of one that was revoked. Raises ``Conflict`` while the present one works."""
    lock(f"playground.key.{project.pk}")
    found = ProjectKey.objects.filter(project=project).select_related("service_key").first()
    if found is None:
        raise InvalidRequest(f"The playground of {project} makes its key by itself with the first run.")
    if found.service_key.revoked_at is None:
        raise Conflict(f"The key of the playground of {project} works; there is no need for another one.")
    found.delete()
    taken = set(project.service_keys.values_list("name", flat=True))
    name = next(name for n in range(2, 10_000) if (name := f"{NAME} {n}") not in taken)
    return _made(actor, project, name)


def _made(actor: Actor, project: Project, name: str) -> ProjectKey:
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
    row = ProjectKey(project=project, service_key=issued.key)
    row.sealed = seal(issued.secret, identity=key_identity(row.pk))
    row.save(force_insert=True)
    return row
