"""Policies tried on what calls asked: how many of the last kept ones a version would have let through, redacted or refused.

Texts are opened here, looked at by the checks and forgotten; counts and the ids of some calls come out. That they were read is on
the record.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Collection
from uuid import UUID

from django.db import transaction

from llmops.access.models import Project
from llmops.audit.services import record
from llmops.base.master_keys import master_keys
from llmops.core.actors import Actor
from llmops.core.errors import ConsoleError
from llmops.core.verdicts import ALLOW
from llmops.policies.models import Policy, PolicyVersion
from llmops.policies.stored_trial import EXAMPLES, Example, StoredTrial
from llmops.policies.trial import asked_guard
from llmops.usage.models import KeptText
from llmops.usage.records import kept_text_identity

#: Calls of one trial, and seconds after which it stops and says how far it came.
MOST_CALLS, MOST_SECONDS = 2_000, 8.0
_PIECE = 200


def try_on_calls(
    actor: Actor,
    *,
    policy: Policy,
    version: PolicyVersion,
    projects: Collection[UUID] | None,
    calls: int = 1_000,
) -> StoredTrial:
    """The last ``calls`` kept requests of ``projects`` (None: all) against a version. ``settings.TRY_ON_CALLS`` points here."""
    began = time.monotonic()
    rows = KeptText.objects.order_by("-started_at", "call_id")
    if projects is not None:
        rows = rows.filter(project_id__in=projects)
    guard = asked_guard(policy.slug, version.number, version.checks)
    actions: Counter[str] = Counter()
    checks: Counter[str] = Counter()
    examples: list[Example] = []
    looked = unreadable = 0
    wanted = min(calls, MOST_CALLS)
    stopped = False
    for first in range(0, wanted, _PIECE):
        piece = list(rows[first : min(first + _PIECE, wanted)])
        for row in piece:
            texts = _opened(row)
            if texts is None:
                unreadable += 1
                continue
            looked += 1
            said = guard(texts)
            actions[said.action if said.verdicts else ALLOW] += 1
            for name in dict.fromkeys(f"{verdict.check}: {verdict.action}" for verdict in said.verdicts):
                checks[name] += 1
            if said.verdicts and said.action != ALLOW and len(examples) < EXAMPLES:
                names = tuple(
                    dict.fromkeys(found.name for verdict in said.verdicts for found in verdict.findings)
                )
                examples.append(Example(row.call_id, row.started_at, row.route, said.action, names[:5]))
        stopped = time.monotonic() - began > MOST_SECONDS
        if stopped or len(piece) < _PIECE:
            break
    keeping = Project.objects.filter(archived_at=None, keep_texts_percent__gt=0)
    if projects is not None:
        keeping = keeping.filter(pk__in=projects)
    trial = StoredTrial(
        looked=looked,
        unreadable=unreadable,
        actions=dict(actions),
        checks=checks.most_common(),
        examples=tuple(examples),
        seconds=time.monotonic() - began,
        stopped=stopped and looked + unreadable < wanted,
        keeping=tuple(keeping.order_by("slug").values_list("slug", flat=True)),
    )
    with transaction.atomic():
        record(
            actor,
            action="policy.tried_on_calls",
            object_type="policies.policy",
            object_id=policy.pk,
            object_name=policy.slug,
            after={"version": version.number, "calls": looked, "outcome": trial.actions},
        )
    return trial


def _opened(row: KeptText) -> list[tuple[str, str]] | None:
    try:
        found = json.loads(master_keys().open(row.sealed, identity=kept_text_identity(row.call_id)))
    except (ConsoleError, ValueError):
        return None
    return [(str(role), str(text)) for role, text in found]
