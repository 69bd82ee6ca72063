"""What is wrong with a document that is about to be published. Pure.

An *error* keeps it from being published; a *warning* is shown beside it. Each names the object it is about, so that a
page can lead there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field

from llmops.providers.rules import (
    AUDIO_OUTPUT,
    CACHED_ANSWER,
    CHARACTERS,
    CONTEXT_LENGTH,
    CONTEXT_STRATEGIES,
    DROP_OLDEST,
    FAILURE_CLASSES,
    IMAGE_OUTPUT,
    IMAGES,
    INPUT,
    LARGER_MODEL,
    LAST_RESORTS,
    NO_LAST_RESORT,
    OUTPUT,
    SECONDS,
    STATIC_ANSWER,
    SUMMARIZE,
    passthrough_problem,
    url_problem,
)
from llmops.serving.snapshot import ModelEntry, RevisionDocument, RouteEntry

ERROR, WARNING = "error", "warning"
#: Capabilities of models that answer one endpoint alone.
_SINGLE_PURPOSE = ("embeddings", "images", "speech", "transcription")
_CLASSES, _STRATEGIES, _LAST_RESORTS = (
    frozenset(name for name, _ in names) for names in (FAILURE_CLASSES, CONTEXT_STRATEGIES, LAST_RESORTS)
)


@dataclass(frozen=True, slots=True)
class Problem:
    """``kind`` is provider, model, route, policy or project; ``slug`` names the object; ``code`` is stable."""

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
    archived_policies: frozenset[str] = frozenset()
    paused_routes: dict[str, str] = field(default_factory=dict)
    degraded_routes: dict[str, str] = field(default_factory=dict)
    paused_providers: dict[str, str] = field(default_factory=dict)
    providers_with_keys: frozenset[str] = frozenset()
    hard_budgets: bool = False
    #: project -> the route that answers requests which name no model
    default_routes: dict[str, str] = field(default_factory=dict)


def validate(document: RevisionDocument, facts: Facts) -> list[Problem]:
    """Every problem of ``document``, errors first, then by kind and slug."""
    found = [
        *_providers(document, facts),
        *_models(document, facts),
        *_routes(document, facts),
        *_projects(document, facts),
    ]
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
        if problem := passthrough_problem(provider.passthrough):
            yield Problem(
                ERROR,
                "passthrough",
                "provider",
                provider.slug,
                f"Provider {provider.slug}: paths passed through: {problem}.",
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
    policies = {policy.slug for policy in document.policies}
    for route in document.routes:
        for level, code, text in (
            *_targets(route, models, facts),
            *_windows(route, models),
            *_last_resort(route, models),
            *_load(route),
            *_switches(route, facts),
            *_policies(route, policies, facts),
        ):
            yield Problem(level, code, "route", route.slug, f"Route {route.slug} {text}")


#: level, code, and the sentence after the route's name
_Words = Iterator[tuple[str, str, str]]
_Models = Mapping[str, ModelEntry]


def _targets(route: RouteEntry, models: _Models, facts: Facts) -> _Words:
    if route.slug in models:
        yield (
            ERROR,
            "name_taken",
            "has the name of a model: callers could not tell which of the two they reach.",
        )
    if not route.targets:
        yield ERROR, "no_targets", "has no target."
    elif not any(target.weight for target in route.targets):
        yield ERROR, "no_weight", "has targets, but each has weight 0."
    for slug in _named(route):
        if slug in models:
            continue
        if slug in facts.archived_models:
            yield ERROR, "model_archived", f"leads to the model {slug}, which is archived."
        elif slug in facts.versionless_models:
            yield ERROR, "model_versionless", f"leads to the model {slug}, which has no version."
        else:
            yield ERROR, "model_gone", f"leads to the model {slug}, which does not exist."
    if len({_kind(models[slug]) for slug in _answering(route) if slug in models}) > 1:
        yield (
            WARNING,
            "mixed_kinds",
            "mixes models for different endpoints (embeddings, images, speech, transcription, text): a call can "
            "fall through to a model that cannot answer it.",
        )
    for name in sorted(set(route.fallbacks_for) - _CLASSES):
        yield ERROR, "class_unknown", f"has fallbacks for {name!r}, which is not a class of failure."
    targets = {target.model for target in route.targets}
    for after, chosen in _chains(route):
        if repeated := sorted(targets & set(chosen)):
            yield WARNING, "repeated", f"names {', '.join(repeated)} both as target and as fallback{after}."
        if 0 < route.attempts <= len(chosen):
            yield (
                WARNING,
                "fallbacks_unreached",
                f"makes at most {route.attempts} attempts, so not every fallback{after} is reached.",
            )


def _windows(route: RouteEntry, models: _Models) -> _Words:
    """What does not fit together about context windows, and what is done when an input is too long for one."""
    windows = [models[target.model].context_window for target in route.targets if target.model in models]
    for after, chosen in _chains(route):
        for slug in chosen:
            if not windows or slug not in models:
                continue
            window = models[slug].context_window
            if after.endswith(CONTEXT_LENGTH):
                if window <= min(windows):
                    yield (
                        WARNING,
                        "no_larger_fallback",
                        f"falls back to {slug} when the input is too long, but its context window is no larger than its "
                        "targets'.",
                    )
            elif window < min(windows):
                yield (
                    WARNING,
                    "smaller_fallback",
                    f"falls back to {slug}{after}, whose context window is smaller than its targets'.",
                )
    strategy = route.context_strategy
    if strategy not in _STRATEGIES:
        yield (
            ERROR,
            "strategy_unknown",
            f"has the strategy {strategy!r} for long inputs, which does not exist.",
        )
    if strategy == LARGER_MODEL:
        larger = models.get(route.larger_model)
        if not route.larger_model:
            yield (
                ERROR,
                "no_larger_model",
                "uses a larger model for inputs that are too long, but names none.",
            )
        elif larger is not None and windows and larger.context_window <= max(windows):
            yield (
                ERROR,
                "larger_model_small",
                f"uses {larger.slug} for inputs that are too long, but its context window ({larger.context_window} "
                f"tokens) is not larger than that of every target ({max(windows)}).",
            )
    elif route.larger_model:
        yield (
            WARNING,
            "larger_model_unused",
            f"names {route.larger_model} as larger model, but never uses it.",
        )
    if strategy == SUMMARIZE:
        writer = models.get(route.summary_model)
        if not route.summary_model:
            yield ERROR, "no_summary_model", "summarises the oldest turns, but names no model that writes it."
        elif writer is not None and _kind(writer):
            yield (
                ERROR,
                "summary_model_mute",
                f"summarises with {writer.slug}, which does not write text.",
            )
    elif route.summary_model:
        yield (
            WARNING,
            "summary_model_unused",
            f"names {route.summary_model} for summaries, but never asks it for one.",
        )
    if strategy in (DROP_OLDEST, SUMMARIZE) and _no_text(route, models):
        yield (
            WARNING,
            "no_turns",
            "leaves out turns of long inputs, but what its models take has none: it is refused.",
        )


def _last_resort(route: RouteEntry, models: _Models) -> _Words:
    if route.last_resort not in _LAST_RESORTS:
        yield (
            ERROR,
            "last_resort_unknown",
            f"has the last resort {route.last_resort!r}, which does not exist.",
        )
    if route.last_resort == STATIC_ANSWER and not route.static_answer.strip():
        yield ERROR, "no_static_answer", "gives a fixed answer as last resort, but has none."
    elif route.last_resort != STATIC_ANSWER and route.static_answer:
        yield WARNING, "static_answer_unused", "has a fixed answer that it never gives."
    if route.last_resort == STATIC_ANSWER and _no_text(route, models):
        yield (
            WARNING,
            "static_not_text",
            "gives a fixed text as last resort, but its models answer with something else: the error stays.",
        )
    if route.last_resort == CACHED_ANSWER and not route.cache_ttl_s:
        yield WARNING, "cache_off", "gives earlier answers as last resort, but keeps none: its cache is off."
    if route.cache_tools and not route.cache_ttl_s:
        yield WARNING, "cache_tools_off", "caches requests that offer tools, but its cache is off."


def _load(route: RouteEntry) -> _Words:
    if route.queue_size and route.queue_timeout_ms >= route.total_timeout_ms:
        yield (
            WARNING,
            "queue_outlasts",
            f"lets calls wait {route.queue_timeout_ms} ms for their turn, but gives them {route.total_timeout_ms} ms in all.",
        )


def _switches(route: RouteEntry, facts: Facts) -> _Words:
    if route.slug in facts.paused_routes:
        yield WARNING, "paused", "is paused and stays paused."
    if route.slug in facts.degraded_routes:
        yield WARNING, "degraded", "is degraded and stays degraded: its targets are passed over."
        if not route.fallbacks and route.last_resort == NO_LAST_RESORT:
            yield (
                WARNING,
                "nothing_left",
                "is degraded, but has neither fallbacks nor a last resort: every call is refused.",
            )


def _policies(route: RouteEntry, policies: Set[str], facts: Facts) -> _Words:
    for slug in route.policies:
        if slug in facts.archived_policies:
            yield ERROR, "policy_archived", f"names the policy {slug}, which is archived."
        elif slug not in policies:
            yield ERROR, "policy_gone", f"names the policy {slug}, which does not exist."


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


def _chains(route: RouteEntry) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each list of fallbacks, with the words that say after what it is tried."""
    yield "", route.fallbacks
    for name, chosen in sorted(route.fallbacks_for.items()):
        yield f" after {name}", chosen


def _answering(route: RouteEntry) -> list[str]:
    """Models that may be asked for the answer itself."""
    chained = (slug for _, chosen in _chains(route) for slug in chosen)
    return list(dict.fromkeys([*(target.model for target in route.targets), *chained]))


def _kind(model: ModelEntry) -> str:
    """What a model is for, where it answers one endpoint alone; empty for text and for what says nothing."""
    if "chat" in model.capabilities:
        return ""
    return next((name for name in _SINGLE_PURPOSE if name in model.capabilities), "")


def _named(route: RouteEntry) -> list[str]:
    helping = [slug for slug in (route.larger_model, route.summary_model) if slug]
    return list(dict.fromkeys([*_answering(route), *helping]))


def _no_text(route: RouteEntry, models: _Models) -> bool:
    """Whether no target writes text: all of them make embeddings, images or sound."""
    present = [models[target.model] for target in route.targets if target.model in models]
    return bool(present) and all(map(_kind, present))
