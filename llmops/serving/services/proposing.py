"""Making something live where that takes a second person: one asks, another approves exactly that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db import transaction

from llmops.approvals.kinds import Kind
from llmops.approvals.models import Request
from llmops.approvals.services import ask
from llmops.core.actors import Actor
from llmops.core.digests import equal
from llmops.core.errors import Conflict, ConsoleError
from llmops.serving import rules
from llmops.serving.comparison import compare
from llmops.serving.models import BroughtRevision, LivePointer, Revision
from llmops.serving.selectors import documents_of, publishing_rule
from llmops.serving.services.bringing import bring
from llmops.serving.services.publishing import (
    PUBLISHING,
    Candidate,
    Seen,
    candidate,
    checked_reason,
    keep,
    next_number,
    told,
)

#: Lines of what changes that a request holds; the page compares all of it.
_MOST_LINES = 100


def propose(
    actor: Actor,
    *,
    what: str = rules.PUBLISH,
    object_id: str = "",
    reason: str,
    expected_revision: int | None = None,
    expected_digest: str = "",
    as_of: int | None = None,
) -> Revision | Request:
    """Make ``what`` live, or ask for it where that takes a second person. Raises as ``publish`` does."""
    reason = checked_reason(reason, "restored" if what == rules.RESTORE else "published")
    with transaction.atomic():
        found = candidate(what, object_id, seen=Seen(expected_revision, expected_digest, as_of))
        if not rules.needed(publishing_rule(), what, found.changes):
            return keep(actor, found, reason=reason)
        _refuse_twice(found)
        words = found.words
        return ask(
            actor,
            kind=PUBLISHING,
            title=f"{found.title}: {len(words)} change{'' if len(words) == 1 else 's'}",
            content={
                "what": what,
                "object": object_id,
                "live": found.live_number,
                "digest": found.digest,
                "changes": words[:_MOST_LINES],
                "changes_in_all": len(words),
            },
            object_type="serving.revision",
            object_id=next_number(),
            object_name=f"revision {next_number()}",
            project_id=None,
            reason=reason,
        )


def import_revision(
    actor: Actor,
    *,
    data: bytes,
    reason: str,
    digest: str = "",
    expected_revision: int | None = None,
    expected_digest: str = "",
    as_of: int | None = None,
) -> Revision | Request:
    """Bring a revision of elsewhere and make it live, or ask for it. Raises as ``bring`` and ``publish`` do."""
    reason = checked_reason(reason, "published")
    with transaction.atomic():
        row = bring(actor, data=data, digest=digest, event=False)
        return propose(
            actor,
            what=rules.BROUGHT,
            object_id=str(row.pk),
            reason=reason,
            expected_revision=expected_revision,
            expected_digest=expected_digest,
            as_of=as_of,
        )


def _refuse_twice(found: Candidate) -> None:
    for row in Request.objects.filter(kind=PUBLISHING, state=Request.OPEN):
        if row.content.get("digest") == found.digest and row.content.get("live") == found.live_number:
            raise Conflict(
                f"{row.requested_by_name} has asked for exactly this already; it waits under Approvals for another person."
            )


def _describe(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    lines = [("What", _what(content))]
    lines.append(
        ("In place of", f"revision {content['live']}" if content["live"] else "nothing: it is the first")
    )
    words, count = content["changes"], content["changes_in_all"]
    lines += [(f"Change {index}", line) for index, line in enumerate(words, 1)]
    if count > len(words):
        lines.append(("And", f"{count - len(words)} more"))
    lines.append(("Digest of what goes live", content["digest"]))
    return lines


def _what(content: Mapping[str, Any]) -> str:
    if content["what"] == rules.RESTORE:
        return f"Go back to revision {content['object']}"
    if content["what"] == rules.BROUGHT:
        row = BroughtRevision.objects.filter(pk=content["object"]).first()
        return f"Publish {row}" if row else "Publish a revision of elsewhere that is gone"
    return "Publish what is configured"


def _void(content: Mapping[str, Any]) -> str:
    """Why what was asked for is not what would go live any more; empty while it is."""
    live = LivePointer.objects.values_list("revision_id", flat=True).first() or 0
    if live != content["live"]:
        return f"Revision {live} went live meanwhile. It has to be asked for again."
    try:
        _, after = documents_of(content["what"], content["object"])
    except ConsoleError as gone:
        return gone.message
    if after[1] != content["digest"]:
        return (
            "What is configured changed since this was asked for. It has to be looked at and asked for again."
        )
    return ""


def _facts(content: Mapping[str, Any]) -> dict[str, Any]:
    """What the page of the request shows beside the words: the same comparison as the page that asked."""
    try:
        before, (after, digest) = documents_of(content["what"], content["object"])
    except ConsoleError:
        return {"compared": []}
    return {"compared": compare(before, after) if equal(digest, content["digest"]) else []}


def _execute(actor: Actor, request_id: UUID, content: Mapping[str, Any]) -> dict[str, Any]:
    """Part of the approval's transaction: exactly what was approved goes live, or nothing."""
    found = candidate(content["what"], content["object"])
    if found.live_number != content["live"] or not equal(found.digest, content["digest"]):
        raise Conflict(
            "This is not what would go live any more: it was changed meanwhile. Reject it and have it asked for again."
        )
    row = Request.objects.get(pk=request_id)
    revision = keep(
        actor,
        found,
        reason=row.reason[:300],
        author=row.requested_by_name,
        approved_by=actor.name,
        request_id=request_id,
    )
    return told(revision)


KIND = Kind(
    name=PUBLISHING,
    permission="revision.approve",
    asks="revision.publish",
    describe=_describe,
    execute=_execute,
    void=_void,
    template="serving/compared.html",
    facts=_facts,
)
