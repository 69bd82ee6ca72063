"""Signing in with OpenID Connect: the authorization code flow with PKCE, against the one provider that settings name.

OpenID Connect Core 1.0, RFC 7636 (PKCE), RFC 9207 (the issuer in the answer). What the provider says is checked whole: signature,
issuer, audience, time, nonce. Nothing that it says is repeated to whoever signs in but its error's name.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from django.conf import settings

from llmops.core.errors import ConfigurationRefused, PermissionDenied, ServiceUnavailable

TIMEOUT_S, MOST_BYTES, LEEWAY_S = 5.0, 512 * 1024, 30
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
#: Discovery and keys are asked for again after so long.
FRESH_S = 600
_LOCAL = ("localhost", "127.0.0.1", "::1")
_GRANT = re.compile(r"(?P<value>[^=,]+)=(?P<role>[a-z]+)(?:@(?P<project>[a-z0-9][a-z0-9._-]{0,62}))?")


@dataclass(frozen=True)
class Started:
    """What the session keeps between the two halves of the flow."""

    address: str
    state: str
    nonce: str
    verifier: str


@dataclass(frozen=True)
class Identity:
    """Who signed in. ``grants`` are (role, project's slug or None), as the mapping of settings has them for the claim."""

    issuer: str
    subject: str
    username: str
    email: str
    first_name: str
    last_name: str
    grants: frozenset[tuple[str, str | None]]


def configured() -> bool:
    return bool(settings.OIDC_ISSUER and settings.OIDC_CLIENT_ID)


def start(callback: str) -> Started:
    """Where to send whoever signs in, and what must come back. Raises ``ServiceUnavailable`` when the provider is away."""
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    asked = {
        "response_type": "code",
        "client_id": settings.OIDC_CLIENT_ID,
        "redirect_uri": callback,
        "scope": " ".join(dict.fromkeys(["openid", *settings.OIDC_SCOPES])),
        "state": state,
        "nonce": nonce,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    endpoint = _secure(_discovery()["authorization_endpoint"])
    return Started(f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(asked)}", state, nonce, verifier)


def finish(*, code: str, callback: str, nonce: str, verifier: str) -> Identity:
    """Exchange the code and check who it is for. Raises ``PermissionDenied`` for what does not hold."""
    found = _discovery()
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": callback,
        "client_id": settings.OIDC_CLIENT_ID,
        "code_verifier": verifier,
    }
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
    if settings.OIDC_CLIENT_SECRET:
        pair = f"{quote(settings.OIDC_CLIENT_ID, safe='')}:{quote(settings.OIDC_CLIENT_SECRET, safe='')}"
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    answer = _fetch(found["token_endpoint"], body=urlencode(form).encode(), headers=headers)
    token = answer.get("id_token")
    if not isinstance(token, str):
        raise PermissionDenied("The sign-in service did not accept this sign-in. Begin again.")
    return identity_of(_claims(token, nonce))


def identity_of(claims: dict[str, Any]) -> Identity:
    """What claims say about a person. Raises ``PermissionDenied`` where no role follows from them."""
    given = claims.get(settings.OIDC_ROLES_CLAIM, [])
    values = (
        {given}
        if isinstance(given, str)
        else {one for one in given if isinstance(one, str)}
        if isinstance(given, list)
        else set()
    )
    grants = frozenset(
        (role, project)
        for value, role, project in role_mapping(settings.OIDC_ROLES)
        if value in values or value == "*"
    )
    if not grants:
        raise PermissionDenied(
            "You are known to the sign-in service, and no role here follows from your groups there. Ask an administrator."
        )
    subject = str(claims["sub"])
    username = str(claims.get(settings.OIDC_USERNAME_CLAIM) or claims.get("email") or subject)
    email = str(claims.get("email", "")) if claims.get("email_verified", True) is not False else ""
    return Identity(
        issuer=settings.OIDC_ISSUER,
        subject=subject[:255],
        username=re.sub(r"[^\w.@+-]", "-", username)[:150],
        email=email[:254],
        first_name=str(claims.get("given_name", ""))[:150],
        last_name=str(claims.get("family_name", ""))[:150],
        grants=grants,
    )


def role_mapping(text: str) -> list[tuple[str, str, str | None]]:
    """``group=role`` and ``group=role@project``, with commas between them; raises ``ConfigurationRefused`` naming what is none."""
    from llmops.access.rules import ROLES

    found = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        match = _GRANT.fullmatch(item)
        if match is None or match["role"] not in ROLES:
            raise ConfigurationRefused(
                f"CONSOLE_OIDC_ROLES: {item[:80]!r} is not group=role or group=role@project; roles are {', '.join(ROLES)}."
            )
        found.append((match["value"].strip(), match["role"], match["project"]))
    return found


def _claims(token: str, nonce: str) -> dict[str, Any]:
    # It loads certificates and all their algorithms: 2 MB, for those who sign in so.
    import jwt

    try:
        header = jwt.get_unverified_header(token)
        key = _key(header.get("kid"), header.get("alg"))
        claims: dict[str, Any] = jwt.decode(
            token,
            key.key,
            algorithms=[key.algorithm_name] if key.algorithm_name in ALGORITHMS else list(ALGORITHMS),
            audience=settings.OIDC_CLIENT_ID,
            issuer=settings.OIDC_ISSUER,
            leeway=LEEWAY_S,
            options={"require": ["exp", "iat", "iss", "aud", "sub"]},
        )
    except jwt.PyJWTError:
        raise PermissionDenied("What the sign-in service said could not be verified. Begin again.") from None
    if not secrets.compare_digest(str(claims.get("nonce", "")), nonce):
        raise PermissionDenied("This sign-in belongs to another one. Begin again.")
    if (
        isinstance(claims["aud"], list)
        and len(claims["aud"]) > 1
        and claims.get("azp") != settings.OIDC_CLIENT_ID
    ):
        raise PermissionDenied("What the sign-in service said is meant for somebody else. Begin again.")
    return claims


def _key(kid: str | None, algorithm: str | None) -> Any:
    import jwt

    if algorithm not in ALGORITHMS:
        raise jwt.InvalidAlgorithmError("not one that is taken")
    for fresh in (False, True):
        # A provider that rotated its keys signs with one that is not known yet.
        keys = jwt.PyJWKSet.from_dict(_jwks(fresh=fresh)).keys
        for key in keys:
            if (kid is None and len(keys) == 1) or key.key_id == kid:
                return key
    raise jwt.InvalidKeyError("unknown")


def _discovery() -> dict[str, Any]:
    found = _kept(
        f"{settings.OIDC_ISSUER.rstrip('/')}/.well-known/openid-configuration", int(time.time() // FRESH_S)
    )
    if found.get("issuer") != settings.OIDC_ISSUER:
        raise ServiceUnavailable(
            "The sign-in service calls itself by another name than CONSOLE_OIDC_ISSUER; an administrator must look."
        )
    return found


def _jwks(*, fresh: bool) -> dict[str, Any]:
    address = str(_discovery()["jwks_uri"])
    return _fetch(address) if fresh else _kept(address, int(time.time() // FRESH_S))


@lru_cache(maxsize=8)
def _kept(address: str, period: int) -> dict[str, Any]:
    return _fetch(address)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))


def _fetch(
    address: str, *, body: bytes | None = None, headers: dict[str, str] | None = None
) -> dict[str, Any]:
    sent = headers or {"Accept": "application/json"}
    request = urllib.request.Request(_secure(address), data=body, headers=sent)  # noqa: S310 - https, or this machine
    try:
        with _opener.open(request, timeout=TIMEOUT_S) as answer:
            text = answer.read(MOST_BYTES + 1)
    except urllib.error.HTTPError as refused:
        if body is not None and refused.code in (400, 401):
            raise PermissionDenied("The sign-in service did not accept this sign-in. Begin again.") from None
        raise ServiceUnavailable(f"The sign-in service answered {refused.code}. Try again later.") from None
    except (OSError, ValueError):
        raise ServiceUnavailable("The sign-in service cannot be reached. Try again later.") from None
    try:
        found = json.loads(text) if len(text) <= MOST_BYTES else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ServiceUnavailable(
            "The sign-in service answered with something else than JSON. Try again later."
        )
    return found


def _secure(address: Any) -> str:
    parts = urlsplit(str(address))
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOCAL):
        raise ServiceUnavailable(
            "The sign-in service has an address without https; an administrator must look."
        )
    return str(address)
