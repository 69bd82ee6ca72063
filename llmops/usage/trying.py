"""Policies tried on what calls asked: how many of the last kept ones a version would have let through, redacted or refused.

Texts are opened here, looked at by the checks and forgotten; counts and the ids of some calls come out. That they were read is on
the record, also when somebody stopped half-way.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Collection, Generator, Iterator
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet

from llmops.access.models import Project
from llmops.audit.services import record
from llmops.base.master_keys import master_keys
from llmops.core.actors import Actor
from llmops.core.errors import ConsoleError
from llmops.core.verdicts import ALLOW
from llmops.policies.models import Policy, PolicyVersion
from llmops.policies.stored_trial import EXAMPLES, MOST_CALLS, Example, StoredTrial
from llmops.policies.trial import asked_guard
from llmops.usage.models import KeptText
from llmops.usage.records import kept_text_identity

#: A trial says how far it is after so long, and stops for good after so long.
STEP_S, MOST_S = 0.25, 120.0
_PIECE = 200


def try_on_calls(
    actor: Actor,
    *,
    policy: Policy,
    version: PolicyVersion,
    projects: Collection[UUID] | None,
    calls: int = 1_000,
) -> Generator[StoredTrial]:
    """The last ``calls`` kept requests of ``projects`` (None: all) against a version, newest first: how far it is, every ``STEP_S``.

    The last one is the outcome. Whoever stops asking closes the iterator, which ends the trial. ``settings.TRY_ON_CALLS`` points
    here.
    """
    looking = _Looking(policy, version, projects, min(calls, MOST_CALLS))
    try:
        yield looking.told()
        while looking.go_on():
            yield looking.told()
        looking.over = True
        yield looking.told()
    finally:
        _put_on_record(actor, policy, version, looking.told())


class _Looking:
    """One trial, and how far it is."""

    def __init__(
        self, policy: Policy, version: PolicyVersion, projects: Collection[UUID] | None, wanted: int
    ) -> None:
        self.began = time.monotonic()
        self.rows = KeptText.objects.order_by("-started_at", "-call_id")
        keeping = Project.objects.filter(archived_at=None, keep_texts_percent__gt=0)
        if projects is not None:
            self.rows = self.rows.filter(project_id__in=projects)
            keeping = keeping.filter(pk__in=projects)
        self.keeping = tuple(keeping.order_by("slug").values_list("slug", flat=True))
        self.of = self.rows[:wanted].count()
        self.guard = asked_guard(policy.slug, version.number, version.checks)
        self.actions: Counter[str] = Counter()
        self.checks: Counter[str] = Counter()
        self.examples: list[Example] = []
        self.looked = self.unreadable = 0
        self.over = False
        self.left = _newest_first(self.rows, self.of)

    def go_on(self) -> bool:
        """Look at calls for a while. False once there is none left, or the time is up."""
        until = time.monotonic() + STEP_S
        for row in self.left:
            self._look(row)
            if time.monotonic() >= until:
                return until - self.began < MOST_S
        return False

    def _look(self, row: KeptText) -> None:
        texts = _opened(row)
        if texts is None:
            self.unreadable += 1
            return
        self.looked += 1
        said = self.guard(texts)
        self.actions[said.action if said.verdicts else ALLOW] += 1
        for name in dict.fromkeys(f"{verdict.check}: {verdict.action}" for verdict in said.verdicts):
            self.checks[name] += 1
        if said.verdicts and said.action != ALLOW and len(self.examples) < EXAMPLES:
            names = dict.fromkeys(found.name for verdict in said.verdicts for found in verdict.findings)
            self.examples.append(
                Example(row.call_id, row.started_at, row.route, said.action, tuple(names)[:5])
            )

    def told(self) -> StoredTrial:
        return StoredTrial(
            of=self.of,
            looked=self.looked,
            unreadable=self.unreadable,
            actions=dict(self.actions),
            checks=self.checks.most_common(),
            examples=tuple(self.examples),
            seconds=time.monotonic() - self.began,
            over=self.over,
            keeping=self.keeping,
        )


def _newest_first(rows: QuerySet[KeptText], wanted: int) -> Iterator[KeptText]:
    """Piece by piece, from where the one before ended: what is kept meanwhile is not looked at, and nothing twice."""
    left = rows
    while wanted > 0:
        piece = list(left[: min(_PIECE, wanted)])
        yield from piece
        wanted -= len(piece)
        if len(piece) < _PIECE:
            return
        last = piece[-1]
        left = rows.filter(started_at__lte=last.started_at).filter(
            Q(started_at__lt=last.started_at) | Q(call_id__lt=last.call_id)
        )


@transaction.atomic
def _put_on_record(actor: Actor, policy: Policy, version: PolicyVersion, trial: StoredTrial) -> None:
    record(
        actor,
        action="policy.tried_on_calls",
        object_type="policies.policy",
        object_id=policy.pk,
        object_name=policy.slug,
        after={"version": version.number, "calls": trial.looked, "outcome": trial.actions},
    )


def _opened(row: KeptText) -> list[tuple[str, str]] | None:
    try:
        found = json.loads(master_keys().open(row.sealed, identity=kept_text_identity(row.call_id)))
        found = found["texts"] if isinstance(found, dict) else found
    except (ConsoleError, ValueError, KeyError):
        return None
    return [(str(role), str(text)) for role, text in found]
