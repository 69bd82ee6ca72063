"""The webhook executor against services that mean no good: what is sent is signed, and nothing holds the worker or lies to it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from llmops.core.errors import InvalidRequest
from llmops.tools.executors import EXECUTORS, Job, executor_named
from llmops.tools.executors.base import MOST_RESULT_BYTES
from llmops.tools.executors.webhook import WEBHOOK, new_secret, run
from tests.tools.services import says, service

SECRET = new_secret()


def job(url: str, *, private: bool = True, timeout_s: float = 5, **changed: Any) -> Job:
    known: dict[str, Any] = {
        "key": "01-key", "tool": "refund", "version": 3, "arguments": {"amount": 1200}, "digest": "d" * 64,
        "timeout_s": timeout_s, "settings": {"url": url, "allow_private_network": private}, "at": int(time.time()),
        "secret": SECRET, "approved_by": ("rita",), "proposed_by": "agent",
    }  # fmt: skip
    return Job(**{**known, **changed})


class To(AbstractResolver):
    """A name server that answers with these addresses."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> Any:
        return [
            {"hostname": host, "host": one, "port": port, "family": family, "proto": 0, "flags": 0}
            for one in self._addresses
        ]

    async def close(self) -> None:
        return None


def test_what_is_sent_is_signed_and_says_what_was_approved() -> None:
    with service(says("200 OK", b'{"refund": 7}')) as receiver:
        outcome = run(job(f"http://127.0.0.1:{receiver.port}/refunds"))
    assert (outcome.state, outcome.result) == ("succeeded", {"refund": 7})
    [(head, body)] = receiver.requests
    told = json.loads(body)
    assert (
        told["arguments"] == {"amount": 1200}
        and told["digest"] == "d" * 64
        and told["approved_by"] == ["rita"]
    )
    assert head["idempotency-key"] == head["webhook-id"] == told["action"] == "01-key" and not told["dry_run"]
    signed = f"{head['webhook-id']}.{head['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert head["webhook-signature"] == f"v1,{expected}"
    assert SECRET not in str(head) + str(told) + repr(job("http://x"))


def test_the_signature_is_that_of_the_standard() -> None:
    """The example of the specification's reference libraries."""
    from llmops.tools.executors.webhook import signature

    found = signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp=1614265330,
        body=b'{"test": 2432232314}',
    )
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("200 OK", "succeeded"), ("201 Created", "succeeded"), ("204 No Content", "succeeded"), ("400 Bad", "failed"),
        ("401 No", "failed"), ("409 Conflict", "failed"), ("422 No", "failed"), ("429 Later", "failed"), ("408 Late", "unknown"),
        ("500 Oops", "unknown"), ("502 Oops", "unknown"), ("503 Oops", "unknown"), ("504 Oops", "unknown"),
    ],
)  # fmt: skip
def test_what_an_answer_means(status: str, state: str) -> None:
    with service(says(status)) as receiver:
        assert run(job(f"http://127.0.0.1:{receiver.port}/")).state == state
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(status: int) -> None:
    with service(says("200 OK")) as inside:
        where = f"Location: http://127.0.0.1:{inside.port}/latest/meta-data"
        with service(says(f"{status} Moved", b"", where)) as receiver:
            outcome = run(job(f"http://127.0.0.1:{receiver.port}/"))
        # Whoever did what a form asked for sends the browser on by 302 or 303.
        assert outcome.state == ("unknown" if status in (302, 303) else "failed")
        assert "not followed" in outcome.message
        assert inside.connections == 0


def drip(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    for _ in range(200):
        client.sendall(b"x")
        time.sleep(0.05)


def drip_head(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\n")
    for number in range(200):
        client.sendall(f"X-{number}: y\r\n".encode())
        time.sleep(0.05)


def silence(client: socket.socket) -> None:
    time.sleep(10)


def only_continues(client: socket.socket) -> None:
    while True:
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 500)


def endless_extension(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=")
    while True:
        client.sendall(b"y" * 65536)


@pytest.mark.parametrize("answer", [drip, drip_head, silence, only_continues, endless_extension])
def test_slow_answers_end_with_the_time_out_and_leave_it_unknown(
    answer: Callable[[socket.socket], None],
) -> None:
    with service(answer) as receiver:
        outcome = run(job(f"http://127.0.0.1:{receiver.port}/", timeout_s=0.6))
    assert outcome.state == "unknown" and "0.6 s" in outcome.message and len(receiver.requests) == 1


def five_gigabytes(client: socket.socket) -> None:
    client.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {5 * 1024**3}\r\n\r\n".encode())
    piece = b"x" * 1024 * 1024
    for _ in range(5 * 1024):
        client.sendall(piece)


def endless_chunks(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        client.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")


def endless_head(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        client.sendall(b"y" * 65536)


def bomb(client: socket.socket) -> None:
    import gzip

    packed = gzip.compress(b"0" * 50_000_000)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n"
    client.sendall(head.encode() + packed)


def test_huge_answers_are_not_read() -> None:
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for answer, state in (
        (five_gigabytes, "succeeded"), (endless_chunks, "succeeded"), (endless_head, "unknown"), (bomb, "succeeded"),
    ):  # fmt: skip
        with service(answer) as receiver:
            outcome = run(job(f"http://127.0.0.1:{receiver.port}/", timeout_s=20))
        assert outcome.state == state, (answer, outcome)
        assert len(str(outcome.result or "")) <= MOST_RESULT_BYTES
    # Kibibytes on Linux: what was sent would have been gigabytes.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


@pytest.mark.parametrize(
    "broken",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf", b"\x16\x03\x01 not http at all\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"],
)  # fmt: skip
def test_answers_that_break_leave_it_unknown_and_are_not_asked_again(broken: bytes) -> None:
    with service(lambda client: client.sendall(broken)) as receiver:
        outcome = run(job(f"http://127.0.0.1:{receiver.port}/", timeout_s=5))
    assert outcome.state == "unknown" and len(receiver.requests) == 1, outcome


def test_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    outcome = run(job(f"http://127.0.0.1:{port}/"))
    assert outcome.state == "failed" and "Nothing was sent" in outcome.message


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "100.100.100.200", "::1", "fd00::1", "::ffff:127.0.0.1",
     "64:ff9b::a00:1", "0.0.0.0"],
)  # fmt: skip
def test_names_that_lead_to_private_addresses_are_not_connected_to(address: str) -> None:
    found = run(job("https://tools.example.com/", private=False), resolver=To(address))
    assert found.state == "failed" and "Nothing was sent" in found.message and "refused" in found.message
    mixed = run(job("https://tools.example.com/", private=False), resolver=To("93.184.215.14", address))
    assert mixed.state == "failed" and "Nothing was sent" in mixed.message


@pytest.mark.parametrize("address", ["169.254.169.254", "100.100.100.200", "224.0.0.1"])
def test_metadata_services_stay_shut_on_private_networks_as_well(address: str) -> None:
    assert "Nothing was sent" in run(job(f"http://{address}/")).message
    assert "Nothing was sent" in run(job("http://tools.example.com/"), resolver=To(address)).message


@pytest.mark.parametrize(
    "url",
    ["http://tools.example.com/", "https://127.0.0.1/", "https://127.1/", "https://0x7f000001/", "https://localhost/",
     "https://db.internal/", "https://[::1]/", "https://user:pw@tools.example.com/", "ftp://tools.example.com/", "//x",
     "https://tools.example.com:0/", "https://tools.example.com/#x", "https://tools.example.com/a b",
     "https://169.254.169.254/", "javascript:alert(1)", "", None, 5],
)  # fmt: skip
def test_addresses_that_a_definition_may_not_have(url: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        WEBHOOK.check({"url": url})
    assert refused.value.param == "definition.settings.url"
    assert "Nothing was sent" in run(job(url or "", private=False)).message


def certificate(directory: Path, *, name: str, starts: datetime, ends: datetime) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(starts)
        .not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = directory / f"{name}.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


@pytest.mark.parametrize("kind", ["unknown issuer", "expired", "another name", "good"])
def test_bad_certificates_get_nothing(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC)
    name = "evil.example" if kind == "another name" else "tools.example.com"
    ends = now - timedelta(days=1) if kind == "expired" else now + timedelta(days=1)
    context = certificate(tmp_path, name=name, starts=now - timedelta(days=9), ends=ends)
    if kind != "unknown issuer":
        # Believed, were it not for what else is wrong. What it adds to is what every request is verified with.
        believing = ssl.create_default_context(cafile=str(tmp_path / f"{name}.pem"))
        monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", believing)
    with service(says("200 OK"), context) as receiver:
        private = kind != "good"
        url = f"https://tools.example.com:{receiver.port}/"
        outcome = run(job(url, private=private), resolver=To("127.0.0.1"))
    if kind == "good":
        # A name that leads to this machine is refused whatever its certificate says.
        assert "refused" in outcome.message
        with service(says("200 OK"), context) as receiver:
            url = f"https://tools.example.com:{receiver.port}/"
            assert run(job(url, private=True), resolver=To("127.0.0.1")).state == "succeeded"
        return
    assert outcome.state == "failed" and "certificate" in outcome.message and not receiver.requests


def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with service(says("200 OK")) as proxy, service(says("200 OK")) as receiver:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert run(job(f"http://127.0.0.1:{receiver.port}/")).state == "succeeded"
        assert proxy.connections == 0


@pytest.mark.parametrize(
    ("body", "result"),
    [(b"", None), (b"done", "done"), (b'"a\\u0000b"', "a\ufffdb"), (b'"\\ud800"', '"\\ud800"'), (b"NaN", "NaN"),
     (b"[" * 100_000, "[" * 2000), (b"\xff\xfe", "\ufffd\ufffd"), (b"1e999", "1e999")],
)  # fmt: skip
def test_results_can_be_kept_whatever_comes(body: bytes, result: Any) -> None:
    with service(says("200 OK", body)) as receiver:
        assert run(job(f"http://127.0.0.1:{receiver.port}/")).result == result


@pytest.mark.parametrize("name", EXECUTORS)
def test_every_executor_keeps_the_contract(name: str) -> None:
    """It names itself, refuses settings that it does not know by their path, and ends where it cannot run."""
    executor = executor_named(name)
    assert executor.name == name and executor.title
    with pytest.raises(InvalidRequest) as refused:
        executor.check({"surprise": 1})
    assert str(refused.value.param).startswith("definition.settings")
    outcome = executor.run(job("", settings={}, secret=""))
    assert outcome.state == "failed" and outcome.message.startswith("Nothing was")


def test_an_address_of_this_machine_in_other_letters_is_sent_nothing() -> None:
    with service(says("200 OK")) as inside:
        for host in ("127\u30020\u30020\u30021", "\uff11\uff12\uff17\uff0e0\uff0e0\uff0e1"):
            outcome = run(job(f"https://{host}:{inside.port}/", private=False))
            assert outcome.state == "failed" and outcome.message.startswith(
                "Nothing was sent: write the host"
            )
        assert not inside.connections
