"""The service key with which the playground calls for a project: made when it is first needed, shown to nobody."""

from __future__ import annotations

from llmops.access.held_keys import HeldKeys
from llmops.access.models import Project
from llmops.core.actors import Actor
from llmops.playground.models import ProjectKey
from llmops.playground.sealed import key_identity, opened, seal

KEYS = HeldKeys(
    model=ProjectKey,
    name="playground",
    whose="the playground",
    again="nobody can try anything there. Whoever manages its service keys can issue another one.",
    revoked_code="playground_key_revoked",
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
