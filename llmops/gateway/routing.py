"""Model or route name -> ordered targets, and the budgets that a call touches. Decided from one snapshot, in memory."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import accumulate

from llmops.budgets.scopes import FEATURE, KEY, ROUTE, TAG, USER, matching, scope_pairs
from llmops.core.errors import (
    ConsoleError,
    InvalidRequest,
    ModelNotFound,
    PermissionDenied,
    ServiceUnavailable,
)
from llmops.gateway.throttling.limits import Limiteds, limits_of
from llmops.policies.engine import Guard, guard_of, joined
from llmops.providers.pricing import PriceBook
from llmops.providers.rules import CACHED_ANSWER, LARGER_MODEL, REFUSE, SUMMARIZE, looks_reasoning
from llmops.serving.snapshot import (
    BudgetEntry,
    KeyEntry,
    ModelEntry,
    ProviderEntry,
    RouteEntry,
    Snapshot,
    TargetEntry,
)

log = logging.getLogger(__name__)

Budgets = tuple[BudgetEntry, ...]
#: How a model that is called by its own name, without a route, is tried.
DIRECT = RouteEntry(slug="", targets=())


class Target:
    """One model that can be called: its configuration, its provider and its prices."""

    __slots__ = ("entry", "prices", "provider", "reasons", "slug", "slug_bytes")

    def __init__(self, entry: ModelEntry, provider: ProviderEntry) -> None:
        self.entry = entry
        self.provider = provider
        self.prices = PriceBook(entry.prices)
        self.slug = entry.slug
        self.slug_bytes = entry.slug.encode()
        #: whether the model thinks in tokens that are billed and not shown, as its configuration says or its name
        self.reasons = "reasoning" in entry.capabilities or looks_reasoning(entry.upstream_model)


class Resolution:
    """What a name means to a key: ``targets`` share by weight, ``fallbacks`` follow in order.

    ``fallbacks_for`` a class of failure replace ``fallbacks`` after it. ``larger`` and ``summary`` are the models of the
    route's context strategy. ``degraded`` says why the targets are passed over, empty when they are not.
    """

    __slots__ = (
        "adapts",
        "budgets",
        "caches",
        "counts_tokens",
        "degraded",
        "endings",
        "fallbacks",
        "fallbacks_for",
        "guard",
        "keeps",
        "key",
        "larger",
        "largest_output",
        "limited",
        "name",
        "reads",
        "route",
        "summary",
        "targets",
        "weights",
    )

    def __init__(
        self,
        *,
        name: str,
        key: KeyEntry,
        route: RouteEntry,
        targets: Sequence[Target],
        weights: Sequence[int],
        fallbacks: Sequence[Target],
        budgets: Budgets,
        limited: Limiteds = (),
        fallbacks_for: Mapping[str, Sequence[Target]] | None = None,
        larger: Target | None = None,
        summary: Target | None = None,
        degraded: str = "",
        guard: Guard | None = None,
        keeps: int = 0,
        reads: bool = False,
    ) -> None:
        self.name = name
        self.key = key
        #: whose limits the calls of this key count against, and whether any of them is of tokens
        self.limited = limited
        self.counts_tokens = any(one.tpm is not None for one in limited)
        self.route = route
        #: whether answers may be kept
        self.caches = route.cache_ttl_s > 0 or route.last_resort == CACHED_ANSWER
        self.targets = tuple(targets)
        self.weights = tuple(weights)
        self.endings = tuple(accumulate(weights))
        # A model is tried once, in its first place.
        self.fallbacks = tuple(one for one in dict.fromkeys(fallbacks) if one not in self.targets)
        self.fallbacks_for = {
            found: tuple(chosen) for found, chosen in (fallbacks_for or {}).items() if chosen
        }
        #: whether the route does anything about an input that is too long
        self.adapts = route.context_strategy != REFUSE
        self.larger = larger
        self.summary = summary
        self.degraded = degraded
        #: the policies that hold; None when there are none
        self.guard = guard
        #: of so many calls in a hundred what is asked is kept (``kept/texts.py``)
        self.keeps = keeps
        #: these are kept for people to read, with what is answered
        self.reads = reads
        #: budgets of the organisation, the project, the key and the route; the same for every call of this key and name
        self.budgets = budgets
        #: the most output tokens that any of the targets can answer with
        self.largest_output = max(target.entry.max_output_tokens for target in self.everything())

    def everything(self) -> Iterator[Target]:
        """Every model that may answer."""
        yield from self.targets
        yield from self.fallbacks
        for chosen in self.fallbacks_for.values():
            yield from chosen
        if self.larger is not None:
            yield self.larger

    def order(self, sticky: str) -> tuple[Target, ...]:
        """Targets in the order in which to try them: one by weight, the other targets, then the fallbacks.

        Equal ``sticky`` texts (a session or end user) get the same first target while the weights stay as they are.
        """
        if self.degraded:
            return self.fallbacks
        if len(self.targets) == 1:
            return self.targets + self.fallbacks if self.fallbacks else self.targets
        first = self._pick(sticky)
        others = tuple(target for index, target in enumerate(self.targets) if index != first)
        return (self.targets[first], *others, *self.fallbacks)

    def at(self, provider: str) -> Resolution | None:
        """The same with the targets and fallbacks at one provider only; None when there are none.

        Fallbacks become the targets where all targets are elsewhere.
        """

        def there(targets: Sequence[Target]) -> list[Target]:
            return [target for target in targets if target.provider.slug == provider]

        targets, fallbacks, degraded = there(self.targets), there(self.fallbacks), self.degraded
        weights = dict(zip(self.targets, self.weights, strict=True))
        if not targets and fallbacks:
            targets, fallbacks, degraded = fallbacks[:1], fallbacks[1:], ""
        if not targets:
            return None
        return Resolution(
            name=self.name,
            key=self.key,
            route=self.route,
            targets=targets,
            weights=[weights.get(target, 1) for target in targets],
            fallbacks=fallbacks,
            budgets=self.budgets,
            limited=self.limited,
            fallbacks_for={found: there(chosen) for found, chosen in self.fallbacks_for.items()},
            larger=self.larger if self.larger is not None and there([self.larger]) else None,
            summary=self.summary,
            degraded=degraded,
            guard=self.guard,
            keeps=self.keeps,
            reads=self.reads,
        )

    def _pick(self, sticky: str) -> int:
        total = self.endings[-1]
        if total <= 0:
            return 0
        if sticky:
            seed = f"{self.name}\0{sticky}".encode()
            point = int.from_bytes(blake2b(seed, digest_size=8).digest(), "big") * total >> 64
        else:
            point = random.randrange(total)
        return next(index for index, ending in enumerate(self.endings) if point < ending)


class View:
    """A snapshot with what requests look up again and again. Replaced as a whole when the snapshot is."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.targets: dict[str, Target] = {}
        for slug, entry in snapshot.models.items():
            provider = snapshot.providers.get(entry.provider)
            if provider is not None:
                self.targets[slug] = Target(entry, provider)
        self.budgets_by_id = {budget.id: budget for budget in snapshot.live.budgets}
        self._resolutions: dict[tuple[int, str], Resolution] = {}
        #: keys of services for which the console calls, by its own key and what it names (``on_behalf.py``)
        self.joined_keys: dict[tuple[str, bytes], KeyEntry] = {}
        self._cheaper: dict[tuple[int, str, str], tuple[KeyEntry, Resolution | None]] = {}
        self._guards_of_kept: dict[str, Guard | None] = {}
        kinds = {kind for kind, _ in snapshot.budgets_by_scope}
        #: whether any budget depends on what a caller says about itself
        self.attributed = bool(kinds & {FEATURE, USER, TAG})

    def resolve(self, key: KeyEntry, name: str) -> Resolution:
        """What ``name`` (a route or a model slug) means to ``key``.

        Raises ``ModelNotFound``, ``PermissionDenied``, or ``ServiceUnavailable`` with the reason of a pause.
        """
        # One key has several entries: for its old secret, and for what the console asks on its behalf. Each is what bounds its calls.
        at = (id(key), name)
        found = self._resolutions.get(at)
        if found is None or found.key is not key:
            found = self._resolutions[at] = self._resolve(key, name)
        return found

    def _resolve(self, key: KeyEntry, name: str) -> Resolution:
        snapshot = self.snapshot
        route = snapshot.routes.get(name)
        if route is not None:
            if not key.may_route(name):
                raise PermissionDenied(
                    f"The service key {key.name!r} may not use the route {name!r}. GET /v1/models lists what it may call; an "
                    "operator can allow the route on the key's page.",
                    param="model",
                )
            if name in snapshot.live.paused_routes:
                reason = snapshot.live.paused_routes[name]
                raise ServiceUnavailable(
                    f"The route {name!r} is paused by an operator{f': {reason}' if reason else ''}. Use another one, or try "
                    "again when it is resumed.",
                    code="route_paused",
                )
        elif name in snapshot.models:
            if not key.may_model(name):
                raise PermissionDenied(
                    f"The service key {key.name!r} may not call the model {name!r} by its name. GET /v1/models lists what it "
                    "may call; an operator can allow the model on the key's page.",
                    param="model",
                )
            route = DIRECT
        else:
            raise ModelNotFound(
                f"The model {name[:100]!r} does not exist here. GET /v1/models lists what your key may call.",
                param="model",
            )
        entries = route.targets or (TargetEntry(name),)
        chosen = [
            (self.targets[entry.model], entry.weight) for entry in entries if entry.model in self.targets
        ]
        if not chosen:
            raise ModelNotFound(
                f"The model {name!r} leads to nothing that is published. GET /v1/models lists what your key may call; an "
                "operator may have archived its targets.",
                param="model",
            )
        pairs = _through(key, scope_pairs(project=key.project, key=key.id, route=route.slug))
        return Resolution(
            name=name,
            key=key,
            route=route,
            targets=[target for target, _ in chosen],
            weights=[weight for _, weight in chosen],
            fallbacks=self._known(route.fallbacks),
            fallbacks_for={found: self._known(slugs) for found, slugs in route.fallbacks_for.items()},
            larger=self.targets.get(route.larger_model) if route.context_strategy == LARGER_MODEL else None,
            summary=self.targets.get(route.summary_model) if route.context_strategy == SUMMARIZE else None,
            degraded=_reason(snapshot.live.degraded_routes, name) if route is not DIRECT else "",
            budgets=_of_project(matching(snapshot.budgets_by_scope, pairs), key),
            limited=self.limited(key),
            guard=self._guard(route),
            keeps=self._keeps(key),
            reads=self._reads(key),
        )

    def cheaper(self, resolution: Resolution, slug: str) -> Resolution | None:
        """The same call by the targets of the route ``slug``; None when there is no such route, or it is paused.

        Everything else stays what the caller's route says: its policies, time-outs, attempts. The other route's own budgets
        hold as well.
        """
        at = (id(resolution.key), resolution.name, slug)
        known = self._cheaper.get(at)
        if known is None or known[0] is not resolution.key:
            known = self._cheaper[at] = resolution.key, self._by_route(resolution, slug)
        return known[1]

    def _by_route(self, resolution: Resolution, slug: str) -> Resolution | None:
        snapshot = self.snapshot
        route = snapshot.routes.get(slug)
        if route is None or slug == resolution.route.slug or slug in snapshot.live.paused_routes:
            return None
        chosen = [(self.targets[one.model], one.weight) for one in route.targets if one.model in self.targets]
        if not chosen:
            return None
        own = _of_project(matching(snapshot.budgets_by_scope, [(ROUTE, slug)]), resolution.key)
        return Resolution(
            name=resolution.name,
            key=resolution.key,
            route=resolution.route,
            targets=[target for target, _ in chosen],
            weights=[weight for _, weight in chosen],
            fallbacks=self._known(route.fallbacks),
            fallbacks_for={found: self._known(slugs) for found, slugs in route.fallbacks_for.items()},
            summary=resolution.summary,
            degraded=_reason(snapshot.live.degraded_routes, slug),
            budgets=tuple(dict.fromkeys(resolution.budgets + own)),
            limited=resolution.limited,
            guard=resolution.guard,
            keeps=resolution.keeps,
            reads=resolution.reads,
        )

    def _keeps(self, key: KeyEntry) -> int:
        project = self.snapshot.live.projects.get(key.project_id)
        return project.keep_texts if project is not None else 0

    def _reads(self, key: KeyEntry) -> bool:
        project = self.snapshot.live.projects.get(key.project_id)
        return project is not None and project.read_texts

    def _guard(self, route: RouteEntry) -> Guard | None:
        """What the policies of a route and those that hold everywhere ask for. Without one of them no call may pass."""
        return self._joined(route.policies, route.slug)

    def guard_of_kept(self, name: str) -> Guard | None:
        """What holds for an answer that a call of ``name`` (a route or model) made and a provider keeps; None for nothing.

        By a model's own name it may have come through any route that leads to it, and a name that is not known any more
        may have been any.
        """
        if name not in self._guards_of_kept:
            snapshot = self.snapshot
            if name in snapshot.routes:
                slugs: Sequence[str] = snapshot.routes[name].policies
            elif name in snapshot.models:
                slugs = [
                    slug
                    for route in snapshot.routes.values()
                    if _leads(route, name)
                    for slug in route.policies
                ]
            else:
                slugs = list(snapshot.policies)
            self._guards_of_kept[name] = self._joined(slugs, name)
        return self._guards_of_kept[name]

    def _joined(self, named: Sequence[str], whose: str) -> Guard | None:
        """The policies that hold everywhere, and those ``named``."""
        try:
            return guard_of(joined(self.snapshot.policies, named))
        except (KeyError, ValueError, ConsoleError) as error:
            log.error("the policies of %r cannot be used: %s", whose, error)
            raise ServiceUnavailable(
                "A policy that holds for this call cannot be used. Ask an operator to open Policies in the console: the one "
                "that is at fault says so when it is saved again.",
                code="policy_unusable",
            ) from None

    def default_route(self, key: KeyEntry) -> str:
        """The route of a call that names no model. Raises ``InvalidRequest`` when the key's project has none."""
        project = self.snapshot.live.projects.get(key.project_id)
        if project is None or not project.default_route:
            raise InvalidRequest(
                "model: missing; name a model or route, or give the project a default route in the console.",
                param="model",
                code="missing_required_parameter",
            )
        return project.default_route

    def limited(self, key: KeyEntry) -> Limiteds:
        """Whose limits a call of ``key`` counts against, whatever it asks for."""
        return limits_of(key, self.snapshot.live.projects.get(key.project_id))

    def _known(self, slugs: Sequence[str]) -> list[Target]:
        return [self.targets[slug] for slug in slugs if slug in self.targets]

    def budgets(self, resolution: Resolution, *, feature: str, user: str, tags: Sequence[str]) -> Budgets:
        """Every budget that a call with these attributes touches."""
        if not self.attributed or not (feature or user or tags):
            return resolution.budgets
        pairs = [(FEATURE, feature)] if feature else []
        if user:
            pairs.append((USER, user))
        pairs += [(TAG, tag) for tag in dict.fromkeys(tags)]
        return resolution.budgets + _of_project(
            matching(self.snapshot.budgets_by_scope, pairs), resolution.key
        )

    def budgets_of(self, key: KeyEntry, *, feature: str, user: str, tags: Sequence[str]) -> Budgets:
        """Every budget that a call of ``key`` touches which no route leads."""
        pairs = scope_pairs(project=key.project, key=key.id, route="", feature=feature, user=user, tags=tags)
        return _of_project(matching(self.snapshot.budgets_by_scope, _through(key, pairs)), key)

    def callable_names(self, key: KeyEntry) -> list[tuple[str, str]]:
        """``(name, owner)`` of every route and model that ``key`` may name, sorted; an owner of a route is the console."""
        names = [(slug, "llmops-console") for slug in self.snapshot.routes if key.may_route(slug)]
        names += [
            (slug, target.provider.slug)
            for slug, target in self.targets.items()
            if key.may_model(slug) and slug not in self.snapshot.routes
        ]
        return sorted(names)


def _leads(route: RouteEntry, model: str) -> bool:
    """Whether a call of the route may end at the model."""
    elsewhere = (route.fallbacks, *route.fallbacks_for.values(), (route.larger_model,))
    return any(target.model == model for target in route.targets) or any(
        model in slugs for slugs in elsewhere
    )


def _reason(states: Mapping[str, str], name: str) -> str:
    """Why ``name`` is in a state; empty when it is not."""
    return (states[name] or "by an operator") if name in states else ""


def _through(key: KeyEntry, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """``pairs`` of scopes, and that of the key of the console by which a call for ``key`` came."""
    return pairs if key.through is None else [*pairs, (KEY, key.through.id)]


def _of_project(budgets: Sequence[BudgetEntry], key: KeyEntry) -> Budgets:
    return tuple(budget for budget in budgets if budget.project in (None, key.project))
