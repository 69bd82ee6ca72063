"""Bytes on the wire that are no HTTP, or nearly: a data-plane process in its server answers or closes, and lives.

What gets as far as the data plane is fuzzed without a socket in ``tests/gateway/fuzz``; here is what a server makes of it.
"""

from __future__ import annotations

import json
import os
import select
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.e2e.test_sdk import start_gateway
from tests.installation import Installation, Process
from tests.simulator.running import running

KEY = "llmops_fuzzkey0_" + "f" * 40
OTHER_KEY = "llmops_otherkey_" + "o" * 40
PROVIDER_SECRET = "a-provider-key-that-nobody-sees"
CONFIGURATION = f"""\
version: 1
projects:
  - {{slug: support, name: Support}}
  - {{slug: sales, name: Sales}}
providers:
  - slug: sim
    kind: simulator
    base_url: URL
    allow_private_network: true
    credentials: [{{name: only, secret: "plain:{PROVIDER_SECRET}"}}]
models:
  - {{slug: plain, provider: sim, model: "sim-gpt-4o+instant", context_window: 128000, max_output_tokens: 16384, default_max_output_tokens: 16, prices: {{input: "1", output: "10"}}}}
service_keys:
  - {{name: all, project: support, secret: "plain:{KEY}", routes: ["*"], models: ["*"]}}
  - {{name: others, project: sales, secret: "plain:{OTHER_KEY}", routes: ["*"], models: ["*"], scopes: [inference, metrics]}}
"""
BODY = b'{"model":"plain","messages":[{"role":"user","content":"Say hello"}],"max_tokens":4}'
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n" % KEY.encode()
GOOD = HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
#: What is waited for an answer before the client closes its side.
ANSWER_S = 0.05
MB = 1024 * 1024
#: What the process keeps of bodies at once; a key alone may have half of it.
BODY_BYTES = 64 * MB
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


class Served:
    def __init__(self, installation: Installation, gateway: Process, port: int) -> None:
        self.installation = installation
        self.gateway = gateway
        self.port = port
        self.workers = self._workers()

    def _workers(self) -> set[int]:
        return {one.pid for one in psutil.Process(self.gateway.pid).children(recursive=True)}

    def meet(self, sent: bytes) -> bytes:
        """Send, give an answer a moment, then say that nothing more comes, and read until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as client:
            found = b""
            try:
                client.sendall(sent)
                # A client that closes its side first is taken for one that left.
                if select.select([client], [], [], ANSWER_S)[0]:
                    found += client.recv(65536)
                client.shutdown(socket.SHUT_WR)
                while data := client.recv(65536):
                    found += data
            except (ConnectionError, OSError) as closed:
                assert not isinstance(closed, TimeoutError), "the server neither answers nor closes"
            return found

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def ask(self, more: dict[str, str], key: str) -> int:
        """The status of a proper call with more members in its body."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/chat/completions",
            data=json.dumps({**json.loads(BODY), **more}).encode(),
            headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)

    def metric(self, name: str) -> float:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/metrics", headers={"authorization": f"Bearer {OTHER_KEY}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            found = answer.read().decode()
        return float(next(line for line in found.splitlines() if line.startswith(f"{name} ")).split()[1])

    @staticmethod
    def until(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(0.02)

    def lives(self) -> None:
        """The very process that was started answers a proper call."""
        assert self._workers() == self.workers
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/chat/completions",
            data=BODY,
            headers={"authorization": f"Bearer {KEY}", "content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200


@pytest.fixture(scope="module")
def served(module_installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with running(tmp_path_factory.mktemp("simulator")) as simulator:
        text = CONFIGURATION.replace("URL", simulator.url)
        module_installation.env["CONSOLE_BODY_BYTES"] = str(BODY_BYTES)
        module_installation.manage("apply", "-f", "-", stdin=text)
        port = module_installation.free_port()
        gateway = start_gateway(module_installation, port)
        module_installation.wait_ready(f"http://127.0.0.1:{port}/readyz", gateway)
        found = Served(module_installation, gateway, port)
        yield found
        found.lives()
        log = gateway.log.read_text(errors="replace")
        assert "Traceback" not in log, log[-3_000:]
        written = log.encode() + b"".join(
            path.read_bytes() for path in module_installation.data_dir.rglob("*.jsonl")
        )
        for secret in secrets(module_installation):
            assert secret not in written


def secrets(installation: Installation) -> list[bytes]:
    masters = os.environ["CONSOLE_MASTER_KEYS"].partition(":")[2]
    signing = os.environ["CONSOLE_SECRET_KEY"]
    return [one.encode() for one in (PROVIDER_SECRET, KEY, masters, signing)]


def judge(served: Served, sent: bytes, answer: bytes) -> None:
    """``answer``: all that came back, perhaps several answers; nothing at all where the server just closed."""
    for secret in secrets(served.installation):
        assert secret not in answer
    for head in heads(answer):
        status = int(head.split(b" ", 2)[1])
        assert status < 500, answer[:600]
        # What the server refuses by itself has no id; what has a body is from the data plane.
        if b"application/json" in head and b"/healthz" not in sent and b"/readyz" not in sent:
            assert head.lower().count(b"\r\nx-request-id:") == 1
        assert b"set-cookie" not in head.lower()


def heads(answer: bytes) -> list[bytes]:
    found = []
    while answer.startswith(b"HTTP/1."):
        head, _, rest = answer.partition(b"\r\n\r\n")
        found.append(head)
        at = rest.find(b"HTTP/1.")
        if at < 0:
            break
        answer = rest[at:]
    return found


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\r\n\r\n",
        b"\x00" * 100,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET",
        b"GET /v1/models\r\n\r\n",
        b"GET /v1/models HTTP/9.9\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\n\r\n",
        b"GET http://elsewhere/v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v1/%00%ff%fe%ed%a0%80 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v1/models/%0d%0aset-cookie:%20a HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v1/../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v1/\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX-Request-Id: a\r\n set-cookie: b=c\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX-Request-Id: a\rset-cookie: b=c\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX-Request-Id: " + b"x" * 200_000 + b"\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: a\r\n" + b"X-A: b\r\n" * 5_000 + b"\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer \xff\xfe\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
        b"Sec-WebSocket-Key: eHh4eHh4eHh4eHh4eHh4eA==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 1e3\r\n\r\n" + BODY,
        HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n",
        HEAD + b"Content-Length: 1000000000000\r\n\r\nx",
        HEAD + b"Content-Length: 5\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n123456",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"\r\n" + BODY,
        HEAD + b"Transfer-Encoding: gzip\r\n\r\n" + BODY,
        HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00",
        HEAD + b"Expect: 100-continue\r\nContent-Length: 10\r\n\r\n",
        HEAD + b"Expect: the-moon\r\nContent-Length: 2\r\n\r\n{}",
        CHUNKED + b"5\r\n",
        CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"ffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"5\r\nhelloworld\r\n0\r\n\r\n",
        CHUNKED + b"5;" + b"a" * 100_000 + b"\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"5\r\nhello\r\n0\r\nx-request-id: trailer\r\n\r\n",
        CHUNKED + b"1\r\n{\r\n" * 3_000,
        GOOD + b"GARBAGE\r\n\r\n",
        GOOD * 20,
    ],
)  # fmt: skip
def test_nearly_http(served: Served, sent: bytes) -> None:
    judge(served, sent, served.meet(sent))
    served.lives()


def test_a_body_that_claims_much_and_brings_little_holds_nobody_up(served: Served) -> None:
    clients = []
    try:
        for _ in range(100):
            client = socket.create_connection(("127.0.0.1", served.port), timeout=10)
            client.sendall(HEAD + b"Content-Length: 1000000\r\n\r\n{")
            clients.append(client)
        served.lives()
    finally:
        for client in clients:
            client.close()
    served.lives()


def test_large_bodies_that_come_slowly_take_a_bounded_part_of_memory(served: Served) -> None:
    """They come before any limit of calls at once applies; another project is served meanwhile. Nothing is left of them when their
    clients vanish."""
    (worker,) = served.workers
    process = psutil.Process(worker)
    assert served.metric("llmops_body_bytes") == 0
    before = process.memory_info().rss
    clients, answers = [served.connect() for _ in range(40)], dict[socket.socket, bytes]()
    try:
        for client in clients:
            client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % (8 * MB))
        for _ in range(16):
            for client in set(clients) - set(answers):
                try:
                    client.sendall(b"[" * (MB // 4))
                except OSError:
                    answers[client] = b""
        served.until(lambda: len(refused(clients, answers)) >= len(clients) - BODY_BYTES // 2 // (4 * MB) - 1)
        assert process.memory_info().rss - before < 1.5 * BODY_BYTES
        assert 20 * MB < served.metric("llmops_body_bytes") <= BODY_BYTES // 2
        for answer in filter(None, answers.values()):
            assert (
                answer.startswith(b"HTTP/1.1 429")
                and b"\r\nretry-after: 2\r\n" in answer
                and b"bodies_full" in answer
            )
        assert any(answers.values())
        assert served.ask({"text": "x" * (5 * MB)}, OTHER_KEY) == 200
        assert served.ask({}, KEY) == 200
    finally:
        for client in clients:
            client.close()
    served.until(lambda: served.metric("llmops_body_bytes") == 0)
    assert served.ask({"text": "x" * (5 * MB)}, KEY) == 200


def refused(clients: list[socket.socket], answers: dict[socket.socket, bytes]) -> dict[socket.socket, bytes]:
    """``answers`` with what came meanwhile: of a client that was cut off while it sent, perhaps nothing."""
    for client in select.select(clients, [], [], 0.02)[0]:
        with suppress(OSError):
            answers[client] = answers.get(client, b"") + client.recv(4_096)
    return answers


_lines = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"Host: a", b"Content-Length: 83", b"Transfer-Encoding: chunked", b"Connection: close"]),
    st.builds(lambda name, value: name + b": " + value, st.binary(max_size=12), st.binary(max_size=30)),
)


@settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "100")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.lists(_lines, max_size=6).map(lambda lines: HEAD + b"\r\n".join([*lines, b"", BODY])),
        st.builds(
            lambda at, put, gone: GOOD[:at] + put + GOOD[at + gone :],
            st.integers(0, len(GOOD)),
            st.binary(max_size=4),
            st.integers(0, 4),
        ),
        st.lists(
            st.one_of(
                st.binary(max_size=10).map(lambda data: b"%x\r\n%b\r\n" % (len(data), data)),
                st.binary(max_size=8),
            ),
            max_size=6,
        ).map(lambda chunks: CHUNKED + b"".join(chunks) + b"0\r\n\r\n"),
    )
)
def test_bytes_that_are_hardly_http(served: Served, sent: bytes) -> None:
    judge(served, sent, served.meet(sent))
