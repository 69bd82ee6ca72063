"""Fetching what a provider says was used, from the provider itself: asked for by a person or every day, done by a worker."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta

from django.db import transaction

from llmops.audit.services import record
from llmops.base.clock import database_now
from llmops.base.locks import lock
from llmops.base.tasks import send
from llmops.base.transitions import compare_and_set
from llmops.core.actors import Actor, job_actor
from llmops.core.errors import Conflict, ConsoleError, InvalidRequest, NotFound
from llmops.providers.models import Credential, Provider
from llmops.providers.selectors import reveal
from llmops.usage.models import Job, ProviderImport, StatementSource
from llmops.usage.services.statements import import_statement

FETCH = "statement"
LOCK = "usage.statement_fetch"
#: Days of one fetch, and those that the daily one asks for again: providers correct what they said.
MOST_DAYS, DAILY_DAYS = 92, 7
#: When on a day (UTC) the day before is complete at providers, by experience.
_DAILY_AT = timedelta(hours=6)
_IN_USE = ("active", "draining")
_DAY = timedelta(days=1)
#: What is asked for, in this order: (path, grouped by). Tokens of the first two are one report, costs another.
_TOKENS = (("/organization/usage/completions", "model"), ("/organization/usage/embeddings", "model"))
_COSTS = ("/organization/costs", "line_item")
#: Daily buckets on a page.
_PAGE = 31

Beat = Callable[[str], None]


def set_source(
    actor: Actor, *, provider: Provider, credential: Credential | None, daily: bool = False
) -> StatementSource | None:
    """With which key figures of ``provider`` are fetched; ``credential`` None: no more. Raises ``InvalidRequest`` naming the
    field."""
    with transaction.atomic():
        lock(f"{LOCK}:{provider.slug}")
        stored = (
            StatementSource.objects.filter(provider=provider).select_related("credential__provider").first()
        )
        before = _described(stored)
        if credential is None:
            if stored is not None:
                stored.delete()
                _audit(actor, provider, before, None)
            return None
        _refuse_key(credential, provider)
        source = stored or StatementSource(provider=provider)
        source.credential, source.daily, source.set_by = credential, daily, actor.name[:200]
        if not daily:
            source.next_run_at = None
        elif stored is None or before is None or not before["daily"]:
            source.next_run_at = _next_run(database_now())
        after = _described(source)
        if before == after:
            return source
        source.save()
        _audit(actor, provider, before, after)
    return source


def request_fetch(actor: Actor, *, provider: Provider, first: date, last: date, enqueue: bool = True) -> Job:
    """Ask for a provider's figures of the days (UTC) from ``first`` to ``last``, all of them over.

    Raises ``InvalidRequest`` naming the field, ``NotFound`` without a key to ask with, ``Conflict`` while figures of this
    provider are being fetched. ``enqueue=False``: the caller runs the job itself.
    """
    today = database_now().date()
    if first > last:
        raise InvalidRequest("from: the first day lies after the last one.", param="from")
    if last >= today:
        raise InvalidRequest("to: choose days that are over (days are in UTC).", param="to")
    if (last - first).days >= MOST_DAYS:
        raise InvalidRequest(f"from: at most {MOST_DAYS} days at a time.", param="from")
    with transaction.atomic():
        lock(f"{LOCK}:{provider.slug}")
        _source_of(provider)
        moving = Job.objects.filter(kind=FETCH, state__in=(Job.QUEUED, Job.RUNNING))
        if moving.filter(arguments__provider=provider.slug).exists():
            raise Conflict(
                f"Figures of {provider.slug} are being fetched already. Watch that job under Jobs.",
                param="provider",
            )
        job = Job.objects.create(
            kind=FETCH,
            arguments={"provider": provider.slug, "from": first.isoformat(), "to": last.isoformat()},
            total=len(_TOKENS) + 2,
            message="Waiting for a worker",
            requested_by=actor.name[:200],
        )
        record(
            actor,
            action="provider_statement.fetch_requested",
            object_type="usage.job",
            object_id=job.pk,
            object_name=f"figures of {provider.slug}",
            after={"provider": provider.slug, "days": f"{first} to {last}"},
        )
        if enqueue:
            send("usage.run_job", str(job.pk))
    return job


def fetch(job: Job, beat: Beat) -> str:
    """Do a job: fetch, then take over what came, whole or not at all; what came of it, in words.

    ``beat`` hears of each step. Done twice it changes nothing the second time. Raises a ``ConsoleError`` that says what to do.
    """
    # An HTTP client takes long to load, and few processes ever need one here.
    from llmops.providers.reports import fetch_report

    provider = Provider.objects.filter(slug=job.arguments["provider"]).first()
    if provider is None:
        raise NotFound("The provider does not exist any more.")
    credential = _source_of(provider).credential
    secret = reveal(credential, to=provider.base_url)
    first, last = (date.fromisoformat(job.arguments[name]) for name in ("from", "to"))
    start, end = (int(datetime.combine(day, time(), tzinfo=UTC).timestamp()) for day in (first, last + _DAY))
    days: dict[str, str | int] = {"start_time": start, "end_time": end, "bucket_width": "1d", "limit": _PAGE}

    def ask(path: str, group: str) -> str:
        what = path.rsplit("/", 1)[-1]
        beat(f"Asking {provider.slug} for {what}")
        return fetch_report(
            provider,
            secret,
            path,
            {**days, "group_by": group},
            told=lambda pages: beat(f"Read {pages} page{'s' if pages != 1 else ''} of {what}"),
        )

    tokens = "\n".join(ask(path, group) for path, group in _TOKENS)
    costs = ask(*_COSTS)
    beat("Comparing with the ledger")
    actor = job_actor(f"usage.fetch for {job.requested_by}"[:60])
    with transaction.atomic():
        made = [
            import_statement(
                actor,
                provider=provider,
                text=text,
                file_name=f"{what} of {first} to {last}",
                source="api",
                speaks=speaks,
            )
            for what, text, speaks in (("usage", tokens, "tokens"), ("costs", costs, "cost"))
        ]
    return _in_words(made, first, last)


def fetch_daily(now: datetime | None = None) -> int:
    """Ask for the figures of the last days where that is done every day and is due; how many fetches were asked for."""
    now = now or database_now()
    asked = 0
    due = StatementSource.objects.filter(daily=True, next_run_at__lte=now).select_related("provider")
    for source in due:
        yesterday = now.date() - _DAY
        with transaction.atomic():
            following = {"next_run_at": _next_run(now)}
            if not compare_and_set(source, expect={"next_run_at": source.next_run_at}, change=following):
                continue
            try:
                request_fetch(
                    job_actor("usage.fetch_statements"),
                    provider=source.provider,
                    first=yesterday - (DAILY_DAYS - 1) * _DAY,
                    last=yesterday,
                )
            except Conflict:
                continue
            except ConsoleError as refused:
                # Nobody is there to be told; the page shows what came of the last fetch.
                Job.objects.create(
                    kind=FETCH,
                    arguments={"provider": source.provider.slug},
                    state=Job.FAILED,
                    message=refused.message[:300],
                    requested_by="every day",
                    finished_at=now,
                )
                continue
            asked += 1
    return asked


def _source_of(provider: Provider) -> StatementSource:
    source = StatementSource.objects.filter(provider=provider).select_related("credential__provider").first()
    if source is None:
        raise NotFound(
            f"No key is chosen with which {provider.slug} is asked for its figures. Choose one on the Reconciliation page."
        )
    _refuse_key(source.credential, provider)
    return source


def _refuse_key(credential: Credential, provider: Provider) -> None:
    if credential.provider_id != provider.pk:
        raise InvalidRequest("credential: this key belongs to another provider.", param="credential")
    if credential.state == "revoked":
        raise InvalidRequest("credential: this key is revoked. Choose another.", param="credential")
    if credential.state in _IN_USE:
        raise InvalidRequest(
            f"credential: {credential.name} is in use for calls. Add the organisation's administrator key as one of its own and "
            "leave it staged: so it never goes out with a call.",
            param="credential",
        )


def _next_run(now: datetime) -> datetime:
    today = datetime.combine(now.astimezone(UTC).date(), time(), tzinfo=UTC) + _DAILY_AT
    return today if today > now else today + _DAY


def _in_words(made: list[ProviderImport], first: date, last: date) -> str:
    drifts = sum(one.alerts.count() for one in made)
    said = f"{first} to {last} taken over: "
    return said + (
        f"{drifts} figure{' drifts' if drifts == 1 else 's drift'} by more than 1 %" if drifts else "nothing drifts"
    )  # fmt: skip


def _described(source: StatementSource | None) -> dict[str, object] | None:
    if source is None:
        return None
    return {"credential": str(source.credential), "daily": source.daily}


def _audit(
    actor: Actor, provider: Provider, before: dict[str, object] | None, after: dict[str, object] | None
) -> None:
    record(
        actor,
        action="statement_source.changed",
        object_type="providers.provider",
        object_id=provider.pk,
        object_name=provider.slug,
        before=before,
        after=after,
    )
