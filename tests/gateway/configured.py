"""What the data plane of a test is configured with: a snapshot and its entries, sound where a test says nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Any

from llmops.core.ids import uuid7
from llmops.serving.snapshot import (
    BudgetEntry,
    CredentialEntry,
    HashEntry,
    KeyEntry,
    LiveState,
    ModelEntry,
    PolicyEntry,
    PriceRow,
    PromptEntry,
    ProviderEntry,
    RevisionDocument,
    RouteEntry,
    Snapshot,
    TargetEntry,
)

KEY = "llmops_testtest_" + "k" * 40
SECRET = "provider-secret-that-nobody-may-see"
USD = 10**9


def a_key(name: str = "svc", **changes: Any) -> KeyEntry:
    given: dict[str, Any] = {
        "id": str(uuid7()),
        "name": name,
        "prefix": "llmops_testtest",
        "project": "support",
        "project_id": str(uuid7()),
        "scopes": frozenset({"inference"}),
        "allowed_routes": frozenset({"*"}),
        "allowed_models": frozenset({"*"}),
    }
    return KeyEntry(**(given | changes))


def a_model(slug: str = "small", provider: str = "up", **changes: Any) -> ModelEntry:
    """Input 1 USD and output 10 USD per million tokens: 1,000 and 10,000 nanodollars a token."""
    given: dict[str, Any] = {
        "slug": slug,
        "version": 1,
        "provider": provider,
        "upstream_model": f"sim-{slug}",
        "context_window": 100_000,
        "max_output_tokens": 4_000,
        "default_max_output_tokens": 100,
        "prices": (PriceRow("input", 0, USD), PriceRow("output", 0, 10 * USD)),
    }
    return ModelEntry(**(given | changes))


def a_provider(slug: str = "up", base_url: str = "http://127.0.0.1:9/v1", **changes: Any) -> ProviderEntry:
    given: dict[str, Any] = {
        "slug": slug,
        "kind": "compatible",
        "base_url": base_url,
        "connect_timeout_ms": 2_000,
        "read_timeout_ms": 5_000,
        "write_timeout_ms": 5_000,
        "pool_timeout_ms": 2_000,
        "max_connections": 500,
        "allow_private_network": True,
    }
    return ProviderEntry(**(given | changes))


def a_budget(slug: str = "team", limit_nano: int = USD, **changes: Any) -> BudgetEntry:
    given: dict[str, Any] = {
        "id": str(uuid7()),
        "slug": slug,
        "scope_kind": "project",
        "scope_value": "support",
        "project": "support",
        "period": "month",
        "timezone": "UTC",
        "limit_nano": limit_nano,
        "hard": True,
    }
    return BudgetEntry(**(given | changes))


def a_snapshot(
    *,
    models: Iterable[ModelEntry] | None = None,
    providers: Iterable[ProviderEntry] | None = None,
    routes: Iterable[RouteEntry] = (),
    policies: Iterable[PolicyEntry] = (),
    prompts: Iterable[PromptEntry] = (),
    keys: dict[str, KeyEntry | HashEntry] | None = None,
    budgets: Iterable[BudgetEntry] = (),
    credentials: dict[str, tuple[CredentialEntry, ...]] | None = None,
    version: int = 1,
    revision: int = 7,
    **live: Any,
) -> Snapshot:
    providers = tuple(providers or (a_provider(),))
    entries = keys if keys is not None else {KEY: a_key()}
    if credentials is None:
        credentials = {one.slug: (a_credential(one.slug),) for one in providers}
    return Snapshot(
        revision=revision,
        digest="d",
        document=RevisionDocument(
            1, providers, tuple(models or (a_model(),)), tuple(routes), tuple(policies), tuple(prompts)
        ),
        live=LiveState(
            keys={
                sha256(text.encode()).hexdigest(): one if isinstance(one, HashEntry) else HashEntry(one)
                for text, one in entries.items()
            },
            budgets=tuple(budgets),
            credentials=credentials,
            **live,
        ),
        revision_version=version,
        live_version=version,
    )


def a_credential(provider: str = "up", secret: str = SECRET, name: str = "first") -> CredentialEntry:
    return CredentialEntry(id=str(uuid7()), name=name, provider=provider, secret=secret)


def a_route(slug: str = "chat", *targets: str | tuple[str, int], **changes: Any) -> RouteEntry:
    entries = [
        TargetEntry(*one) if isinstance(one, tuple) else TargetEntry(one) for one in targets or ("small",)
    ]
    return RouteEntry(slug=slug, targets=tuple(entries), **changes)
