"""What pages about revisions show: what changes, what is wrong, and where it is put right."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.urls import reverse

from llmops.audit.selectors import head
from llmops.serving import rules
from llmops.serving.comparison import compare
from llmops.serving.differences import changes
from llmops.serving.selectors import Pending, documents_of, live_revision, pending, publishing_rule
from llmops.serving.snapshot import RevisionDocument
from llmops.serving.validation import Problem

#: Rooms of what a problem can be about; all others are of providers.
_ROOMS = {"policy": "policies", "project": "access", "prompt": "prompts"}


def address_of(site: str, problem: Problem) -> str | None:
    """The page of the object that a problem is about, at the member that is wrong."""
    room = _ROOMS.get(problem.kind, "providers")
    model = apps.get_model(room, problem.kind)
    named: dict[str, str | None] = {"slug": problem.slug}
    if problem.kind == "prompt":
        project, _, slug = problem.slug.rpartition("/")
        named = {"slug": slug, "project__slug": project or None}
    pk = model._default_manager.filter(**named).values_list("pk", flat=True).first()
    if not pk:
        return None
    page = reverse(f"{site}:{room}_{problem.kind}_change", args=[pk])
    return f"{page}#field-{problem.field}" if problem.field else page


def publishing_facts(site: str) -> dict[str, Any]:
    found: Pending = pending()
    return {
        "live": found.live,
        "expected": {
            "expected_revision": found.live,
            "expected_digest": found.digest,
            "as_of": found.as_of,
        },
        "errors": [(problem.message, address_of(site, problem)) for problem in found.errors],
        "warnings": [(problem.message, address_of(site, problem)) for problem in found.warnings],
        **_compared(rules.PUBLISH, found.before, found.after),
    }


def standing_facts(what: str, object_id: str) -> dict[str, Any]:
    """Of a revision that is there: restored, or brought."""
    as_of, _ = head()
    live = live_revision()
    before, (after, digest) = documents_of(what, object_id)
    return {
        "live": live.number if live else 0,
        "expected": {
            "expected_revision": live.number if live else 0,
            "expected_digest": digest,
            "as_of": as_of,
        },
        "restoring": True,
        **_compared(what, before, after),
    }


def _compared(what: str, before: RevisionDocument, after: RevisionDocument) -> dict[str, Any]:
    return {
        "compared": compare(before, after),
        "second_person": rules.needed(publishing_rule(), what, changes(before, after)),
    }
