"""Bringing a revision from another installation: its bytes are kept, and made live like any other, with words and a second look."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from llmops.audit.services import record
from llmops.core.actors import Actor
from llmops.core.errors import UnprocessableEntity
from llmops.serving.compile import problems_elsewhere
from llmops.serving.files import unpacked
from llmops.serving.models import BroughtRevision
from llmops.serving.validation import ERROR


def bring(actor: Actor, *, data: bytes, digest: str = "", event: bool = True) -> BroughtRevision:
    """Keep what a file holds, once it is certain that it is what was exported and can be served here. Nothing goes live.

    Raises ``InvalidRequest`` for what is no revision, was changed or is another one than ``digest`` names;
    ``UnprocessableEntity`` with ``data["problems"]`` where this installation lacks something. The same bytes twice are one row.
    """
    carried = unpacked(data, digest=digest)
    errors = [problem for problem in problems_elsewhere(carried.document) if problem.level == ERROR]
    if errors:
        raise UnprocessableEntity(
            "It cannot be served here: " + " ".join(problem.message for problem in errors[:10]),
            data={"problems": {"": " ".join(problem.message for problem in errors[:10])}},
        )
    with transaction.atomic():
        # Whoever comes second with the same bytes, also at the same moment, gets what the first one brought.
        row, brought = BroughtRevision.objects.get_or_create(
            digest=carried.digest,
            defaults={
                "document": carried.encoded.decode(),
                "origin": carried.origin,
                "brought_by": actor.name[:200],
                "brought_at": timezone.now(),
            },
        )
        if not brought or not event:
            # What makes it live, or asks for that, tells of it.
            return row
        record(
            actor,
            action="revision.brought",
            object_type="serving.broughtrevision",
            object_id=row.pk,
            object_name=str(row),
            after={"digest": carried.digest, "origin": carried.origin},
        )
    return row
