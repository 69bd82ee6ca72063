"""From a request to the actor that stands behind it."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from django.conf import settings
from django.http import HttpRequest

from llmops.core.actors import Actor

#: Where a session keeps the id under which it is on record.
SESSION_NOTED = "sign_in"
NOBODY = Actor(kind="system", identifier="anonymous", name="someone not signed in")


def actor_of(request: Any) -> Actor:
    """The person or service key behind ``request`` (Django's or DRF's), with address and request id."""
    plain: HttpRequest = getattr(request, "_request", request)
    return seen_from(plain, _behind(plain))


def seen_from(request: HttpRequest, actor: Actor) -> Actor:
    """``actor`` with what ``request`` tells of where it comes from."""
    session = getattr(request, "session", None)
    return actor.from_request(
        ip=client_ip(request),
        request_id=getattr(request, "request_id", ""),
        agent=request.headers.get("user-agent", "")[:200],
        session=str(session.get(SESSION_NOTED) or "") if session is not None and actor.kind == "user" else "",
    )


def _behind(request: HttpRequest) -> Actor:
    key = getattr(request, "service_key", None)
    if key is not None:
        return Actor(kind="service_key", identifier=str(key.pk), name=f"{key.name} ({key.prefix})")
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return NOBODY
    return user_actor(user)


def user_actor(user: Any) -> Actor:
    full_name = user.get_full_name()
    name = f"{full_name} ({user.get_username()})" if full_name else user.get_username()
    return Actor(kind="user", identifier=str(user.pk), name=name)


def client_ip(request: HttpRequest) -> str:
    """The address of the caller. ``X-Forwarded-For`` counts only as far as ``settings.TRUSTED_PROXIES`` wrote it."""
    peer = str(request.META.get("REMOTE_ADDR") or "")
    hops = [part.strip() for part in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",") if part.strip()]
    while hops and _trusted(peer):
        candidate = hops.pop()
        if not _is_address(candidate):
            break
        peer = candidate
    return peer


def _trusted(address: str) -> bool:
    if not address:
        # A proxy on the same machine that speaks over a Unix socket has no address.
        return "unix" in settings.TRUSTED_PROXIES
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in trusted_networks(tuple(settings.TRUSTED_PROXIES)))


@lru_cache(maxsize=4)
def trusted_networks(texts: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    """Networks of ``texts``; raises ``ValueError`` for what is neither an address, a network nor ``unix``."""
    return tuple(ip_network(text, strict=False) for text in texts if text != "unix")


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
