"""What a data-plane process holds in memory, as plain structures. Imports no framework.

``RevisionDocument`` is the published part: immutable, digested, free of secrets. ``LiveState`` is the part that takes
effect at once: keys, budgets, credentials, pauses. ``Snapshot`` joins the two with the indexes a request needs; it is
built off the request path and swapped in by one assignment.

Durations carry their unit in the name; prices are nanodollars per million tokens; times are Unix seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

FORMAT = 1


class PriceRow(msgspec.Struct, frozen=True, order=True):
    """A price of a token class from ``since`` (Unix seconds) on."""

    token_class: str
    since: int
    nano_per_million: int


class ModelEntry(msgspec.Struct, frozen=True):
    slug: str
    version: int
    provider: str
    upstream_model: str
    context_window: int
    max_output_tokens: int
    default_max_output_tokens: int
    parameters: dict[str, object] = {}
    capabilities: tuple[str, ...] = ()
    prices: tuple[PriceRow, ...] = ()


class ProviderEntry(msgspec.Struct, frozen=True):
    slug: str
    kind: str
    base_url: str
    connect_timeout_ms: int
    read_timeout_ms: int
    write_timeout_ms: int
    pool_timeout_ms: int
    max_connections: int
    proxy_url: str = ""
    organization: str = ""
    provider_project: str = ""
    allow_private_network: bool = False
    #: other paths under ``/v1/`` that services may reach at this provider, such as ``/vector_stores/*``
    passthrough: tuple[str, ...] = ()
    shared_objects: tuple[str, ...] = ()


class TargetEntry(msgspec.Struct, frozen=True):
    model: str
    weight: int = 100


class CheckEntry(msgspec.Struct, frozen=True):
    """One check of a policy: a ``kind`` of ``policies.checks``, when it runs, what follows where it matches, and its settings.

    ``stage`` is ``before`` (what is asked) or ``after`` (what is answered); ``action`` is one of ``core.verdicts``.
    """

    kind: str
    stage: str
    action: str
    settings: dict[str, object] = {}


class PolicyEntry(msgspec.Struct, frozen=True):
    """A published version of a policy. ``everywhere``: it holds for every call, whatever its route."""

    slug: str
    version: int
    checks: tuple[CheckEntry, ...]
    everywhere: bool = False


class PromptVersionEntry(msgspec.Struct, frozen=True):
    """A version of a prompt as ``prompts.rendering`` compiles it. ``variables`` are declarations that were checked."""

    number: int
    digest: str
    layers: dict[str, str]
    variables: tuple[dict[str, object], ...] = ()
    output_schema: dict[str, object] | None = None
    route: str = ""
    parameters: dict[str, object] = {}


class PromptEntry(msgspec.Struct, frozen=True):
    """A prompt of ``project`` (its slug; empty: shared by all). Labels name versions by their number."""

    slug: str
    project: str
    versions: tuple[PromptVersionEntry, ...]
    labels: dict[str, int] = {}


class RouteEntry(msgspec.Struct, frozen=True):
    """``fallbacks_for`` maps a class of failure (``providers.rules.FAILURE_CLASSES``) to the models that are tried after it
    in place of ``fallbacks``. The strategies and last resorts are those of ``providers.rules``."""

    slug: str
    targets: tuple[TargetEntry, ...]
    fallbacks: tuple[str, ...] = ()
    fallbacks_for: dict[str, tuple[str, ...]] = {}
    #: what is done when the input is longer than the model's window, and the models which that takes
    context_strategy: str = "refuse"
    larger_model: str = ""
    summary_model: str = ""
    #: what is answered when nothing else could
    last_resort: str = "none"
    static_answer: str = ""
    #: calls at once to one target from one process (0: only what adapts itself), and how long others may wait for a place
    max_concurrency: int = 0
    queue_size: int = 200
    queue_timeout_ms: int = 5_000
    #: a stream that is silent gets a comment this often (0: never)
    keep_alive_s: int = 15
    policies: tuple[str, ...] = ()
    attempts: int = 3
    total_timeout_ms: int = 90_000
    breaker_failure_percent: int = 50
    breaker_window_s: int = 60
    breaker_min_calls: int = 20
    breaker_cooldown_s: int = 30
    cache_ttl_s: int = 0
    #: also requests that offer tools
    cache_tools: bool = False
    clamp_output: bool = True


class RevisionDocument(msgspec.Struct, frozen=True):
    """Everything published, each list sorted by slug, so that equal configuration has equal bytes."""

    format: int
    providers: tuple[ProviderEntry, ...]
    models: tuple[ModelEntry, ...]
    routes: tuple[RouteEntry, ...]
    policies: tuple[PolicyEntry, ...] = ()
    prompts: tuple[PromptEntry, ...] = ()


class KeyEntry(msgspec.Struct, frozen=True):
    """A service key as the data plane knows it. ``expires`` is Unix seconds; ``None`` limits do not apply."""

    id: str
    name: str
    prefix: str
    project: str
    project_id: str
    scopes: frozenset[str]
    allowed_routes: frozenset[str]
    allowed_models: frozenset[str]
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None
    expires: float | None = None
    #: ``interactive`` or ``batch``: who waits first when there is not enough for all
    priority: str = "interactive"
    #: this entry stands for the secret that was replaced and still works for a while
    replaced: bool = False
    #: why it is refused for now
    paused: str = ""
    #: the console holds its secret, and calls with it for the services of the project
    held: bool = False
    #: the key of the console by which a call for this one came; what bounds that one holds as well
    through: KeyEntry | None = None

    def may_route(self, slug: str) -> bool:
        return "*" in self.allowed_routes or slug in self.allowed_routes

    def may_model(self, slug: str) -> bool:
        return "*" in self.allowed_models or slug in self.allowed_models


class ProjectEntry(msgspec.Struct, frozen=True):
    """What holds for all keys of a project together; ``default_route`` serves requests that name no model."""

    id: str
    slug: str
    default_route: str = ""
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None
    #: of so many calls in a hundred what is asked is kept; ``read_texts``: for people, with what is answered
    keep_texts: int = 0
    read_texts: bool = False


class HashEntry(msgspec.Struct, frozen=True):
    """A stored hash of a key, and until when it is honoured (a rotated key's predecessor; None = while the key is)."""

    key: KeyEntry
    valid_until: float | None = None


class RaiseEntry(msgspec.Struct, frozen=True):
    """A budget's limit is so much higher ``since`` (Unix seconds) and before ``until``."""

    since: float
    until: float
    nano: int


class BudgetEntry(msgspec.Struct, frozen=True):
    id: str
    slug: str
    scope_kind: str
    scope_value: str
    project: str | None
    period: str
    timezone: str
    limit_nano: int
    hard: bool
    #: serves calls that no longer fit (empty: they are refused)
    at_limit_route: str = ""
    raises: tuple[RaiseEntry, ...] = ()

    def limit_at(self, now: float) -> int:
        """The limit with the raises that are in force at ``now`` (Unix seconds)."""
        if not self.raises:
            return self.limit_nano
        return self.limit_nano + sum(one.nano for one in self.raises if one.since <= now < one.until)


class CredentialEntry(msgspec.Struct, frozen=True):
    """A provider key in use; ``secret`` never leaves the process and is not in ``repr``."""

    id: str
    name: str
    provider: str
    secret: str
    draining: bool = False

    def __repr__(self) -> str:
        return f"CredentialEntry(id={self.id!r}, provider={self.provider!r}, name={self.name!r})"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("id", self.id), ("provider", self.provider), ("name", self.name)]


class LiveState(msgspec.Struct, frozen=True):
    """State outside revisions. ``keys`` maps SHA-256 hex of a key to its entry; credentials by provider slug."""

    keys: dict[str, HashEntry]
    budgets: tuple[BudgetEntry, ...]
    credentials: dict[str, tuple[CredentialEntry, ...]]
    #: keys that are refused for now, apart from the others so that an ordinary call does not look for them
    paused_keys: dict[str, HashEntry] = {}
    #: by id
    projects: dict[str, ProjectEntry] = {}
    paused_routes: dict[str, str] = {}
    #: routes whose targets are passed over for their fallbacks and last resort, with the reason
    degraded_routes: dict[str, str] = {}
    #: routes whose breakers an operator closed, and when last (Unix seconds)
    breaker_resets: dict[str, float] = {}
    paused_providers: dict[str, str] = {}


class Snapshot:
    """One consistent view: the live revision and the live state, indexed. Never changed after it is built.

    ``problems`` holds sentences about parts of the live state that could not be read (a credential whose store did
    not answer); such parts are absent, the rest serves. ``unreadable`` holds the same of provider keys, as credential id
    -> why.
    """

    __slots__ = (
        "budgets_by_scope",
        "changed_at",
        "digest",
        "document",
        "live",
        "live_version",
        "models",
        "policies",
        "problems",
        "prompts",
        "providers",
        "revision",
        "revision_version",
        "routes",
        "unreadable",
    )

    def __init__(
        self,
        *,
        revision: int,
        digest: str,
        document: RevisionDocument,
        live: LiveState,
        revision_version: int,
        live_version: int,
        problems: tuple[str, ...] = (),
        unreadable: Mapping[str, str] = MappingProxyType({}),
        changed_at: float = 0.0,
    ) -> None:
        self.revision = revision
        self.digest = digest
        self.document = document
        self.live = live
        self.revision_version = revision_version
        self.live_version = live_version
        self.problems = problems
        self.unreadable = unreadable
        #: Unix seconds by the database's clock: the last change that is in it
        self.changed_at = changed_at
        self.providers = {entry.slug: entry for entry in document.providers}
        self.models = {entry.slug: entry for entry in document.models}
        self.routes = {entry.slug: entry for entry in document.routes}
        self.policies = {entry.slug: entry for entry in document.policies}
        #: by project (empty: shared) and slug
        self.prompts = {(entry.project, entry.slug): entry for entry in document.prompts}
        self.budgets_by_scope: dict[tuple[str, str], list[BudgetEntry]] = {}
        for budget in live.budgets:
            self.budgets_by_scope.setdefault((budget.scope_kind, budget.scope_value), []).append(budget)


EMPTY_DOCUMENT = RevisionDocument(format=FORMAT, providers=(), models=(), routes=())


def encode_document(document: RevisionDocument) -> bytes:
    """Canonical bytes of a document: the digest is taken over exactly these."""
    return msgspec.json.encode(document, order="sorted")


def decode_document(data: bytes | str) -> RevisionDocument:
    """The document of stored bytes. Raises ``msgspec.ValidationError`` naming the member that does not fit."""
    return msgspec.json.decode(data, type=RevisionDocument)
