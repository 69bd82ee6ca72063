"""Taking over what a provider says was used, and telling where it and the ledger do not agree."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.mail import send_mail
from django.db import transaction

from llmops.access.rules import ADMIN, FINANCE
from llmops.audit.services import record
from llmops.base.clock import database_now
from llmops.base.locks import lock
from llmops.base.tasks import send
from llmops.core.actors import Actor
from llmops.core.digests import sha256_hex
from llmops.core.errors import InvalidRequest
from llmops.core.money import NANO, format_usd
from llmops.providers.models import Provider
from llmops.usage.models import DriftAlert, ProviderFigure, ProviderImport
from llmops.usage.selectors.reconciliation import BOUND_PERCENT, Drift, drifts, percent
from llmops.usage.statements import read

_MOST_TOLD = 30


def import_statement(
    actor: Actor,
    *,
    provider: Provider,
    text: str,
    file_name: str = "",
    source: str = "csv",
    speaks: str = "",
) -> ProviderImport:
    """Take over a provider's export, whole or not at all; what it says of a day replaces what was said before.

    The same text again changes nothing and answers the import that is there, unless a day of it was not over then and is
    now: it is judged anew. ``speaks`` as in ``statements.read``. Raises ``BadStatement`` with the line of every
    fault, ``InvalidRequest`` for days to come. Drifts above 1 % on days that are over leave a ``DriftAlert`` each, and one
    e-mail goes to whoever keeps the books of the whole organisation.
    """
    statement = read(text, speaks=speaks)
    digest = sha256_hex(text.encode())
    with transaction.atomic():
        lock(f"usage.statement:{provider.slug}")
        now = database_now()
        if statement.days[-1] > now.date():
            raise InvalidRequest(
                f"file: it speaks of {statement.days[-1]}, which is yet to come (days are in UTC).",
                param="file",
            )
        last = ProviderImport.objects.filter(provider=provider.slug).first()
        if last is not None and last.digest == digest and not _over_since(last, now):
            return last
        made = ProviderImport.objects.create(
            provider=provider.slug,
            source=source,
            file_name=file_name[:200],
            digest=digest,
            has_tokens=statement.has_tokens,
            has_cost=statement.has_cost,
            first_day=statement.days[0],
            last_day=statement.days[-1],
            imported_at=now,
            imported_by=actor.name[:200],
        )
        told = {line.day for line in statement.lines}
        figures = [
            ProviderFigure(
                statement=made, provider=provider.slug, day=line.day, model=line.model, requests=line.requests,
                input_tokens=line.input_tokens, cached_input_tokens=line.cached_input_tokens,
                output_tokens=line.output_tokens, cost_nano=line.cost_nano,
            )
            for line in statement.lines
        ]  # fmt: skip
        figures += [
            ProviderFigure(statement=made, provider=provider.slug, day=day)
            for day in statement.days
            if day not in told
        ]
        ProviderFigure.objects.bulk_create(figures, batch_size=500)
        alerts = _raise_alerts(made, set(statement.days))
        record(
            actor,
            action="provider_statement.imported",
            object_type="usage.providerimport",
            object_id=made.pk,
            object_name=str(made)[:200],
            after={
                "provider": provider.slug,
                "file": made.file_name,
                "digest": digest,
                "days": f"{made.first_day} to {made.last_day}",
                "rows": len(figures),
                "drifts": len(alerts),
            },
        )
        if alerts:
            send("usage.tell_of_drift", str(made.pk))
    return made


def _over_since(made: ProviderImport, now: datetime) -> bool:
    return made.imported_at.astimezone(UTC).date() <= made.last_day < now.astimezone(UTC).date()


def tell_of_drift(import_id: int) -> int:
    """Send the e-mail about the drifts of an import; to how many it went."""
    made = ProviderImport.objects.filter(pk=import_id).first()
    alerts = list(DriftAlert.objects.filter(statement_id=import_id).order_by("day", "model", "what"))
    addresses = _bookkeepers()
    if made is None or not alerts or not addresses:
        return 0
    lines = [
        f"The ledger and what {made.provider} says differ by more than {BOUND_PERCENT:g} % in {len(alerts)} places.",
        "",
        *(alert_in_words(alert) for alert in alerts[:_MOST_TOLD]),
    ]
    if len(alerts) > _MOST_TOLD:
        lines.append(f"and {len(alerts) - _MOST_TOLD} more")
    address = f"{settings.PUBLIC_URL}/reconciliation/?provider={made.provider}"
    lines += ["", f"Imported by {made.imported_by} from {made.file_name or made.source}.", address]
    subject = f"{made.provider}: {len(alerts)} drifts from the ledger"
    for one in addresses:
        send_mail(subject, "\n".join(lines) + "\n", None, [one])
    return len(addresses)


def alert_in_words(alert: DriftAlert) -> str:
    ledger, stated = (
        (f"{_usd(alert.ledger)} USD", f"{_usd(alert.stated)} USD")
        if alert.what == DriftAlert.COST
        else (f"{alert.ledger:,} tokens", f"{alert.stated:,} tokens")
    )
    drift = percent(alert.ledger, alert.stated) or 0
    return f"{alert.day} {alert.model or 'all models'}: {ledger} in the ledger, {stated} at the provider ({drift:+.2f} %)"


def _usd(nano: int) -> str:
    return format_usd(nano, places=2 if abs(nano) >= NANO else 6)


def _raise_alerts(made: ProviderImport, days: set[object]) -> Sequence[DriftAlert]:
    today = made.imported_at.date()
    raised = [
        alert
        for drift in drifts(made.provider, made.first_day, made.last_day)
        # A day that is not over goes on at both.
        if drift.day in days and drift.day < today
        for alert in _alerts_of(made, drift)
    ]
    return DriftAlert.objects.bulk_create(raised, batch_size=500)


def _alerts_of(made: ProviderImport, drift: Drift) -> list[DriftAlert]:
    compared = (
        (DriftAlert.TOKENS, made.has_tokens, drift.ledger_tokens, drift.stated_tokens, drift.token_percent),
        (DriftAlert.COST, made.has_cost, drift.ledger_nano, drift.stated_nano, drift.cost_percent),
    )
    return [
        DriftAlert(
            statement=made, provider=made.provider, day=drift.day, model=drift.model, what=what,
            ledger=ledger, stated=stated or 0, raised_at=made.imported_at,
        )
        for what, speaks, ledger, stated, drifted in compared
        if speaks and drifted is not None and abs(drifted) > BOUND_PERCENT
    ]  # fmt: skip


def _bookkeepers() -> list[str]:
    """E-mail addresses of those who do finance or administer the whole organisation."""
    people = get_user_model().objects.filter(
        is_active=True, memberships__project=None, memberships__role__in=(FINANCE, ADMIN)
    )
    return sorted({person.email for person in people if person.email})


__all__ = ["alert_in_words", "import_statement", "tell_of_drift"]
