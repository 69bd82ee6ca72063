"""Publishing: what is configured becomes one immutable revision, and the pointer to the live one moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import UUID

import msgspec
from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from llmops.approvals.services import void_open
from llmops.audit.selectors import changes_since
from llmops.audit.services import record
from llmops.base.live import REVISION, touch
from llmops.base.locks import lock
from llmops.base.transitions import compare_and_set
from llmops.core.actors import Actor
from llmops.core.digests import equal, sha256_hex
from llmops.core.errors import Conflict, InvalidRequest, NotFound, UnprocessableEntity
from llmops.core.texts import text_problem
from llmops.providers.services import DRAFT_LOCK
from llmops.serving import rules
from llmops.serving.compile import compile_document, problems_elsewhere
from llmops.serving.differences import Change, changes
from llmops.serving.models import BroughtRevision, LivePointer, Revision
from llmops.serving.selectors import CONFIGURED, live_document, live_revision, publishing_rule
from llmops.serving.snapshot import EMPTY_DOCUMENT, RevisionDocument, decode_document
from llmops.serving.validation import ERROR, Problem

#: Lines of ``changes`` that go into the audit event; the revision keeps all of them.
_AUDITED_CHANGES = 50
_MOST_TOLD = 5
#: Revisions that went live since the caller looked, of which a refusal tells: the newest.
_MOST_SINCE = 20
#: The kind of approval, as ``settings.APPROVAL_KINDS`` names it.
PUBLISHING = "revision.publish"


class NothingToPublish(Conflict):
    """What is configured is what is live already."""

    code = "nothing_to_publish"


class SecondPersonNeeded(Conflict):
    """One person may not make this live alone."""

    code = "second_person_needed"


@dataclass(frozen=True)
class Seen:
    """What the caller looked at: the ``revision`` that was live (0 for none), the ``digest`` of what would go live, and the
    audit trail's last number then (``as_of``). None or empty: they do not say."""

    revision: int | None = None
    digest: str = ""
    as_of: int | None = None


@dataclass(frozen=True)
class Candidate:
    """What would go live in place of ``live``. ``what`` is one of ``rules``; ``object_id`` names the revision that is
    restored or was brought."""

    what: str
    live: Revision | None
    encoded: bytes
    document: RevisionDocument
    object_id: str = ""
    origin: dict[str, Any] | None = None

    @property
    def live_number(self) -> int:
        return self.live.number if self.live else 0

    @cached_property
    def digest(self) -> str:
        return sha256_hex(self.encoded)

    @cached_property
    def changes(self) -> list[Change]:
        return list(changes(live_document(self.live), self.document))

    @property
    def words(self) -> list[str]:
        return [line for change in self.changes for line in change.words]

    @property
    def title(self) -> str:
        if self.what == rules.RESTORE:
            return f"Go back to revision {self.object_id}"
        if self.what == rules.BROUGHT:
            return f"Publish revision {(self.origin or {}).get('number') or '?'} of elsewhere"
        return "Publish what is configured"


def publish(
    actor: Actor,
    *,
    reason: str,
    expected_revision: int | None = None,
    expected_digest: str = "",
    as_of: int | None = None,
) -> Revision:
    """Compile what is configured, keep it as the next revision and make it live.

    ``expected_revision`` is the number of the revision the caller saw live (0 for none), ``expected_digest`` of what they saw
    would be published, ``as_of`` the number of the last audit event then. Raises ``UnprocessableEntity`` with
    ``data["problems"]`` when something is wrong, ``Conflict`` when something else is live or configured than they saw, with
    who changed what; ``NothingToPublish`` when there is no difference, ``SecondPersonNeeded``.
    """
    seen = Seen(expected_revision, expected_digest, as_of)
    return make_live(actor, rules.PUBLISH, "", reason=reason, seen=seen)


def restore(
    actor: Actor,
    *,
    number: int,
    reason: str,
    expected_revision: int | None = None,
    expected_digest: str = "",
    as_of: int | None = None,
) -> Revision:
    """Publish the very bytes of revision ``number`` again, as a new revision.

    What is configured stays as it is, so it may differ from what is live afterwards. Raises ``NotFound``,
    ``Conflict`` (it is live already, or another revision is live than expected), ``SecondPersonNeeded``.
    """
    seen = Seen(expected_revision, expected_digest, as_of)
    return make_live(actor, rules.RESTORE, str(number), reason=reason, seen=seen)


def publish_brought(
    actor: Actor,
    *,
    brought_id: UUID | str,
    reason: str,
    expected_revision: int | None = None,
    expected_digest: str = "",
    as_of: int | None = None,
) -> Revision:
    """Make the very bytes of a revision of elsewhere live here. Raises as ``publish`` does."""
    seen = Seen(expected_revision, expected_digest, as_of)
    return make_live(actor, rules.BROUGHT, str(brought_id), reason=reason, seen=seen)


def make_live(actor: Actor, what: str, object_id: str, *, reason: str, seen: Seen) -> Revision:
    reason = checked_reason(reason, "restored" if what == rules.RESTORE else "published")
    with transaction.atomic():
        found = candidate(what, object_id, seen=seen)
        if why := rules.needed(publishing_rule(), what, found.changes):
            raise SecondPersonNeeded(f"{why} Ask for it, and another person approves it under Approvals.")
        return keep(actor, found, reason=reason)


def candidate(what: str, object_id: str, *, seen: Seen | None = None) -> Candidate:
    """What would go live, checked as it stands now. Part of a transaction, which keeps editors out until it ends."""
    # Waits for those who are changing drafts and keeps others out: the document is all there at one moment.
    lock(DRAFT_LOCK)
    live = live_revision()
    seen = seen or Seen()
    if seen.revision is not None and seen.revision != (live.number if live else 0):
        raise _published_meanwhile(seen.revision, live)
    if what == rules.RESTORE:
        return _restored(object_id, live)
    if what == rules.BROUGHT:
        return _brought(object_id, live)
    document, encoded, problems = compile_document()
    found = Candidate(what, live, encoded, document)
    if seen.digest and not equal(seen.digest, found.digest):
        raise _changed_meanwhile(seen.as_of)
    _refuse_errors(problems)
    if live is None and document == EMPTY_DOCUMENT:
        raise NothingToPublish("Nothing to publish: no provider, model or route is configured.")
    if live is not None and live.digest == found.digest:
        raise NothingToPublish(f"Nothing to publish: what is configured is live as revision {live.number}.")
    return found


def _restored(object_id: str, live: Revision | None) -> Candidate:
    earlier = Revision.objects.filter(number=int(object_id)).first()
    if earlier is None:
        raise NotFound(f"There is no revision {object_id}.", param="number")
    if live is not None and live.digest == earlier.digest:
        raise NothingToPublish(
            f"Revision {earlier.number} is what is live already"
            + ("." if live.number == earlier.number else f" (as revision {live.number}).")
        )
    encoded = earlier.document.encode()
    try:
        document = decode_document(encoded)
    except msgspec.MsgspecError:
        raise UnprocessableEntity(
            f"Revision {earlier.number} was written in a form that this version does not serve any more. "
            "Configure what it held and publish that."
        ) from None
    return Candidate(rules.RESTORE, live, encoded, document, str(earlier.number))


def _brought(object_id: str, live: Revision | None) -> Candidate:
    row = BroughtRevision.objects.filter(pk=object_id).first()
    if row is None:
        raise NotFound("There is no such revision from elsewhere.")
    encoded = row.document.encode()
    if not equal(sha256_hex(encoded), row.digest):
        raise UnprocessableEntity(
            "This is not what was brought: its bytes have another digest by now. Bring it again."
        )
    if live is not None and live.digest == row.digest:
        raise NothingToPublish(f"The same bytes are live here already, as revision {live.number}.")
    document = decode_document(encoded)
    _refuse_errors(problems_elsewhere(document))
    return Candidate(rules.BROUGHT, live, encoded, document, str(row.pk), row.origin)


def _refuse_errors(problems: Sequence[Problem]) -> None:
    errors = [problem for problem in problems if problem.level == ERROR]
    if not errors:
        return
    raise UnprocessableEntity(
        f"Nothing was published; {len(errors)} thing{'s' if len(errors) > 1 else ''} must be put right first: "
        + " ".join(problem.message for problem in errors[:10]),
        data={
            "problems": [
                {
                    "code": found.code,
                    "kind": found.kind,
                    "slug": found.slug,
                    "field": found.field,
                    "message": found.message,
                }
                for found in errors
            ]
        },
    )


def checked_reason(reason: str, done: str) -> str:
    reason = reason.strip()
    if not reason:
        raise InvalidRequest(f"reason: say why this is {done}; it is kept with the revision.", param="reason")
    if len(reason) > 300:
        raise InvalidRequest("reason: at most 300 characters are kept.", param="reason")
    if problem := text_problem(reason):
        raise InvalidRequest(f"reason: {problem}.", param="reason")
    return reason


def _published_meanwhile(expected: int, live: Revision | None) -> Conflict:
    newest = Revision.objects.filter(number__gt=expected).defer("document").order_by("-number")
    since = list(newest[:_MOST_SINCE])[::-1]
    told = [
        f"{one.author} published revision {one.number} at {one.published_at:%H:%M:%S} UTC ({one.reason}): "
        + "; ".join(one.changes[:_MOST_TOLD])
        + (f" and {len(one.changes) - _MOST_TOLD} more" if len(one.changes) > _MOST_TOLD else "")
        for one in since
    ]
    return Conflict(
        f"Revision {live.number if live else 0} is live by now, not {expected or 'none'}; nothing of yours was published. "
        + (f"Since you looked: {'. '.join(told[-_MOST_TOLD:])}. " if told else "")
        + "Look at what changed and try again.",
        data={
            "live_revision": live.number if live else 0,
            "published": [
                {
                    "number": one.number,
                    "author": one.author,
                    "reason": one.reason,
                    "changes": one.changes[:_AUDITED_CHANGES],
                }
                for one in since
            ],
        },
    )


def _changed_meanwhile(as_of: int | None) -> Conflict:
    told = [line.told for line in changes_since(as_of, CONFIGURED)] if as_of is not None else []
    return Conflict(
        "What is configured is not what you saw any more; nothing was published. "
        + (f"Since you looked: {'; '.join(told[:_MOST_TOLD])}. " if told else "")
        + "Look at what would be published now and try again.",
        data={"changed": told},
    )


def keep(
    actor: Actor,
    found: Candidate,
    *,
    reason: str,
    author: str = "",
    approved_by: str = "",
    request_id: UUID | None = None,
) -> Revision:
    """Keep ``found`` as the next revision and move the pointer. With ``request_id`` the approval's event tells of it."""
    now, live = timezone.now(), found.live
    restores = int(found.object_id) if found.what == rules.RESTORE else None
    revision = Revision(
        number=next_number(),
        digest=found.digest,
        document=found.encoded.decode(),
        changes=found.words,
        reason=reason,
        restores=restores,
        author=(author or actor.name)[:200],
        approved_by=approved_by[:200],
        origin=found.origin,
        published_at=now,
    )
    revision.save(force_insert=True)
    _move_pointer(live, revision)
    touch(REVISION)
    void_open(
        PUBLISHING,
        why=f"Revision {revision.number} went live meanwhile. Look at what would change now, and ask again.",
        but=request_id,
    )
    if request_id is not None:
        return revision
    record(
        actor,
        action="revision.restored" if restores is not None else "revision.published",
        object_type="serving.revision",
        object_id=revision.number,
        object_name=str(revision),
        before={"live_revision": live.number if live else None},
        after=told(revision),
        reason=reason,
    )
    return revision


def note_export(actor: Actor, *, revision: Revision) -> None:
    """That somebody took a revision out as a file."""
    with transaction.atomic():
        record(
            actor,
            action="revision.exported",
            object_type="serving.revision",
            object_id=revision.number,
            object_name=str(revision),
            after={"digest": revision.digest},
        )


def told(revision: Revision) -> dict[str, Any]:
    """What an audit event says about a revision that went live."""
    found = {
        "live_revision": revision.number,
        "digest": revision.digest,
        "restores": revision.restores,
        "changes": revision.changes[:_AUDITED_CHANGES],
        "changes_in_all": len(revision.changes),
    }
    return found | ({"origin": revision.origin} if revision.origin else {})


def next_number() -> int:
    return (Revision.objects.aggregate(Max("number"))["number__max"] or 0) + 1


def _move_pointer(live: Revision | None, revision: Revision) -> None:
    if live is None:
        LivePointer.objects.create(revision=revision, moved_at=revision.published_at)
        return
    pointer = LivePointer.objects.get()
    if not compare_and_set(
        pointer,
        expect={"revision_id": live.number},
        change={"revision_id": revision.number, "moved_at": revision.published_at},
    ):
        raise Conflict(f"Another revision than {live.number} is live by now. Try again.")
