"""A signed request to a service of yours (Standard Webhooks 1.0: https://www.standardwebhooks.com).

    webhook-id         the action's id, which is the ``Idempotency-Key`` as well
    webhook-timestamp  when the action was claimed, in Unix seconds; refuse what is older than five minutes
    webhook-signature  ``v1,`` and the base64 of HMAC-SHA256 over ``id.timestamp.body`` under the tool's secret

The body is canonical JSON. Only the address that is set is spoken to: no redirect is followed, no address that the network
guard refuses is connected to, TLS certificates are verified, and the whole exchange ends within the tool's time-out however
slowly bytes come. 2xx is done; 4xx is a no, and 301, 307 or 308 says to ask elsewhere, so nothing happened; what goes wrong before a connection stands means that nothing
was sent. Everything else is unknown: the service may have done it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import secrets
import ssl
from collections.abc import Mapping
from contextlib import suppress
from posixpath import normpath
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver

from llmops.core.digests import canonical_json
from llmops.core.errors import InvalidRequest
from llmops.providers.guarded_resolver import AddressRefused, GuardedResolver
from llmops.providers.network_guard import host_refusal
from llmops.tools.executors.base import MOST_RESULT_BYTES, Executor, Job, Outcome, storable, too_deep

_PREFIX = "whsec_"
_CONNECT_S = 10.0
_KEPT_TEXT = 2_000


def new_secret() -> str:
    """256 random bits in the form that libraries for Standard Webhooks take."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def signature(secret: str, *, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of ``webhook-signature``."""
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError("the secret is not in the form whsec_<base64>") from None
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def _check(given: Mapping[str, Any]) -> dict[str, Any]:
    allow_private = given.get("allow_private_network", False)
    name = "definition.settings"
    if unknown := set(given) - {"url", "allow_private_network"}:
        raise InvalidRequest(f"{name}: there is no setting {min(unknown)!r}.", param=f"{name}.{min(unknown)}")
    if not isinstance(allow_private, bool):
        raise InvalidRequest(
            f"{name}.allow_private_network: true or false.", param=f"{name}.allow_private_network"
        )
    if problem := url_problem(given.get("url"), allow_private=allow_private):
        raise InvalidRequest(f"{name}.url: {problem}.", param=f"{name}.url")
    return {"url": given["url"], "allow_private_network": allow_private}


def url_problem(url: Any, *, allow_private: bool) -> str | None:
    """What is wrong with the address of a webhook, or None. ``http`` only where private networks are allowed."""
    if not isinstance(url, str) or len(url) > 1000:
        return "an address such as https://tools.example.com/refunds is needed"
    if any(character <= " " or character in "\x7f\\" for character in url):
        return "it holds white space, a backslash or a control character"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "this is not an address such as https://tools.example.com/refunds"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "start it with https:// and a host"
    if "@" in parts.netloc:
        return "it must not hold a user name or password; what is sent is signed"
    if parts.fragment or url.endswith("#"):
        return "leave out everything from # on"
    if port == 0:
        return "port 0 cannot be called"
    if parts.scheme == "http" and not allow_private:
        return "plain http is only for private networks (allow them here); use https"
    problem = host_refusal(parts.hostname, allow_private=allow_private)
    return problem and problem.replace("on the provider", "on the tool")


def body_of(job: Job) -> bytes:
    return canonical_json(
        {
            "action": job.key,
            "tool": job.tool,
            "version": job.version,
            "arguments": dict(job.arguments),
            "digest": job.digest,
            "run": job.run,
            "risk": job.risk,
            "proposed_by": job.proposed_by,
            "approved_by": list(job.approved_by),
            "dry_run": job.dry_run,
        }
    )


def run(job: Job, *, resolver: AbstractResolver | None = None) -> Outcome:
    """Send it once. Must not be called on an event loop."""
    allow_private = bool(job.settings.get("allow_private_network"))
    if problem := url_problem(job.settings.get("url"), allow_private=allow_private):
        return Outcome("failed", message=f"Nothing was sent: {problem}.")
    if not job.secret:
        return Outcome("failed", message="Nothing was sent: the tool has no signing secret.")
    progress = SimpleNamespace(connected=False)
    try:
        return asyncio.run(_exchange(job, progress, allow_private, resolver))
    except TimeoutError:
        late = f"within {job.timeout_s:g} s"
        if not progress.connected:
            return Outcome("failed", message=f"Nothing was sent: no connection could be made {late}.")
        return Outcome("unknown", message=f"The service did not answer completely {late}.")
    except aiohttp.ClientError as error:
        if not progress.connected:
            return Outcome("failed", message=_not_sent(error))
        return Outcome(
            "unknown",
            message=f"The connection broke before the answer was complete ({type(error).__name__}).",
        )
    except Exception as error:
        state: Any = "unknown" if progress.connected else "failed"
        return Outcome(state, message=f"The request could not be completed ({type(error).__name__}).")


async def _exchange(
    job: Job, progress: SimpleNamespace, allow_private: bool, resolver: AbstractResolver | None
) -> Outcome:
    body = body_of(job)
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json",
        # What is packed could unfold without end.
        "Accept-Encoding": "identity",
        "User-Agent": "llmops-console",
        "Idempotency-Key": job.key,
        "webhook-id": job.key,
        "webhook-timestamp": str(job.at),
        "webhook-signature": signature(job.secret, message_id=job.key, timestamp=job.at, body=body),
    }
    url, timeout_s = job.settings["url"], job.timeout_s
    return _outcome(*await post(url, body, headers, timeout_s, allow_private, progress, resolver))


async def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    timeout_s: float,
    allow_private: bool,
    progress: SimpleNamespace,
    resolver: AbstractResolver | None = None,
) -> tuple[int, bytes, bool]:
    """Send it once; status, what was kept of the answer, and whether that is all of it. ``progress.connected`` says that something
    may have been sent. Raises ``TimeoutError`` and aiohttp's errors."""
    trace = aiohttp.TraceConfig()

    async def connected(*_: Any) -> None:
        progress.connected = True

    trace.on_connection_create_end.append(connected)
    guard = GuardedResolver(allow_private=allow_private, inner=resolver)
    async with (
        asyncio.timeout(timeout_s),
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=guard, use_dns_cache=False, force_close=True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=min(_CONNECT_S, timeout_s)),
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trace_configs=[trace],
        ) as session,
        session.post(url, data=body, headers=headers, allow_redirects=False) as response,
    ):
        status, kept, whole = response.status, bytearray(), True
        async for piece in response.content.iter_any():
            kept += piece
            if len(kept) > MOST_RESULT_BYTES:
                whole = False
                break
        return status, bytes(kept), whole


def _outcome(status: int, body: bytes, whole: bool) -> Outcome:
    if status in (302, 303):
        # What answers a form sends its browser on with these, when it has done what was asked.
        return Outcome(
            "unknown",
            message=f"The service answered {status}, which may mean that it was done. It is not followed; have it answer 2xx.",
        )
    if 300 <= status < 400:
        return Outcome(
            "failed",
            message=f"The service answered {status}, a redirect, which is not followed. Set the final address.",
        )
    if 400 <= status < 500 and status not in (408, 499):
        return Outcome(
            "failed", _read(body) if whole else None, f"The service said no: it answered {status}."
        )
    if not 200 <= status < 300:
        return Outcome("unknown", message=f"The service answered {status}; it may have done it all the same.")
    if not whole:
        return Outcome(
            "succeeded",
            message=f"Done, but the answer is larger than {MOST_RESULT_BYTES // 1024} KiB and was not kept.",
        )
    return Outcome("succeeded", _read(body), f"The service answered {status}.")


def _read(body: bytes) -> Any:
    """JSON as it is, other text shortened, None for nothing."""
    if not body.strip():
        return None
    try:
        found = json.loads(body)
        canonical_json(found)
        if too_deep(found):
            raise ValueError
    except (ValueError, RecursionError):
        found = body[:_KEPT_TEXT].decode("utf-8", "replace")
    return storable(found)


def _not_sent(error: aiohttp.ClientError) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, AddressRefused):
            return f"Nothing was sent: {str(cause).replace('on the provider', 'on the tool')}."
        # aiohttp's own error is one as well, and carries the one that says why.
        if isinstance(cause, ssl.SSLCertVerificationError):
            said = getattr(getattr(cause, "certificate_error", cause), "verify_message", "")
            return f"Nothing was sent: the TLS certificate is not valid ({said or 'it cannot be verified'})."
        cause = cause.__cause__ or cause.__context__ or getattr(cause, "os_error", None)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "Nothing was sent: the host name could not be resolved."
    return f"Nothing was sent: no connection could be made ({type(error).__name__})."


def _end(settings: Mapping[str, Any]) -> str:
    """Host, port and path in one way of writing them: what differs in anything else may well be the same service."""
    parts = urlsplit(settings["url"])
    host = (parts.hostname or "").rstrip(".")
    with suppress(UnicodeError):
        host = host.encode("idna").decode()
    path = unquote(unquote(parts.path)).replace("\\", "/").casefold()
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{host}:{port}{normpath(f'/{path}').replace('//', '/')}"


WEBHOOK = Executor("webhook", "A signed request to a service", _check, run, _end, "address", signs=True)
