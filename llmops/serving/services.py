"""Publishing: what is configured becomes one immutable revision, and the pointer to the live one moves."""

from __future__ import annotations

import msgspec
from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from llmops.audit.services import record
from llmops.base.live import REVISION, touch
from llmops.base.locks import lock
from llmops.base.transitions import compare_and_set
from llmops.core.actors import Actor
from llmops.core.digests import sha256_hex
from llmops.core.errors import Conflict, InvalidRequest, NotFound, UnprocessableEntity
from llmops.core.texts import text_problem
from llmops.providers.services import DRAFT_LOCK
from llmops.serving.compile import compile_document
from llmops.serving.differences import describe
from llmops.serving.models import LivePointer, Revision
from llmops.serving.snapshot import EMPTY_DOCUMENT, RevisionDocument, decode_document, encode_document
from llmops.serving.validation import ERROR

#: Lines of ``changes`` that go into the audit event; the revision keeps all of them.
_AUDITED_CHANGES = 50


class NothingToPublish(Conflict):
    """What is configured is what is live already."""

    code = "nothing_to_publish"


def publish(actor: Actor, *, reason: str, expected_revision: int | None = None) -> Revision:
    """Compile what is configured, keep it as the next revision and make it live.

    ``expected_revision`` is the number of the revision the caller saw live (0 for none). Raises
    ``UnprocessableEntity`` with ``data["problems"]`` when something is wrong, ``Conflict`` when another revision is
    live than expected, ``NothingToPublish`` when there is no difference.
    """
    reason = _checked_reason(reason, "published")
    with transaction.atomic():
        # Waits for those who are changing drafts and keeps others out: the document is all there at one moment.
        lock(DRAFT_LOCK)
        live = _live(expected_revision)
        document, problems = compile_document()
        errors = [problem for problem in problems if problem.level == ERROR]
        if errors:
            raise UnprocessableEntity(
                f"Nothing was published; {len(errors)} thing{'s' if len(errors) > 1 else ''} must be put right first: "
                + " ".join(problem.message for problem in errors[:10]),
                data={
                    "problems": [
                        {"code": found.code, "kind": found.kind, "slug": found.slug, "message": found.message}
                        for found in errors
                    ]
                },
            )
        if live is None and document == EMPTY_DOCUMENT:
            raise NothingToPublish("Nothing to publish: no provider, model or route is configured.")
        encoded = encode_document(document)
        if live is not None and live.digest == sha256_hex(encoded):
            raise NothingToPublish(
                f"Nothing to publish: what is configured is live as revision {live.number}."
            )
        return _make_live(actor, live, encoded, reason=reason, restores=None)


def restore(actor: Actor, *, number: int, reason: str, expected_revision: int | None = None) -> Revision:
    """Publish the very bytes of revision ``number`` again, as a new revision.

    What is configured stays as it is, so it may differ from what is live afterwards. Raises ``NotFound``,
    ``Conflict`` (it is live already, or another revision is live than expected).
    """
    reason = _checked_reason(reason, "restored")
    with transaction.atomic():
        lock(DRAFT_LOCK)
        live = _live(expected_revision)
        earlier = Revision.objects.filter(number=number).first()
        if earlier is None:
            raise NotFound(f"There is no revision {number}.", param="number")
        if live is not None and live.digest == earlier.digest:
            raise NothingToPublish(
                f"Revision {number} is what is live already"
                + ("." if live.number == number else f" (as revision {live.number}).")
            )
        encoded = earlier.document.encode()
        try:
            decode_document(encoded)
        except msgspec.MsgspecError:
            raise UnprocessableEntity(
                f"Revision {number} was written in a form that this version does not serve any more. "
                "Configure what it held and publish that."
            ) from None
        return _make_live(actor, live, encoded, reason=reason, restores=number)


def _checked_reason(reason: str, done: str) -> str:
    reason = reason.strip()
    if not reason:
        raise InvalidRequest(f"reason: say why this is {done}; it is kept with the revision.", param="reason")
    if len(reason) > 300:
        raise InvalidRequest("reason: at most 300 characters are kept.", param="reason")
    if problem := text_problem(reason):
        raise InvalidRequest(f"reason: {problem}.", param="reason")
    return reason


def _live(expected: int | None) -> Revision | None:
    pointer = LivePointer.objects.select_related("revision").first()
    number = pointer.revision_id if pointer else 0
    if expected is not None and expected != number:
        raise Conflict(
            f"Revision {number} is live by now, not {expected or 'none'}. Look at what changed and try again.",
            data={"live_revision": number},
        )
    return pointer.revision if pointer else None


def _make_live(
    actor: Actor, live: Revision | None, encoded: bytes, *, reason: str, restores: int | None
) -> Revision:
    now = timezone.now()
    revision = Revision(
        number=(Revision.objects.aggregate(Max("number"))["number__max"] or 0) + 1,
        digest=sha256_hex(encoded),
        document=encoded.decode(),
        changes=describe(_decoded(live), decode_document(encoded)),
        reason=reason,
        restores=restores,
        author=actor.name[:200],
        published_at=now,
    )
    revision.save(force_insert=True)
    _move_pointer(live, revision)
    touch(REVISION)
    record(
        actor,
        action="revision.published" if restores is None else "revision.restored",
        object_type="serving.revision",
        object_id=revision.number,
        object_name=str(revision),
        before={"live_revision": live.number if live else None},
        after={
            "live_revision": revision.number,
            "digest": revision.digest,
            "restores": restores,
            "changes": revision.changes[:_AUDITED_CHANGES],
            "changes_in_all": len(revision.changes),
        },
        reason=reason,
    )
    return revision


def _decoded(live: Revision | None) -> RevisionDocument:
    try:
        return decode_document(live.document) if live else EMPTY_DOCUMENT
    except msgspec.MsgspecError:
        # A live document of an older form must not keep anybody from publishing one of the present form.
        return EMPTY_DOCUMENT


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
