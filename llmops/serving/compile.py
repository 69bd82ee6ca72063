"""From what is configured to one document, and what stands in the way. Reads the database, changes nothing.

The caller holds ``providers.services.DRAFT_LOCK``, or accepts that somebody may be changing a draft meanwhile.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import NamedTuple

import msgspec
from django.db.models import Prefetch
from django.utils import timezone

from llmops.access.models import Project
from llmops.budgets.models import Budget
from llmops.policies.models import Policy, PolicyVersion
from llmops.providers.models import Credential, Model, ModelConfig, Price, Provider, Route, RouteTarget
from llmops.providers.rules import origin_of
from llmops.serving.bounds import out_of_bounds
from llmops.serving.models import LivePointer
from llmops.serving.pieces import encode_in_pieces, prompt_pieces
from llmops.serving.snapshot import (
    EMPTY_DOCUMENT,
    FORMAT,
    CheckEntry,
    ModelEntry,
    PolicyEntry,
    PriceRow,
    ProviderEntry,
    RevisionDocument,
    RouteEntry,
    TargetEntry,
    decode_document,
)
from llmops.serving.validation import Facts, Problem, validate
from llmops.serving.validation.elsewhere import Needs, missing_here


class Compiled(NamedTuple):
    """What would be published: its canonical bytes are ``encoded``. ``problems``: errors first."""

    document: RevisionDocument
    encoded: bytes
    problems: list[Problem]


def compile_document(*, now: datetime | None = None) -> Compiled:
    """The document of everything configured and not archived, and its problems.

    The document does not depend on the time, nor on ids: equal configuration gives equal bytes.
    """
    providers = list(Provider.objects.order_by("slug"))
    models = list(
        Model.objects.filter(archived_at=None)
        .select_related("current__provider")
        .prefetch_related(Prefetch("prices", Price.objects.order_by("effective_from", "id")))
        .order_by("slug")
    )
    routes = list(
        Route.objects.filter(archived_at=None)
        .select_related("larger_model", "summary_model")
        .prefetch_related(
            Prefetch(
                "targets",
                RouteTarget.objects.select_related("model").order_by("position", "model__slug"),
            )
        )
        .order_by("slug")
    )
    policies = list(Policy.objects.select_related("current").order_by("slug"))
    in_use = [row for row in policies if row.archived_at is None and row.current is not None]
    named = {slug for row in routes for slug in row.policies}
    pieces = prompt_pieces()
    document = RevisionDocument(
        format=FORMAT,
        providers=tuple(provider_entry(row) for row in providers if row.archived_at is None),
        models=tuple(model_entry(row, row.current) for row in models if row.current is not None),
        routes=tuple(route_entry(row) for row in routes),
        policies=tuple(
            _policy(row, row.current)
            for row in in_use
            if row.current is not None and (row.everywhere or row.slug in named)
        ),
        prompts=tuple(piece.entry for piece in pieces),
    )
    facts = dataclasses.replace(
        _live_facts(now),
        archived_models=frozenset(
            Model.objects.filter(archived_at__isnull=False).values_list("slug", flat=True)
        ),
        archived_providers=frozenset(row.slug for row in providers if row.archived_at is not None),
        archived_policies=frozenset(row.slug for row in policies if row.archived_at is not None),
        idle_policies=frozenset(row.slug for row in in_use if not row.everywhere and row.slug not in named),
        versionless_models=frozenset(row.slug for row in models if row.current is None),
        unproved_prompts={key: why for piece in pieces for key, why in piece.unproved.items()},
        ceilings={key: most for piece in pieces for key, most in piece.ceilings.items()},
    )
    encoded = encode_in_pieces(document, [piece.encoded for piece in pieces])
    return Compiled(document, encoded, validate(document, facts))


def _live_facts(now: datetime | None) -> Facts:
    """What takes effect without publishing, as it stands here."""
    return Facts(
        now=(now or timezone.now()).timestamp(),
        paused_routes=_reasons(Route, "paused_at", "pause_reason"),
        degraded_routes=_reasons(Route, "degraded_at", "degrade_reason"),
        default_routes=dict(
            Project.objects.filter(archived_at=None)
            .exclude(default_route="")
            .order_by("slug")
            .values_list("slug", "default_route")
        ),
        paused_providers=_reasons(Provider, "paused_at", "pause_reason"),
        providers_with_keys=frozenset(
            slug
            for slug, url, origin in Credential.objects.filter(state="active").values_list(
                "provider__slug", "provider__base_url", "origin"
            )
            if origin == origin_of(url)
        ),
        hard_budgets=Budget.objects.filter(archived_at=None, hard=True).exists(),
    )


def _reasons(model: type[Route] | type[Provider], since: str, reason: str) -> dict[str, str]:
    rows = model._default_manager.filter(**{f"{since}__isnull": False})
    return dict(rows.values_list("slug", reason))


def problems_elsewhere(document: RevisionDocument) -> list[Problem]:
    """What is wrong with a document of another installation once it is served here: its own problems, and what it names that
    is not here. Errors first."""
    needs = Needs(
        providers=dict(Provider.objects.filter(archived_at=None).values_list("slug", "base_url")),
        projects=frozenset(Project.objects.filter(archived_at=None).values_list("slug", flat=True)),
    )
    found = [*validate(document, _live_facts(None)), *out_of_bounds(document, _served())]
    return missing_here(document, needs, found)


def _served() -> RevisionDocument:
    pointer = LivePointer.objects.select_related("revision").first()
    try:
        return decode_document(pointer.revision.document) if pointer else EMPTY_DOCUMENT
    except msgspec.MsgspecError:
        # Of a form that this version does not serve.
        return EMPTY_DOCUMENT


def provider_entry(row: Provider) -> ProviderEntry:
    return ProviderEntry(
        slug=row.slug,
        kind=row.kind,
        base_url=row.base_url,
        connect_timeout_ms=row.connect_timeout_ms,
        read_timeout_ms=row.read_timeout_ms,
        write_timeout_ms=row.write_timeout_ms,
        pool_timeout_ms=row.pool_timeout_ms,
        max_connections=row.max_connections,
        proxy_url=row.proxy_url,
        organization=row.organization,
        provider_project=row.provider_project,
        allow_private_network=row.allow_private_network,
        passthrough=tuple(row.passthrough),
        shared_objects=tuple(row.shared_objects),
    )


def model_entry(row: Model, version: ModelConfig) -> ModelEntry:
    # Two prices within one second: the later one holds.
    prices = {
        (price.token_class, int(price.effective_from.timestamp())): price.nano_per_million
        for price in row.prices.all()
    }
    return ModelEntry(
        slug=row.slug,
        version=version.version,
        provider=version.provider.slug,
        upstream_model=version.upstream_model,
        context_window=version.context_window,
        max_output_tokens=version.max_output_tokens,
        default_max_output_tokens=version.default_max_output_tokens,
        parameters=version.parameters,
        capabilities=tuple(sorted(version.capabilities)),
        prices=tuple(
            PriceRow(token_class, since, nano) for (token_class, since), nano in sorted(prices.items())
        ),
    )


def _policy(row: Policy, version: PolicyVersion) -> PolicyEntry:
    return PolicyEntry(
        slug=row.slug,
        version=version.number,
        checks=tuple(CheckEntry(**check) for check in version.checks),
        everywhere=row.everywhere,
    )


def route_entry(row: Route) -> RouteEntry:
    targets = list(row.targets.all())
    by_class: dict[str, list[str]] = {}
    for target in targets:
        if target.fallback:
            by_class.setdefault(target.failure_class, []).append(target.model.slug)
    general = by_class.pop("", [])
    return RouteEntry(
        slug=row.slug,
        targets=tuple(
            TargetEntry(target.model.slug, target.weight)
            for target in sorted(targets, key=lambda target: target.model.slug)
            if not target.fallback
        ),
        fallbacks=tuple(general),
        fallbacks_for={name: tuple(by_class[name]) for name in sorted(by_class)},
        context_strategy=row.context_strategy,
        larger_model=row.larger_model.slug if row.larger_model else "",
        summary_model=row.summary_model.slug if row.summary_model else "",
        last_resort=row.last_resort,
        static_answer=row.static_answer,
        max_concurrency=row.max_concurrency,
        queue_size=row.queue_size,
        queue_timeout_ms=row.queue_timeout_ms,
        keep_alive_s=row.keep_alive_s,
        policies=tuple(row.policies),
        attempts=row.attempts,
        total_timeout_ms=row.total_timeout_ms,
        breaker_failure_percent=row.breaker_failure_percent,
        breaker_window_s=row.breaker_window_s,
        breaker_min_calls=row.breaker_min_calls,
        breaker_cooldown_s=row.breaker_cooldown_s,
        cache_ttl_s=row.cache_ttl_s,
        cache_tools=row.cache_tools,
        clamp_output=row.clamp_output,
    )
