"""Names and certificates of providers: the judged address is dialled, the name verified."""

from __future__ import annotations

import asyncio
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from llmops.gateway.attempts.failures import CONNECT
from llmops.gateway.attempts.upstream import Channel, Failed
from llmops.providers.guarded_names import GuardedNames
from tests.gateway.http1.wire import CREDENTIAL, Provider, Trial, a_pool, call
from tests.gateway.rig import a_provider


async def test_a_name_is_looked_up_once_in_a_while_and_the_judged_address_is_dialled(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def resolve(self: Any, host: str, port: int = 0, family: Any = 0) -> list[dict[str, Any]]:
        asked.append(host)
        await asyncio.sleep(0)
        # Nobody asks the system a second time: it would not know this name.
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": socket.AF_INET}]

    monkeypatch.setattr(GuardedNames, "resolve", resolve)
    pool = a_pool(provider.port, host="models.example.com")
    assert await asyncio.gather(*(call(pool) for _ in range(5))) == [b"ok"] * 5
    assert asked == ["models.example.com"]
    await pool.close()


async def test_where_nobody_answers_the_name_is_looked_up_again(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as shut:
        shut.bind(("127.0.0.1", 0))
        ports = [shut.getsockname()[1], provider.port]

        async def resolve(self: Any, host: str, port: int = 0, family: Any = 0) -> list[dict[str, Any]]:
            at = ports.pop(0)
            return [{"hostname": host, "host": "127.0.0.1", "port": at, "family": socket.AF_INET}]

        monkeypatch.setattr(GuardedNames, "resolve", resolve)
        pool = a_pool(provider.port, host="models.example.com")
        with pytest.raises(OSError):
            await call(pool)
        assert await call(pool) == b"ok"
    await pool.close()


def a_certificate(directory: Path, name: str) -> tuple[Path, Path]:
    """A certificate that vouches for itself, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    shown, secret = directory / "certificate.pem", directory / "key.pem"
    shown.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return shown, secret


@pytest.mark.parametrize("host", ["models.example.com", "models.example.com.", "other.example.com"])
async def test_a_certificate_must_be_for_the_name_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    async def resolve(self: Any, host: str, port: int = 0, family: Any = 0) -> list[dict[str, Any]]:
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": socket.AF_INET}]

    monkeypatch.setattr(GuardedNames, "resolve", resolve)
    certificate, key = a_certificate(tmp_path, "models.example.com")
    told: list[str | None] = []
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certificate, key)
    served.set_alpn_protocols(["h2", "http/1.1"])
    served.sni_callback = lambda _socket, name, _context: told.append(name)
    provider = Provider()
    await provider.start(served)
    trusting = ssl.create_default_context(cafile=str(certificate))
    trusting.set_alpn_protocols(["http/1.1"])
    pool = a_pool(provider.port, host=host, tls=trusting)
    if host.startswith("other"):
        with pytest.raises(ssl.SSLCertVerificationError):
            await pool.acquire()
        assert pool.figures == (0, 0, 0)
    else:
        assert [await call(pool) for _ in range(3)] == [b"ok"] * 3
        assert told == ["models.example.com"]
        tls = provider.lines[0].writer.get_extra_info("ssl_object")
        assert tls.selected_alpn_protocol() == "http/1.1"
        assert len(provider.lines) == 1
    await pool.close()
    await provider.stop()


async def test_a_stranger_s_certificate_fails_the_call_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = a_certificate(tmp_path, "localhost")
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certificate, key)
    provider = Provider()
    await provider.start(served)
    channel = Channel(a_provider(base_url=f"https://localhost:{provider.port}/v1"))
    trial = Trial()
    with pytest.raises(Failed) as failed:
        await channel.send("/x", b"{}", CREDENTIAL, "call.1", trial)
    assert (failed.value.failure.kind, failed.value.failure.billed, trial.sent) == (CONNECT, False, False)
    await channel.close()
    await provider.stop()
