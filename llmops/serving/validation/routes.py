"""What is wrong with a route. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set

from llmops.providers.rules import (
    CACHED_ANSWER,
    CONTEXT_LENGTH,
    CONTEXT_STRATEGIES,
    DROP_OLDEST,
    FAILURE_CLASSES,
    LARGER_MODEL,
    LAST_RESORTS,
    NO_LAST_RESORT,
    STATIC_ANSWER,
    SUMMARIZE,
)
from llmops.serving.snapshot import ModelEntry, RevisionDocument, RouteEntry
from llmops.serving.validation.problems import ERROR, WARNING, Facts, Problem, purpose_of

_CLASSES, _STRATEGIES, _LAST_RESORTS = (
    frozenset(name for name, _ in names) for names in (FAILURE_CLASSES, CONTEXT_STRATEGIES, LAST_RESORTS)
)


def of_routes(document: RevisionDocument, facts: Facts) -> Iterator[Problem]:
    models = {model.slug: model for model in document.models}
    policies = {policy.slug for policy in document.policies}
    for route in document.routes:
        for level, code, text in (
            *_targets(route, models, facts),
            *_windows(route, models),
            *_last_resort(route, models),
            *_load(route),
            *_switches(route, facts),
            *_named_policies(route, policies, facts),
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
    for slug in named_models(route):
        if slug in models:
            continue
        if slug in facts.archived_models:
            yield ERROR, "model_archived", f"leads to the model {slug}, which is archived."
        elif slug in facts.versionless_models:
            yield ERROR, "model_versionless", f"leads to the model {slug}, which has no version."
        else:
            yield ERROR, "model_gone", f"leads to the model {slug}, which does not exist."
    if len({purpose_of(models[slug]) for slug in _answering(route) if slug in models}) > 1:
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
        elif writer is not None and purpose_of(writer):
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


def _named_policies(route: RouteEntry, policies: Set[str], facts: Facts) -> _Words:
    for slug in route.policies:
        if slug in facts.archived_policies:
            yield ERROR, "policy_archived", f"names the policy {slug}, which is archived."
        elif slug not in policies:
            yield ERROR, "policy_gone", f"names the policy {slug}, which does not exist."


def _chains(route: RouteEntry) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each list of fallbacks, with the words that say after what it is tried."""
    yield "", route.fallbacks
    for name, chosen in sorted(route.fallbacks_for.items()):
        yield f" after {name}", chosen


def _answering(route: RouteEntry) -> list[str]:
    """Models that may be asked for the answer itself."""
    chained = (slug for _, chosen in _chains(route) for slug in chosen)
    return list(dict.fromkeys([*(target.model for target in route.targets), *chained]))


def named_models(route: RouteEntry) -> list[str]:
    """Every model that a route leads to or asks."""
    helping = [slug for slug in (route.larger_model, route.summary_model) if slug]
    return list(dict.fromkeys([*_answering(route), *helping]))


def _no_text(route: RouteEntry, models: _Models) -> bool:
    """Whether no target writes text: all of them make embeddings, images or sound."""
    present = [models[target.model] for target in route.targets if target.model in models]
    return bool(present) and all(map(purpose_of, present))
