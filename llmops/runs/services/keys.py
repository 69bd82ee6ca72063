"""The service key with which runs of a project call models: made when it is first needed, shown to nobody."""

from __future__ import annotations

from llmops.access.held_keys import HeldKeys
from llmops.access.models import Project
from llmops.core.actors import Actor
from llmops.runs.models import ProjectKey
from llmops.runs.sealed import key_identity, opened, seal

KEYS = HeldKeys(
    model=ProjectKey,
    name="runs",
    whose="runs",
    again="no run can call a model there. Whoever manages its service keys can issue another one on the page Runs.",
    revoked_code="runs_key_revoked",
    seal=lambda secret, row_id: seal(secret, identity=key_identity(row_id)),
    opened=lambda sealed, row_id: str(opened(sealed, identity=key_identity(row_id))),
)


def key_in_use(project: Project) -> tuple[ProjectKey, str]:
    """The project's key and its secret; made now if there is none yet. Raises ``Conflict`` when somebody revoked it."""
    found: tuple[ProjectKey, str] = KEYS.in_use(project)
    return found


def renew_key(actor: Actor, *, project: Project) -> ProjectKey:
    """Issue another key in place of one that was revoked. Raises ``Conflict`` while the present one works."""
    made: ProjectKey = KEYS.renew(actor, project=project)
    return made
