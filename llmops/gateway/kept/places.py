"""Which provider takes a request that names no model: the one that keeps its object, or the one the caller's project uses."""

from __future__ import annotations

from dataclasses import dataclass

from llmops.core.errors import InvalidRequest, ServiceUnavailable, UpstreamAuthFailed
from llmops.gateway.attempts.resilience import no_credential_words, paused_words
from llmops.gateway.call import Call
from llmops.gateway.kept.owners import Owner
from llmops.serving.snapshot import CredentialEntry, ProviderEntry

ROUTE_HEADER = "x-llmops-route"
_MAX_NAME = 200


@dataclass(slots=True)
class Place:
    """A provider, and its keys in the order in which to try them; ``model`` is what was named, for the record."""

    provider: ProviderEntry
    credentials: tuple[CredentialEntry, ...]
    model: str = ""

    @property
    def slug(self) -> str:
        return self.model or self.provider.slug


def place_of(call: Call, owner: Owner) -> Place:
    """Where an object is, with the provider key that made it first, if it is still in use.

    Raises ``ServiceUnavailable`` or ``UpstreamAuthFailed`` when it cannot be reached.
    """
    provider = call.view.snapshot.providers.get(owner.provider)
    if provider is None:
        raise ServiceUnavailable(
            f"The provider {owner.provider!r}, which keeps {owner.id!r}, is not part of the configuration any more. Ask an "
            "operator to restore it and to publish, or make the object anew.",
            code="provider_missing",
        )
    return place_at(call, provider, first=owner.credential, model=owner.model)


def place_at(call: Call, provider: ProviderEntry, *, first: str = "", model: str = "") -> Place:
    live = call.view.snapshot.live
    if provider.slug in live.paused_providers:
        said = live.paused_providers[provider.slug]
        raise ServiceUnavailable(paused_words(provider.slug, said), code="provider_paused")
    credentials = live.credentials.get(provider.slug, ())
    if not credentials:
        raise UpstreamAuthFailed(no_credential_words(provider.slug))
    ordered = sorted(credentials, key=lambda one: one.id != first) if first else credentials
    return Place(provider, tuple(ordered), model)


def chosen_place(call: Call) -> Place:
    """Where a request without a model goes: the route or model that the header ``x-llmops-route`` names, else the default
    route of the project, else the only provider that the key can reach.

    Raises ``InvalidRequest`` saying what to set when that leaves a choice, and what ``View.resolve`` raises.
    """
    key = call.key
    assert key is not None
    name = call.header_text(ROUTE_HEADER.encode(), _MAX_NAME)
    if not name:
        project = call.view.snapshot.live.projects.get(key.project_id)
        name = project.default_route if project is not None else ""
    if name:
        resolution = call.view.resolve(key, name)
        live = call.view.snapshot.live
        usable = [
            one.provider for one in resolution.order("") if one.provider.slug not in live.paused_providers
        ]
        providers = usable or [resolution.targets[0].provider]
        return place_at(call, providers[0], model=name)
    reachable = reachable_providers(call)
    if len(reachable) == 1:
        return place_at(call, reachable[0])
    said = "more than one provider" if reachable else "no provider"
    raise InvalidRequest(
        f"This request names no model, and the service key {key.name!r} reaches {said}. Send the header {ROUTE_HEADER} "
        "with a route or model that the key may use, or give the project a default route in the console.",
        param=ROUTE_HEADER,
        code="route_required",
    )


def reachable_providers(call: Call) -> list[ProviderEntry]:
    """The providers behind everything that the key may name, by slug."""
    view, key = call.view, call.key
    assert key is not None
    found: dict[str, ProviderEntry] = {}
    for slug, target in view.targets.items():
        if key.may_model(slug):
            found[target.provider.slug] = target.provider
    for slug, route in view.snapshot.routes.items():
        if not key.may_route(slug):
            continue
        for name in (*(one.model for one in route.targets), *route.fallbacks):
            if name in view.targets:
                provider = view.targets[name].provider
                found[provider.slug] = provider
    return [found[slug] for slug in sorted(found)]
