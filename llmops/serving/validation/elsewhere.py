"""What a revision of another installation names that is not here. Pure.

A revision holds no secret: the keys of its providers are this installation's own, and so are projects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from llmops.serving.snapshot import RevisionDocument
from llmops.serving.validation.problems import ERROR, Problem
from llmops.serving.validation.routes import named_models


@dataclass(frozen=True, slots=True)
class Needs:
    """What is here: base URLs of providers that are not archived, by slug, and slugs of projects."""

    providers: Mapping[str, str]
    projects: frozenset[str]


def missing_here(document: RevisionDocument, here: Needs, found: Sequence[Problem]) -> list[Problem]:
    """``found`` are the document's own problems; that a provider which a route leads to has no key is an error of what is
    brought. Errors first."""
    named = {slug for route in document.routes for slug in named_models(route)}
    routed = {model.provider for model in document.models if model.slug in named}
    unkeyed = [problem.slug for problem in found if problem.code == "no_key" and problem.slug in routed]
    kept = [problem for problem in found if problem.code != "no_key" or problem.slug not in unkeyed]
    return sorted(
        [*_missing(document, here, unkeyed), *kept],
        key=lambda problem: (problem.level, problem.kind, problem.slug, problem.code),
    )


def _missing(document: RevisionDocument, here: Needs, unkeyed: Sequence[str]) -> Iterator[Problem]:
    for provider in document.providers:
        slug = provider.slug
        if slug not in here.providers:
            yield _problem(
                "provider_gone",
                slug,
                f"There is no provider {slug} here, which the revision names. Add it with a key of its own first.",
            )
        elif here.providers[slug] != provider.base_url:
            # Keys follow the provider's name: they must not be sent to another host because a file says so.
            yield _problem(
                "base_url",
                slug,
                f"Provider {slug} leads to {provider.base_url} in the revision and to {here.providers[slug]} here: its keys "
                "would be sent elsewhere. Make both the same first.",
            )
        elif slug in unkeyed:
            yield _problem(
                "no_key", slug, f"Provider {slug} has no active key here. Add one and activate it first."
            )
    for project in sorted({prompt.project for prompt in document.prompts if prompt.project} - here.projects):
        yield Problem(
            ERROR,
            "project_gone",
            "project",
            project,
            f"There is no project {project} here, whose prompts the revision holds. Add it first.",
        )


def _problem(code: str, slug: str, message: str) -> Problem:
    return Problem(ERROR, code, "provider", slug, message)
