"""Small configurations for tests: a provider, a model, a route, each made by the services themselves."""

from __future__ import annotations

from typing import Any

from llmops.core.actors import Actor, command_actor
from llmops.core.money import parse_usd
from llmops.providers import services
from llmops.providers.models import Credential, Model, Provider, Route
from llmops.providers.selectors import reveal

OPERATOR = command_actor("test")


def provider(slug: str = "sim", *, actor: Actor = OPERATOR, **fields: Any) -> Provider:
    kind = fields.pop("kind", "simulator")
    base_url = fields.pop("base_url", "http://127.0.0.1:9/v1")
    fields.setdefault("allow_private_network", base_url.startswith("http:"))
    return services.create_provider(actor, slug=slug, kind=kind, base_url=base_url, fields=fields)


def model(slug: str = "small", served_by: Provider | None = None, **fields: Any) -> Model:
    prices = fields.pop("prices", {})
    made = services.create_model(
        OPERATOR,
        slug=slug,
        provider=served_by or Provider.objects.filter(slug="sim").first() or provider(),
        **{
            "upstream_model": slug,
            "context_window": 8_000,
            "max_output_tokens": 1_000,
            "default_max_output_tokens": 100,
            "capabilities": ["chat"],
            **fields,
        },
    )
    for token_class, usd in prices.items():
        services.add_price(OPERATOR, model=made, token_class=token_class, nano_per_million=parse_usd(usd))
    return made


def route(slug: str = "chat", *targets: Model, fallbacks: tuple[Model, ...] = (), **fields: Any) -> Route:
    return services.create_route(
        OPERATOR,
        slug=slug,
        targets=[(target, 100) for target in targets],
        fallbacks=list(fallbacks),
        fields=fields,
    )


def credential(of: Provider | None = None, *, name: str = "primary", **fields: Any) -> Credential:
    fields.setdefault("secret", "" if "reference" in fields else "sk-test-0123456789abcdef0123456789")
    return services.add_credential(
        OPERATOR,
        provider=of or Provider.objects.filter(slug="sim").first() or provider(),
        name=name,
        **fields,
    )


def secret_of(credential: Credential) -> str:
    """What is stored of a key, opened for where its provider is now."""
    stored = Credential.objects.select_related("provider").get(pk=credential.pk)
    return reveal(stored, to=stored.provider.base_url)


def everything() -> tuple[Provider, Model, Route]:
    """A priced model behind a route, with a key in use: what can be published without a warning."""
    sim = provider()
    small = model("small", sim, prices={"input": "2.50", "output": "10.00"})
    credential(sim, activate=True)
    return sim, small, route("chat", small)
