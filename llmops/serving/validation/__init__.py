"""What is wrong with a document that is about to be published. Pure.

An *error* keeps it from being published; a *warning* is shown beside it. Each names the object it is about, so that a
page can lead there.
"""

from __future__ import annotations

from collections.abc import Iterator

from llmops.core.errors import InvalidRequest
from llmops.policies.checks import validate as validate_check
from llmops.policies.rules import asked_model
from llmops.providers.rules import (
    AUDIO_OUTPUT,
    CHARACTERS,
    IMAGE_OUTPUT,
    IMAGES,
    INPUT,
    OUTPUT,
    SECONDS,
    origin_of,
    passthrough_problem,
    shared_objects_problem,
    url_problem,
)
from llmops.serving.snapshot import ModelEntry, RevisionDocument
from llmops.serving.validation.problems import ERROR, WARNING, Facts, Problem, purpose_of
from llmops.serving.validation.prompts import of_prompts
from llmops.serving.validation.routes import of_routes

__all__ = ["ERROR", "WARNING", "Facts", "Problem", "unpriced_classes", "validate"]


def validate(document: RevisionDocument, facts: Facts) -> list[Problem]:
    """Every problem of ``document``, errors first, then by kind and slug."""
    found = [
        *_providers(document, facts),
        *_models(document, facts),
        *of_routes(document, facts),
        *_policies(document, facts),
        *of_prompts(document, facts),
        *_projects(document, facts),
    ]
    return sorted(found, key=lambda problem: (problem.level, problem.kind, problem.slug, problem.code))


def unpriced_classes(model: ModelEntry, now: float) -> list[str]:
    """Token classes that a call of ``model`` needs a price for and has none in force at ``now``."""
    priced = {row.token_class for row in model.prices if row.since <= now}
    if priced & {CHARACTERS, SECONDS, IMAGES}:
        return []
    instead = {"speech": AUDIO_OUTPUT, "images": IMAGE_OUTPUT}.get(purpose_of(model), "")
    needed = [INPUT, OUTPUT] if model.max_output_tokens and instead not in priced else [INPUT]
    return [token_class for token_class in needed if token_class not in priced]


def _providers(document: RevisionDocument, facts: Facts) -> Iterator[Problem]:
    used = {model.provider for model in document.models}
    for provider in document.providers:
        if problem := url_problem(provider.base_url, allow_private=provider.allow_private_network):
            yield Problem(
                ERROR,
                "base_url",
                "provider",
                provider.slug,
                f"Provider {provider.slug}: base URL: {problem}.",
            )
        if problem := passthrough_problem(provider.passthrough):
            yield Problem(
                ERROR,
                "passthrough",
                "provider",
                provider.slug,
                f"Provider {provider.slug}: paths passed through: {problem}.",
            )
        if problem := shared_objects_problem(provider.shared_objects):
            yield Problem(
                ERROR,
                "shared_objects",
                "provider",
                provider.slug,
                f"Provider {provider.slug}: objects for every project: {problem}.",
            )
        if provider.slug in used and provider.slug not in facts.providers_with_keys:
            yield Problem(
                WARNING,
                "no_key",
                "provider",
                provider.slug,
                f"Provider {provider.slug} has no active key that was given for {origin_of(provider.base_url)}: every call to it "
                "fails until one is given and activated.",
            )
        if provider.slug in facts.paused_providers:
            yield Problem(
                WARNING,
                "paused",
                "provider",
                provider.slug,
                f"Provider {provider.slug} is paused and stays paused.",
            )


def _models(document: RevisionDocument, facts: Facts) -> Iterator[Problem]:
    providers = {provider.slug for provider in document.providers}
    for model in document.models:

        def problem(level: str, code: str, text: str, slug: str = model.slug) -> Problem:
            return Problem(level, code, "model", slug, f"Model {slug} {text}")

        if model.provider not in providers:
            state = "is archived" if model.provider in facts.archived_providers else "does not exist"
            yield problem(
                ERROR, "provider_gone", f"is served by the provider {model.provider}, which {state}."
            )
        if model.max_output_tokens > model.context_window:
            yield problem(ERROR, "context_window", "may answer more tokens than its context window holds.")
        if "chat" in model.capabilities and not model.max_output_tokens:
            yield problem(ERROR, "no_output", "is for chat, but its maximum output is 0 tokens.")
        if model.max_output_tokens and not model.default_max_output_tokens:
            yield problem(
                ERROR,
                "no_default_output",
                "has a default output of 0 tokens: calls that name no limit would get no answer.",
            )
        if missing := unpriced_classes(model, facts.now):
            yield problem(
                WARNING,
                "unpriced",
                f"has no price for {' and '.join(missing)}: calls under a budget are refused until one is added"
                + (", and there are hard budgets." if facts.hard_budgets else "."),
            )
    for slug in sorted(facts.versionless_models):
        yield Problem(WARNING, "no_version", "model", slug, f"Model {slug} has no version and is left out.")


def _policies(document: RevisionDocument, facts: Facts) -> Iterator[Problem]:
    callable_names = {model.slug for model in document.models} | {route.slug for route in document.routes}
    for policy in document.policies:
        for index, check in enumerate(policy.checks):
            path = f"checks[{index}]"
            try:
                validate_check(check.kind, check.stage, check.action, check.settings, path=path)
            except InvalidRequest as refused:
                yield Problem(
                    ERROR, "check", "policy", policy.slug, f"Policy {policy.slug}: {refused.message}"
                )
                continue
            asked = asked_model(check.kind, check.settings)
            if asked and asked not in callable_names:
                yield Problem(
                    ERROR,
                    "asked_model_gone",
                    "policy",
                    policy.slug,
                    f"Policy {policy.slug}: {path}.settings.model: there is no model or route {asked}.",
                )
    for slug in sorted(facts.idle_policies):
        yield Problem(
            WARNING,
            "idle",
            "policy",
            slug,
            f"Policy {slug} is named by no route and does not hold everywhere: it checks nothing.",
        )


def _projects(document: RevisionDocument, facts: Facts) -> Iterator[Problem]:
    routes = {route.slug for route in document.routes}
    for project, route in facts.default_routes.items():
        if route not in routes:
            yield Problem(
                WARNING,
                "default_route_gone",
                "project",
                project,
                f"Project {project} sends requests that name no model to the route {route}, which is not there: they are "
                "refused.",
            )
