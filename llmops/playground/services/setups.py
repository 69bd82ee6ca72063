"""Sharing what stands in the playground: an address that leads to it, and holds nothing of it."""

from __future__ import annotations

import json
from typing import Any

from django.db import transaction
from django.utils import timezone

from llmops.access.models import Project
from llmops.audit.services import record_about
from llmops.core.actors import Actor
from llmops.core.errors import InvalidRequest
from llmops.playground.asked import MEMBERS
from llmops.playground.models import Setup
from llmops.playground.sealed import seal, setup_identity

MOST_BYTES, MOST_COLUMNS = 1_500_000, 8


@transaction.atomic
def share_setup(actor: Actor, *, project: Project, setup: Any) -> Setup:
    """``setup`` is ``{columns, variables}`` as the page has them. Raises ``InvalidRequest`` for what is no setup."""
    columns = setup.get("columns") if isinstance(setup, dict) else None
    if not isinstance(columns, list) or not 1 <= len(columns) <= MOST_COLUMNS:
        raise InvalidRequest(f"columns: between one and {MOST_COLUMNS} columns.", param="columns")
    variables = setup.get("variables") or {}
    if not isinstance(variables, dict) or not all(isinstance(one, dict) for one in columns):
        raise InvalidRequest("columns: each is an object, and so are the variables.", param="columns")
    kept = {
        "columns": [
            {name: value for name, value in one.items() if name in MEMBERS and name != "id"}
            for one in columns
        ],
        "variables": variables,
    }
    if len(json.dumps(kept)) > MOST_BYTES:
        raise InvalidRequest("columns: this is too much text to be shared.", param="columns")
    row = Setup(project=project, made_by=actor.name[:200], made_at=timezone.now())
    row.sealed = seal(kept, identity=setup_identity(row.pk))
    row.save(force_insert=True)
    record_about(actor, row, action="playground.setup_shared", after={"columns": len(columns)})
    return row
