"""Whether a document that was made elsewhere keeps to what forms and the API let anybody configure here.

What is configured here was checked field by field when it was entered. What is brought was entered elsewhere, or by nobody: a
price below zero, a time-out of no time or a prompt that cannot be compiled would reach the data planes as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db.models import Model as Table

from llmops.access.models import Project
from llmops.core.errors import InvalidRequest
from llmops.policies.models import Policy, PolicyVersion
from llmops.prompts.content import EMPTY, checked
from llmops.prompts.models import Label, Prompt, PromptVersion
from llmops.providers.models import Model, ModelConfig, Price, Provider, Route, RouteTarget
from llmops.providers.rules import CAPABILITIES, highest_price, parameters_problem, proxy_problem, reads_keys
from llmops.serving.snapshot import ModelEntry, PromptEntry, RevisionDocument
from llmops.serving.validation import ERROR, WARNING, Problem
from llmops.serving.validation.prompts import full_name

#: The end of the year 9999, in Unix seconds.
_LAST_SECOND = 253_402_300_799


def out_of_bounds(document: RevisionDocument, live: RevisionDocument) -> Iterator[Problem]:
    """What nobody could have configured here. ``live`` is what is served now."""
    yield from _twice(document)
    proxies = dict(Provider.objects.values_list("slug", "proxy_url"))
    for provider in document.providers:
        yield from _fields("provider", provider, Provider)
        if problem := proxy_problem(provider.proxy_url):
            yield _problem("provider", provider.slug, f"proxy_url: {problem}")
        elif reads_keys(provider.base_url, provider.proxy_url) and provider.proxy_url != proxies.get(
            provider.slug
        ):
            yield _problem(
                "provider",
                provider.slug,
                f"the proxy {provider.proxy_url} would read the keys that it has here",
            )
    for model in document.models:
        yield from _fields("model", model, Model, ModelConfig)
        yield from _prices(model)
        if problem := parameters_problem(model.parameters):
            yield _problem("model", model.slug, f"parameters: {problem}")
        if unknown := sorted(set(model.capabilities) - set(CAPABILITIES)):
            yield _problem("model", model.slug, f"capabilities: there is no {unknown[0][:40]!r}")
    for route in document.routes:
        yield from _fields("route", route, Route)
        for target in route.targets:
            yield from _fields("route", target, RouteTarget, slug=route.slug)
    for policy in document.policies:
        yield from _fields("policy", policy, Policy)
        yield from _number("policy", policy.slug, "version", policy.version, PolicyVersion)
    served = {(entry.project, entry.slug): entry for entry in live.prompts}
    for prompt in document.prompts:
        yield from _prompt(prompt, served.get((prompt.project, prompt.slug)))


def _twice(document: RevisionDocument) -> Iterator[Problem]:
    """Of two of one name pages might show the one and data planes serve the other."""
    for kind, names in (
        ("provider", [entry.slug for entry in document.providers]),
        ("model", [entry.slug for entry in document.models]),
        ("route", [entry.slug for entry in document.routes]),
        ("policy", [entry.slug for entry in document.policies]),
        ("prompt", [full_name(entry) for entry in document.prompts]),
    ):
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield _problem(kind, name, "it is there twice")


def _fields(kind: str, entry: Any, *tables: type[Table], slug: str = "") -> Iterator[Problem]:
    """Numbers and texts of ``entry``, held against the columns of the same names."""
    for name in entry.__struct_fields__:
        value = getattr(entry, name)
        if isinstance(value, int | str) and not isinstance(value, bool):
            for table in tables:
                yield from _number(kind, slug or entry.slug, name, value, table)


def _number(kind: str, slug: str, name: str, value: int | str, table: type[Table]) -> Iterator[Problem]:
    try:
        column: Any = table._meta.get_field(name)
    except FieldDoesNotExist:
        return
    if column.is_relation:
        return
    try:
        column.run_validators(value)
        if column.choices and value not in {one for one, _ in column.flatchoices}:
            raise ValidationError(f"{str(value)[:40]!r} is none of the choices.")
    except ValidationError as wrong:
        yield _problem(kind, slug, f"{name}: {' '.join(wrong.messages)}".rstrip("."))


def _prices(model: ModelEntry) -> Iterator[Problem]:
    known = dict(Price._meta.get_field("token_class").flatchoices)
    for row in model.prices:
        if row.token_class not in known:
            yield _problem("model", model.slug, f"prices: there is no token class {row.token_class[:40]!r}")
        elif not 0 <= row.nano_per_million <= highest_price(row.token_class):
            yield _problem(
                "model", model.slug, f"prices: {row.token_class} costs less than nothing or too much"
            )
        elif not 0 <= row.since <= _LAST_SECOND:
            yield _problem("model", model.slug, f"prices: {row.token_class} holds from no time that there is")


def _prompt(prompt: PromptEntry, served: PromptEntry | None) -> Iterator[Problem]:
    name = full_name(prompt)
    yield from _number("prompt", name, "slug", prompt.slug, Prompt)
    if prompt.project:
        yield from _number("prompt", name, "slug", prompt.project, Project)
    numbers = [version.number for version in prompt.versions]
    for label, number in prompt.labels.items():
        yield from _number("prompt", name, "name", label, Label)
        if number not in numbers:
            yield _problem("prompt", name, f"label {label[:40]} means version {number}, which is not there")
    here = {version.number: version for version in served.versions} if served else {}
    for version in prompt.versions:
        yield from _number("prompt", name, "number", version.number, PromptVersion)
        if numbers.count(version.number) > 1:
            yield _problem("prompt", name, f"version {version.number} is there twice")
        known = here.get(version.number)
        if known is not None and known.digest == version.digest and known != version:
            # Data planes keep what they compiled under this digest.
            yield _problem(
                "prompt",
                name,
                f"version {version.number} has the digest of the one here and says something else",
            )
        content = {
            **EMPTY, **version.layers, "variables": list(version.variables), "output_schema": version.output_schema,
            "route": version.route, "parameters": version.parameters,
        }  # fmt: skip
        try:
            checked(content)
        except InvalidRequest as refused:
            # What no label means does not keep anybody from publishing, as with what is configured here.
            level = ERROR if version.number in prompt.labels.values() else WARNING
            yield _problem("prompt", name, f"version {version.number}: {refused.message}".rstrip("."), level)


def _problem(kind: str, slug: str, what: str, level: str = ERROR) -> Problem:
    return Problem(
        level,
        "out_of_bounds",
        kind,
        slug,
        f"{kind.capitalize()} {slug[:130]}, as the revision has it: {what}.",
    )
