"""What the Reconciliation page says about asking a provider itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from llmops.providers.models import Credential
from llmops.usage.models import Job, StatementSource
from llmops.usage.services import FETCH

_DAYS = 31


@dataclass(frozen=True, slots=True)
class Fetching:
    """``keys`` are those that can be chosen: not in use for calls. ``first`` and ``last`` are what the form begins with."""

    key: Credential | None
    daily: bool
    keys: Sequence[Credential]
    first: str
    last: str
    last_job: Job | None

    @property
    def moving(self) -> bool:
        return self.last_job is not None and self.last_job.state in (Job.QUEUED, Job.RUNNING)

    @property
    def tone(self) -> str:
        state = self.last_job.state if self.last_job else ""
        return {Job.DONE: "ok", Job.FAILED: "error"}.get(state, "")


def of(provider: str, *, today: date) -> Fetching:
    source = StatementSource.objects.filter(provider__slug=provider).select_related("credential").first()
    free = Credential.objects.filter(provider__slug=provider).exclude(
        state__in=("active", "draining", "revoked")
    )
    last = today - timedelta(days=1)
    return Fetching(
        key=source.credential if source else None,
        daily=bool(source and source.daily),
        keys=list(free.order_by("name")),
        first=(last - timedelta(days=_DAYS - 1)).isoformat(),
        last=last.isoformat(),
        last_job=Job.objects.filter(kind=FETCH, arguments__provider=provider)
        .order_by("-requested_at")
        .first(),
    )
