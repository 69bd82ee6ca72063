"""What is wrong with a document that is about to be published. Pure.

An *error* keeps it from being published; a *warning* is shown beside it. Each names the object it is about, so that a
page can lead there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from llmops.providers.rules import (
    AUDIO_OUTPUT,
    CHARACTERS,
    IMAGE_OUTPUT,
    IMAGES,
    INPUT,
    OUTPUT,
    SECONDS,
    url_problem,
)
from llmops.serving.snapshot import ModelEntry, RevisionDocument, RouteEntry

ERROR, WARNING = "error", "warning"
#: Capabilities of models that answer one endpoint alone.
_SINGLE_PURPOSE = ("embeddings", "images", "speech", "transcription")


@dataclass(frozen=True, slots=True)
class Problem:
    """``kind`` is provider, model or route; ``slug`` names the object; ``code`` is stable."""

    level: str
    code: str
    kind: str
    slug: str
    message: str

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True)
class Facts:
    """What the document does not say. ``now`` is Unix seconds; pauses map a slug to the reason."""

    now: float
    archived_models: frozenset[str] = frozenset()
    archived_providers: frozenset[str] = frozenset()
    versionless_models: frozenset[str] = frozenset()
    paused_routes: dict[str, str] = field(default_factory=dict)
    paused_providers: dict[str, str] = field(default_factory=dict)
    providers_with_keys: frozenset[str] = frozenset()
    hard_budgets: bool = False


def validate(document: RevisionDocument, facts: Facts) -> list[Problem]:
    """Every problem of ``document``, errors first, then by kind and slug."""
    found = [*_providers(document, facts), *_models(document, facts), *_routes(document, facts)]
    return sorted(found, key=lambda problem: (problem.level, problem.kind, problem.slug, problem.code))


def unpriced_classes(model: ModelEntry, now: float) -> list[str]:
    """Token classes that a call of ``model`` needs a price for and has none in force at ``now``."""
    priced = {row.token_class for row in model.prices if row.since <= now}
    if priced & {CHARACTERS, SECONDS, IMAGES}:
        return []
    instead = {"speech": AUDIO_OUTPUT, "images": IMAGE_OUTPUT}.get(_kind(model), "")
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
        if provider.slug in used and provider.slug not in facts.providers_with_keys:
            yield Problem(
                WARNING,
                "no_key",
                "provider",
                provider.slug,
                f"Provider {provider.slug} has no active key: every call to it fails until one is activated.",
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


def _routes(document: RevisionDocument, facts: Facts) -> Iterator[Problem]:
    models = {model.slug: model for model in document.models}
    for route in document.routes:

        def problem(level: str, code: str, text: str, slug: str = route.slug) -> Problem:
            return Problem(level, code, "route", slug, f"Route {slug} {text}")

        if route.slug in models:
            yield problem(
                ERROR,
                "name_taken",
                "has the name of a model: callers could not tell which of the two they reach.",
            )
        if not route.targets:
            yield problem(ERROR, "no_targets", "has no target.")
        elif not any(target.weight for target in route.targets):
            yield problem(ERROR, "no_weight", "has targets, but each has weight 0.")
        for slug in _named(route):
            if slug in models:
                continue
            if slug in facts.archived_models:
                yield problem(ERROR, "model_archived", f"leads to the model {slug}, which is archived.")
            elif slug in facts.versionless_models:
                yield problem(ERROR, "model_versionless", f"leads to the model {slug}, which has no version.")
            else:
                yield problem(ERROR, "model_gone", f"leads to the model {slug}, which does not exist.")
        present = [models[slug] for slug in _named(route) if slug in models]
        if len({_kind(model) for model in present}) > 1:
            yield problem(
                WARNING,
                "mixed_kinds",
                "mixes models for different endpoints (embeddings, images, speech, transcription, text): a call can "
                "fall through to a model that cannot answer it.",
            )
        if route.fallbacks and present:
            target_window = min(
                (models[target.model].context_window for target in route.targets if target.model in models),
                default=0,
            )
            for slug in route.fallbacks:
                if slug in models and models[slug].context_window < target_window:
                    yield problem(
                        WARNING,
                        "smaller_fallback",
                        f"falls back to {slug}, whose context window is smaller than its targets'.",
                    )
        if repeated := sorted({target.model for target in route.targets} & set(route.fallbacks)):
            yield problem(WARNING, "repeated", f"names {', '.join(repeated)} both as target and as fallback.")
        if 0 < route.attempts <= len(route.fallbacks):
            yield problem(
                WARNING,
                "fallbacks_unreached",
                f"makes at most {route.attempts} attempts, so not every fallback is reached.",
            )
        if route.slug in facts.paused_routes:
            yield problem(WARNING, "paused", "is paused and stays paused.")


def _kind(model: ModelEntry) -> str:
    """What a model is for, where it answers one endpoint alone; empty for text and for what says nothing."""
    if "chat" in model.capabilities:
        return ""
    return next((name for name in _SINGLE_PURPOSE if name in model.capabilities), "")


def _named(route: RouteEntry) -> list[str]:
    return list(dict.fromkeys([*(target.model for target in route.targets), *route.fallbacks]))
