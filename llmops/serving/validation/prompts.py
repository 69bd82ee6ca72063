"""What is wrong with prompts that are about to be published. Pure.

What a version says was checked when it was made, and it never changes; what it leads to may have changed since.
"""

from __future__ import annotations

from collections.abc import Iterator

from llmops.core.tokens import encoding_for
from llmops.serving.snapshot import ModelEntry, PromptEntry, PromptVersionEntry, RevisionDocument, RouteEntry
from llmops.serving.validation.problems import ERROR, WARNING, Facts, Problem, purpose_of


def full_name(entry: PromptEntry) -> str:
    """``support/triage``, or ``triage`` for a shared one."""
    return f"{entry.project}/{entry.slug}" if entry.project else entry.slug


def of_prompts(document: RevisionDocument, facts: Facts) -> Iterator[Problem]:
    routes = {route.slug: route for route in document.routes}
    models = {model.slug: model for model in document.models}
    told = facts.unproved_prompts.keys() | facts.ceilings.keys()
    # Most versions go a route of which there is nothing to say: it is looked at once, and not for twenty thousand versions.
    quiet = {"", *(slug for slug, route in routes.items() if not _not_text(route, models))}
    for prompt in document.prompts:
        name = full_name(prompt)
        labels: dict[int, list[str]] = {}
        for label, number in prompt.labels.items():
            labels.setdefault(number, []).append(label)
        if not labels:
            yield Problem(
                WARNING,
                "no_label",
                "prompt",
                name,
                f"Prompt {name} has no label: services can name its versions by their numbers only.",
            )
        for version in prompt.versions:
            if version.route in quiet and (not told or (name, version.number) not in told):
                continue
            # What no label points to is kept for those who name its number; it must not keep anybody from publishing.
            level = ERROR if version.number in labels else WARNING
            about = f"Prompt {name}, version {version.number}" + (
                f" ({', '.join(labels[version.number])})" if version.number in labels else ""
            )
            for code, text in _of_version(name, version, routes, models, facts):
                yield Problem(level, code, "prompt", name, f"{about} {text}")


def _of_version(
    name: str,
    version: PromptVersionEntry,
    routes: dict[str, RouteEntry],
    models: dict[str, ModelEntry],
    facts: Facts,
) -> Iterator[tuple[str, str]]:
    if (name, version.number) in facts.unproved_prompts:
        yield "snapshot", facts.unproved_prompts[name, version.number]
    route = routes.get(version.route)
    if version.route and route is None:
        yield "route_gone", f"goes the route {version.route}, which is not there."
    known = _models_of(route, models) if route else []
    if route and (silent := _not_text(route, models)):
        yield (
            "not_text",
            f"goes the route {version.route}, whose model {silent.slug} does not answer with text.",
        )
    if (name, version.number) not in facts.ceilings:
        return
    ceiling, tokens = facts.ceilings[name, version.number]
    for model in known:
        count = tokens.get(encoding_for(model.upstream_model).name, max(tokens.values(), default=0))
        if count > ceiling:
            yield (
                "over_ceiling",
                f"takes {count:,} tokens of {model.slug}, more than the {ceiling:,} that it allows itself.",
            )
            break


def _models_of(route: RouteEntry, models: dict[str, ModelEntry]) -> list[ModelEntry]:
    named = (*(target.model for target in route.targets), *route.fallbacks)
    return [models[slug] for slug in named if slug in models]


def _not_text(route: RouteEntry, models: dict[str, ModelEntry]) -> ModelEntry | None:
    """The first model of a route that does not answer with text."""
    return next((model for model in _models_of(route, models) if purpose_of(model)), None)
