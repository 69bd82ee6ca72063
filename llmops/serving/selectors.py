"""Reading what is live."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import msgspec
from django.utils import timezone

from llmops.access.models import Project, ServiceKey
from llmops.access.rules import BATCH
from llmops.audit.models import Event
from llmops.audit.selectors import any_of, head
from llmops.base.live import LIVE_STATE, REVISION, last_change, versions
from llmops.base.reads import consistent_read
from llmops.budgets.models import Budget
from llmops.budgets.selectors import open_raises
from llmops.core.digests import sha256_hex
from llmops.core.errors import ConsoleError, NotFound
from llmops.policies.engine import prepare
from llmops.prompts import published
from llmops.prompts.selectors import LivePrompt
from llmops.providers.models import Credential, Provider, Route
from llmops.providers.selectors import given_for, reveal_remembered
from llmops.serving.compile import compile_document
from llmops.serving.differences import describe
from llmops.serving.files import packed
from llmops.serving.models import BroughtRevision, LivePointer, OrganisationSwitch, PublishingRule, Revision
from llmops.serving.pieces import read_live
from llmops.serving.rules import PUBLISH, RESTORE, Rule
from llmops.serving.snapshot import (
    EMPTY_DOCUMENT,
    BudgetEntry,
    CredentialEntry,
    HashEntry,
    KeyEntry,
    LiveState,
    ProjectEntry,
    RaiseEntry,
    RevisionDocument,
    Snapshot,
    decode_document,
)
from llmops.serving.switches import HOLD_BATCH, degraded
from llmops.serving.validation import ERROR, Problem


def live_revision() -> Revision | None:
    """The revision that is live, or None before the first publish."""
    # The document may have many megabytes; it is read where it is needed.
    pointer = LivePointer.objects.select_related("revision").defer("revision__document").first()
    return pointer.revision if pointer else None


class _Number(msgspec.Struct):
    number: int


class _PromptOfDocument(msgspec.Struct):
    slug: str
    project: str
    labels: dict[str, int] = {}
    versions: list[_Number] = []


class _PromptsOfDocument(msgspec.Struct):
    prompts: list[_PromptOfDocument] = []


_decode_prompts = msgspec.json.Decoder(_PromptsOfDocument).decode
#: The live revision's number and digest, and its prompts: they are asked for on every page about prompts.
_live_prompts: tuple[tuple[int, str], dict[tuple[str, str], LivePrompt]] = ((0, ""), {})


def live_prompts() -> dict[tuple[str, str], LivePrompt]:
    """What is live of each prompt, by project (empty: shared) and slug. ``settings.LIVE_PROMPTS`` points here."""
    global _live_prompts
    found = LivePointer.objects.values_list("revision__number", "revision__digest").first()
    if found is None:
        return {}
    if _live_prompts[0] != found:
        try:
            document = _decode_prompts(
                Revision.objects.values_list("document", flat=True).get(number=found[0])
            )
        except msgspec.MsgspecError:
            document = _PromptsOfDocument()
        _live_prompts = (
            found,
            {
                (entry.project, entry.slug): LivePrompt(
                    found[0], entry.labels, frozenset(version.number for version in entry.versions)
                )
                for entry in document.prompts
            },
        )
    return _live_prompts[1]


def load_snapshot(previous: Snapshot | None = None) -> Snapshot:
    """Everything a data-plane process holds in memory, as the database has it at one moment.

    The document of ``previous`` is kept when the same revision is still live. A provider key that cannot be read is
    left out and named in ``problems``; everything else serves. Before the first publish: an empty document, revision
    and digest 0 and "". Raises only what the database raises.
    """
    now = timezone.now()
    with consistent_read():
        numbers, changed_at = versions(), last_change()
        revision, digest, document = _document(previous)
        projects = _projects()
        budgets = _budgets()
        stored = list(
            Credential.objects.filter(state__in=("active", "draining"))
            .select_related("provider")
            .order_by("provider__slug", "-state_changed_at", "name")
        )
        switches = dict(OrganisationSwitch.objects.values_list("name", "reason"))
        keys, paused_keys = _keys(now, switches.get(HOLD_BATCH))
        paused_routes = _switched(Route, "paused_at", "pause_reason")
        degraded_routes = degraded(document, _switched(Route, "degraded_at", "degrade_reason"), switches)
        resets = Route.objects.filter(breakers_reset_at__isnull=False)
        breaker_resets = {
            slug: at.timestamp() for slug, at in resets.values_list("slug", "breakers_reset_at") if at
        }
        paused_providers = _switched(Provider, "paused_at", "pause_reason")
    # Outside the transaction: a reference may lead to a slow file system.
    credentials, unreadable = _credentials(stored, document, previous)
    # Here, beside the requests: long lists take a moment to compile.
    if previous is None or document is not previous.document:
        prepare(document.policies, [(), *(route.policies for route in document.routes)])
        published.prepare(document.prompts)
    return Snapshot(
        revision=revision,
        digest=digest,
        document=document,
        live=LiveState(
            keys=keys,
            paused_keys=paused_keys,
            budgets=budgets,
            credentials=credentials,
            projects=projects,
            paused_routes=paused_routes,
            degraded_routes=degraded_routes,
            breaker_resets=breaker_resets,
            paused_providers=paused_providers,
        ),
        changed_at=changed_at.timestamp() if changed_at else 0.0,
        revision_version=numbers.get(REVISION, 0),
        live_version=numbers.get(LIVE_STATE, 0),
        problems=tuple(
            f"Provider key {credential} is left out. {unreadable[str(credential.pk)]}"
            for credential in stored
            if str(credential.pk) in unreadable
        ),
        unreadable=unreadable,
    )


def _document(previous: Snapshot | None) -> tuple[int, str, RevisionDocument]:
    found = LivePointer.objects.values_list("revision__number", "revision__digest").first()
    if found is None:
        return 0, "", EMPTY_DOCUMENT
    number, digest = found
    if previous is not None and (previous.revision, previous.digest) == (number, digest):
        return number, digest, previous.document
    text = Revision.objects.values_list("document", flat=True).get(number=number)
    return number, digest, decode_document(text)


def _keys(now: datetime, no_batch: str | None) -> tuple[dict[str, HashEntry], dict[str, HashEntry]]:
    """Keys that may be used, and those that are paused, by hash. ``no_batch``: why those of batch work are, None if they are not."""
    keys: dict[str, HashEntry] = {}
    paused: dict[str, HashEntry] = {}
    rows = ServiceKey.objects.filter(revoked_at=None, project__archived_at=None).select_related("project")
    for row in rows:
        entry = KeyEntry(
            id=str(row.pk),
            name=row.name,
            prefix=row.prefix,
            project=row.project.slug,
            project_id=str(row.project_id),
            scopes=frozenset(row.scopes),
            allowed_routes=frozenset(row.allowed_routes),
            allowed_models=frozenset(row.allowed_models),
            rpm=row.rpm,
            tpm=row.tpm,
            concurrency=row.concurrency,
            expires=row.expires_at.timestamp() if row.expires_at else None,
            priority=row.priority,
            held=row.held_by_console,
        )
        into = keys
        why = row.pause_reason if row.paused_at else no_batch if row.priority == BATCH else None
        if why is not None:
            into, entry = paused, msgspec.structs.replace(entry, paused=why)
        into[row.secret_hash] = HashEntry(entry)
        if row.previous_hash and row.previous_valid_until and row.previous_valid_until > now:
            old = msgspec.structs.replace(entry, replaced=True)
            into.setdefault(row.previous_hash, HashEntry(old, row.previous_valid_until.timestamp()))
    return keys, paused


def _projects() -> dict[str, ProjectEntry]:
    return {
        str(row.pk): ProjectEntry(
            id=str(row.pk),
            slug=row.slug,
            default_route=row.default_route,
            rpm=row.rpm,
            tpm=row.tpm,
            concurrency=row.concurrency,
            keep_texts=row.keep_texts_percent,
            read_texts=row.keep_texts_readable,
        )
        for row in Project.objects.filter(archived_at=None).order_by("slug")
    }


def _budgets() -> tuple[BudgetEntry, ...]:
    rows = Budget.objects.filter(archived_at=None).select_related("project").order_by("slug")
    raises = open_raises([row for row in rows if row.raised_until is not None])
    return tuple(
        BudgetEntry(
            id=str(row.pk),
            slug=row.slug,
            scope_kind=row.scope_kind,
            scope_value=row.scope_value,
            project=row.project.slug if row.project else None,
            period=row.period,
            timezone=row.timezone,
            limit_nano=row.limit_nano,
            hard=row.hard,
            at_limit_route=row.at_limit_route,
            raises=tuple(
                RaiseEntry(one.starts_at.timestamp(), one.ends_at.timestamp(), one.amount_nano)
                for one in raises.get(row.pk, ())
            ),
        )
        for row in rows
    )


def _credentials(
    stored: list[Credential], document: RevisionDocument, previous: Snapshot | None
) -> tuple[dict[str, tuple[CredentialEntry, ...]], dict[str, str]]:
    """Readable provider keys by provider, those in use before those draining, and why others cannot be read, by id.

    After the first time no store over a network is waited for. A key that this process has opened before and now cannot, though
    it is the same (it was sealed anew under a master key that is not here), goes on as it was, and is named all the same.
    """
    opened = _opened(previous)
    served = {entry.slug: entry.base_url for entry in document.providers}
    readable: dict[str, list[CredentialEntry]] = {}
    unreadable: dict[str, str] = {}
    for credential in stored:
        to = served.get(credential.provider.slug, credential.provider.base_url)
        try:
            secret = reveal_remembered(credential, to=to, wait=previous is None)
        except ConsoleError as error:
            unreadable[str(credential.pk)] = error.message
            secret = opened.get(str(credential.pk), "") if given_for(credential, to) else ""
            if not secret or sha256_hex(secret.encode())[:12] != credential.fingerprint:
                continue
        except Exception as error:
            # One key must not keep the others, nor a revocation, from being served; the text may hold what was read.
            unreadable[str(credential.pk)] = f"Reading it failed ({type(error).__name__})."
            continue
        readable.setdefault(credential.provider.slug, []).append(
            CredentialEntry(
                id=str(credential.pk),
                name=credential.name,
                provider=credential.provider.slug,
                secret=secret,
                draining=credential.state == "draining",
            )
        )
    for entries in readable.values():
        entries.sort(key=lambda entry: entry.draining)
    return {provider: tuple(entries) for provider, entries in readable.items()}, unreadable


def _opened(previous: Snapshot | None) -> dict[str, str]:
    """Secrets that this process holds, by the id of their key."""
    served = previous.live.credentials.values() if previous is not None else ()
    return {entry.id: entry.secret for entries in served for entry in entries}


def _switched(model: type[Route] | type[Provider], since: str, reason: str) -> dict[str, str]:
    """Rows whose live switch is on, by slug, and why."""
    rows = model._default_manager.filter(**{f"{since}__isnull": False})
    return dict(rows.values_list("slug", reason))


#: Kinds of objects whose changes can change what would be published.
CONFIGURED = ("providers.", "policies.", "prompts.", "access.project", "budgets.budget", "serving.")


def exported(revision: Revision) -> bytes:
    """A revision as a file (``files.py``)."""
    return packed(
        revision.document,
        digest=revision.digest,
        number=revision.number,
        author=revision.author,
        reason=revision.reason,
        published_at=revision.published_at.isoformat(),
    )


def publishing_rule() -> Rule:
    """When making something live takes a second person."""
    row = PublishingRule.objects.first()
    return Rule(row.always, frozenset(row.projects), row.restore_alone) if row else Rule()


@dataclass(frozen=True)
class Pending:
    """What a publish would do now: ``changes`` in words against revision ``live`` (0 for none), and problems. ``as_of`` is the
    number of the last audit event that it knows of."""

    live: int
    digest: str
    changes: list[str]
    problems: list[Problem]
    as_of: int
    before: RevisionDocument
    after: RevisionDocument

    @property
    def publishable(self) -> bool:
        return bool(self.changes) and not self.errors

    @property
    def errors(self) -> list[Problem]:
        return [problem for problem in self.problems if problem.level == ERROR]

    @property
    def warnings(self) -> list[Problem]:
        return [problem for problem in self.problems if problem.level != ERROR]


def pending() -> Pending:
    """What is configured, compared with what is live."""
    with consistent_read():
        as_of, _ = head()
        live = live_revision()
        document, encoded, problems = compile_document()
    digest = sha256_hex(encoded)
    same = live is not None and live.digest == digest
    before = document if same else live_document(live)
    return Pending(
        live=live.number if live else 0,
        digest=digest,
        changes=[] if same else describe(before, document),
        problems=problems,
        as_of=as_of,
        before=before,
        after=document,
    )


def documents_of(what: str, object_id: str) -> tuple[RevisionDocument, tuple[RevisionDocument, str]]:
    """What is live, and what would be in its place, with its digest. Raises ``NotFound``."""
    with consistent_read():
        live = live_revision()
        if what == PUBLISH:
            document, encoded, _ = compile_document()
            return live_document(live), (document, sha256_hex(encoded))
        rows = (
            Revision.objects.filter(number=object_id)
            if what == RESTORE
            else BroughtRevision.objects.filter(pk=object_id)
        )
        row = rows.first()
    if row is None:
        raise NotFound("What was asked for is not there any more.")
    try:
        document = decode_document(row.document)
    except msgspec.MsgspecError:
        raise NotFound("What was asked for has a form that this version cannot read.") from None
    return live_document(live), (document, sha256_hex(row.document.encode()))


def live_document(live: Revision | None) -> RevisionDocument:
    """``document_of`` the live revision, which the process keeps."""
    try:
        return read_live(live) if live else EMPTY_DOCUMENT
    except msgspec.MsgspecError:
        return EMPTY_DOCUMENT


def document_of(revision: Revision | None) -> RevisionDocument:
    """What a revision holds; nothing for None, and for one of a form that this version cannot read any more."""
    try:
        return decode_document(revision.document) if revision else EMPTY_DOCUMENT
    except msgspec.MsgspecError:
        return EMPTY_DOCUMENT


@dataclass(frozen=True)
class Note:
    """How many changes wait to be published against revision ``live`` (0: none), and how many errors keep them from it."""

    live: int
    changes: int
    errors: int


#: What was found last, and the audit event up to which it holds.
_note: tuple[int, str, Note] = (0, "", Note(0, 0, 0))


def pending_note() -> Note:
    """The counts of ``pending`` for pages that only mention them. Compiling thousands of prompts takes most of a second, so
    what was found holds until the audit trail knows of a change: every change leaves an event in its own transaction."""
    global _note
    sequence, seen, note = _note
    later = Event.objects.filter(sequence__gt=sequence)
    known = seen and Event.objects.filter(sequence=sequence, hash=seen).exists()
    if known and not any_of(later, CONFIGURED).exists():
        return note
    with consistent_read():
        sequence, seen = head()
        found = pending()
    note = Note(found.live, len(found.changes), len(found.errors))
    _note = (sequence, seen, note)
    return note


def organisation_switches() -> list[OrganisationSwitch]:
    """Switches of the whole organisation that are on."""
    return list(OrganisationSwitch.objects.all())
