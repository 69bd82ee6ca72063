"""One request to a secret store over HTTP: its address comes from this installation's settings, never from a reference.

No redirects are followed, because the request carries the console's own identity; answers are bounded in size and time, and
nothing of them is repeated in an error.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

import aiohttp

from llmops.providers import secret_stores
from llmops.providers.guarded_resolver import GuardedResolver
from llmops.providers.network_guard import host_refusal

DEADLINE_S = 5.0
_MOST_BYTES = 256 * 1024


def ask(
    what: str,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    body: bytes | None = None,
    ca_file: str = "",
    own_host: bool = False,
    deadline_s: float = DEADLINE_S,
) -> tuple[int, bytes]:
    """Status and body of one answer. ``what`` names the store in ``SecretUnavailable``, which is all that is raised, and
    ``StoreAway`` where no answer came. ``own_host``: the metadata service of the host itself may be asked.

    Plain http is for addresses on private or loopback networks only (an agent beside this process). Must not be called on an
    event loop.
    """
    parts = urlsplit(url)
    plain = parts.scheme == "http"
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise secret_stores.SecretUnavailable(f"The address of {what} is not one: write https://host:port.")
    if plain and "." in host and host_refusal(host, allow_private=False) is None:
        raise secret_stores.SecretUnavailable(
            f"The address of {what} is plain http on a public network; use https."
        )
    if not own_host and (problem := host_refusal(host, allow_private=True)):
        raise secret_stores.SecretUnavailable(f"{what} is not asked: {problem}.")
    try:
        return asyncio.run(_ask(method, url, dict(headers), body, ca_file, deadline_s))
    except TimeoutError:
        raise secret_stores.StoreAway(f"{what} did not answer within {deadline_s:g} s.") from None
    except ssl.SSLError as error:
        raise secret_stores.StoreAway(f"{what}: TLS failed ({error.reason}).") from None
    except (aiohttp.ClientError, OSError) as error:
        raise secret_stores.StoreAway(f"{what} could not be reached ({_why(error)}).") from None


async def _ask(
    method: str, url: str, headers: dict[str, str], body: bytes | None, ca_file: str, deadline_s: float
) -> tuple[int, bytes]:
    trust = ssl.create_default_context(cafile=ca_file or None)
    # Whoever runs the installation says where the store is, and it may be in-house; metadata services stay out.
    connector = aiohttp.TCPConnector(
        resolver=GuardedResolver(allow_private=True), use_dns_cache=False, force_close=True, ssl=trust
    )
    async with (
        asyncio.timeout(deadline_s),
        aiohttp.ClientSession(
            connector=connector,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            skip_auto_headers=("Content-Type",),
        ) as session,
        session.request(method, url, data=body, headers=headers, allow_redirects=False) as response,
    ):
        read = bytearray()
        async for chunk in response.content.iter_any():
            read += chunk
            if len(read) > _MOST_BYTES:
                return 413, b""
        return response.status, bytes(read)


def _why(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its TLS certificate is not valid"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its host name could not be resolved"
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or "no connection"
    return type(error).__name__
