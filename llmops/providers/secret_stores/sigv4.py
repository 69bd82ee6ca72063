"""AWS Signature Version 4 for one request without a query. AWS General Reference, "Create a signed AWS API request"."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class Identity:
    access_key: str
    secret_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


def signed(
    identity: Identity,
    *,
    method: str,
    host: str,
    region: str,
    service: str,
    headers: Mapping[str, str],
    body: bytes,
    at: datetime,
    path: str = "/",
    query: str = "",
) -> dict[str, str]:
    """``headers`` with those that sign the request; ``at`` is UTC, ``path`` and ``query`` are in canonical form."""
    moment, day = f"{at:%Y%m%dT%H%M%SZ}", f"{at:%Y%m%d}"
    sent = {
        **{name.lower(): value.strip() for name, value in headers.items()},
        "host": host,
        "x-amz-date": moment,
    }
    if identity.session_token:
        sent["x-amz-security-token"] = identity.session_token
    names = ";".join(sorted(sent))
    canonical = "\n".join(
        [
            method,
            path,
            query,
            *(f"{name}:{sent[name]}" for name in sorted(sent)),
            "",
            names,
            hashlib.sha256(body).hexdigest(),
        ]
    )
    scope = f"{day}/{region}/{service}/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{identity.secret_key}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
    del sent["host"]
    sent["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={identity.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return sent
