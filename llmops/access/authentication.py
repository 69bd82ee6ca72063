"""Service keys as bearer tokens of the API.

The answer to a wrong key is one sentence, whatever was wrong with it, so that nobody learns which part was right. The key
is found by its SHA-256: keys are 256 random bits, so neither the index nor a comparison tells anything about one. One that is
paused does and reads nothing; who has its secret is told why.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q
from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, get_authorization_header

from llmops.access.models import ServiceKey
from llmops.core.digests import equal, sha256_hex
from llmops.core.errors import AuthenticationFailed, PermissionDenied

REFUSAL = "The API key is missing, unknown, expired or revoked."
_LONGEST = 512
_TOUCH_EVERY = timedelta(minutes=1)


@dataclass(frozen=True)
class KeyHolder:
    """What stands in ``request.user`` when a service key opened the door."""

    key: ServiceKey
    is_authenticated = True
    is_anonymous = False
    is_active = True
    is_staff = False
    is_superuser = False

    @property
    def pk(self) -> str:
        return f"service_key:{self.key.pk}"

    def get_username(self) -> str:
        return self.key.name


class ServiceKeyAuthentication(BaseAuthentication):
    def authenticate(self, request: Any) -> tuple[KeyHolder, ServiceKey] | None:
        words = get_authorization_header(request).split()
        if not words:
            return None
        if len(words) != 2 or words[0].lower() != b"bearer" or len(words[1]) > _LONGEST:
            raise AuthenticationFailed(REFUSAL)
        key = find_key(words[1])
        if key is None:
            raise AuthenticationFailed(REFUSAL)
        if why := why_paused(key):
            raise PermissionDenied(why, code="key_paused")
        plain = request._request
        plain.service_key = key
        plain._powers = None
        return KeyHolder(key), key

    def authenticate_header(self, request: Any) -> str:
        return 'Bearer realm="llmops"'


def find_key(secret: bytes | str, *, at: datetime | None = None) -> ServiceKey | None:
    """The key whose secret this is if it is usable, or will be when it is resumed; None otherwise. A rotated secret works until its grace period ends."""
    now = at or timezone.now()
    hashed = sha256_hex(secret.encode() if isinstance(secret, str) else secret)
    # Asked with the least that finds a row: putting a question together takes most of the time of one.
    rows = ServiceKey.objects.select_related("project").order_by()
    found = rows.filter(Q(secret_hash=hashed) | Q(previous_hash=hashed))
    key = next((row for row in found if _works(row, hashed, now)), None)
    if key is None:
        return None
    if key.last_used_at is None or now - key.last_used_at > _TOUCH_EVERY:
        ServiceKey.objects.filter(pk=key.pk).update(last_used_at=now)
    if equal(key.previous_hash or "", hashed):
        used = key.previous_last_used_at
        if used is None or now - used > _TOUCH_EVERY:
            ServiceKey.objects.filter(pk=key.pk, previous_hash=hashed).update(previous_last_used_at=now)
    return key


def _works(key: ServiceKey, hashed: str, now: datetime) -> bool:
    if key.revoked_at is not None or key.project.archived_at is not None:
        return False
    if key.expires_at is not None and key.expires_at <= now:
        return False
    if equal(key.secret_hash, hashed):
        return True
    until = key.previous_valid_until
    return until is not None and until > now and equal(key.previous_hash or "", hashed)


def why_paused(key: ServiceKey) -> str:
    """What whoever comes with a paused key is told; empty for one that is not paused."""
    if key.paused_at is None:
        return ""
    why = f": {key.pause_reason.rstrip('.')}" if key.pause_reason else ""
    return f"The service key {key.name} is paused{why}. Ask an operator to resume it."


class InTheSchema(OpenApiAuthenticationExtension):
    target_class = ServiceKeyAuthentication
    name = "serviceKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "description": "A service key of this console."}
