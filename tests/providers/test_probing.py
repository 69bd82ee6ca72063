"""Trying a key at a real HTTP server: what is sent where, and that nothing of a key or an answer comes back."""

from __future__ import annotations

import json
import socket
import time

import pytest
from aiohttp.abc import AbstractResolver

from llmops.providers import probing
from llmops.providers.models import Provider
from tests.providers.answering import answer

KEY = "sk-planted-9d1e77c0aa55"


def provider(url, **fields):
    defaults = {"slug": "p", "kind": "compatible", "base_url": url, "allow_private_network": True}
    return Provider(**{**defaults, **fields})


class Pointing(AbstractResolver):
    """A name server that knows one address."""

    def __init__(self, address):
        self.address = address

    async def resolve(self, host, port=0, family=socket.AF_INET):
        return [
            {
                "hostname": host,
                "host": self.address,
                "port": port,
                "family": socket.AF_INET,
                "proto": 0,
                "flags": socket.AI_NUMERICHOST,
            }
        ]

    async def close(self):
        pass


def test_a_key_that_works(answering):
    server = answering()
    outcome = probing.probe(provider(server.url, organization="org-1", provider_project="proj-1"), KEY)
    assert outcome.works, outcome
    [(method, path, headers, _)] = server.asked
    assert (method, path) == ("GET", "/v1/models")
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert headers["OpenAI-Organization"] == "org-1"
    assert headers["OpenAI-Project"] == "proj-1"


def test_azure_gets_its_own_header_and_no_other(answering):
    server = answering()
    assert probing.probe(provider(server.url, kind="azure"), KEY).works
    headers = server.asked[0][2]
    assert headers["api-key"] == KEY
    assert "Authorization" not in headers


@pytest.mark.parametrize("status", [400, 401, 402, 403, 409, 418, 429, 500, 502, 503])
def test_a_refusal_repeats_neither_the_answer_nor_the_key(answering, status):
    server = answering()
    server.script = answer(
        status, json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}).encode()
    )
    outcome = probing.probe(provider(server.url), KEY)
    assert not outcome.works
    assert str(status) in outcome.message
    assert KEY not in outcome.message
    assert "Incorrect" not in outcome.message


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_its_target_gets_nothing(answering, status):
    server, elsewhere = answering(), answering()
    server.script = answer(status, Location=f"{elsewhere.url}/models")
    outcome = probing.probe(provider(server.url), KEY)
    assert not outcome.works
    assert "redirect" in outcome.message
    assert elsewhere.asked == []
    assert len(server.asked) == 1


def test_where_no_models_are_listed_one_token_is_asked_for(answering):
    server = answering()
    server.script = lambda request: answer(404 if request.command == "GET" else 200)(request)
    outcome = probing.probe(provider(server.url), KEY, chat_model="small-1")
    assert outcome.works, outcome
    method, path, headers, body = server.asked[1]
    assert (method, path) == ("POST", "/v1/chat/completions")
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert json.loads(body)["max_tokens"] == 1
    assert json.loads(body)["model"] == "small-1"


def test_where_nothing_can_be_asked_the_address_is_doubted(answering):
    server = answering()
    server.script = answer(404)
    outcome = probing.probe(provider(server.url), KEY)
    assert not outcome.works
    assert "base URL" in outcome.message


def test_an_answer_that_is_no_json_is_no_api(answering):
    server = answering()
    server.script = answer(200, b"<html>welcome", kind="text/html")
    outcome = probing.probe(provider(server.url), KEY)
    assert not outcome.works
    assert "OpenAI-compatible" in outcome.message


def test_an_endless_answer_is_cut_off(answering):
    server = answering()

    def endless(request):
        request.send_response(200)
        request.send_header("Content-Type", "application/json")
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        while not server.stop.is_set():
            request.wfile.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")

    server.script = endless
    assert probing.probe(provider(server.url), KEY).works


@pytest.mark.parametrize("where", ["headers", "body"])
def test_an_answer_that_drips_meets_the_deadline(answering, where):
    server = answering()

    def drip(request):
        request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
        if where == "body":
            request.wfile.write(b"Transfer-Encoding: chunked\r\n\r\n")
        while not server.stop.wait(0.05):
            request.wfile.write(b"1\r\n \r\n" if where == "body" else b"X-More: 1\r\n")
            request.wfile.flush()

    server.script = drip
    began = time.monotonic()
    outcome = probing.probe(provider(server.url), KEY, deadline_s=1)
    assert not outcome.works
    assert "1 s" in outcome.message
    assert time.monotonic() - began < 30


def test_a_closed_port_and_an_unknown_host_are_sentences():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    outcome = probing.probe(provider(f"http://127.0.0.1:{port}/v1"), KEY)
    assert not outcome.works
    assert "connection" in outcome.message
    outcome = probing.probe(provider("https://no-such-host.invalid/v1", allow_private_network=False), KEY)
    assert not outcome.works
    assert "resolved" in outcome.message


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "0.0.0.0"]
)
def test_a_public_name_that_leads_inside_gets_nothing(answering, address):
    server = answering()
    outcome = probing.probe(
        provider(f"https://provider.example:{server.port}/v1", allow_private_network=False),
        KEY,
        resolver=Pointing(address),
    )
    assert not outcome.works
    assert "Nothing was sent" in outcome.message
    assert server.asked == []


def test_private_networks_do_not_open_the_metadata_service():
    outcome = probing.probe(
        provider("http://cloud.example/v1", allow_private_network=True),
        KEY,
        resolver=Pointing("169.254.169.254"),
    )
    assert not outcome.works
    assert "metadata" in outcome.message


def test_an_address_that_was_stored_past_the_checks_gets_nothing(answering):
    server = answering()
    outcome = probing.probe(provider(server.url, allow_private_network=False), KEY)
    assert not outcome.works
    assert "Nothing was sent" in outcome.message
    assert server.asked == []


def test_a_server_that_speaks_no_tls_gets_no_key(answering):
    server = answering()
    outcome = probing.probe(provider(f"https://127.0.0.1:{server.port}/v1"), KEY, deadline_s=5)
    assert not outcome.works
    assert server.asked == []


def test_a_proxy_is_used_and_the_environment_is_not(answering, monkeypatch):
    proxy, unwanted = answering(), answering()
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{unwanted.port}")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{unwanted.port}")
    outcome = probing.probe(
        provider("http://provider.example/v1", proxy_url=f"http://127.0.0.1:{proxy.port}"), KEY
    )
    assert outcome.works, outcome
    assert proxy.asked[0][1] == "http://provider.example/v1/models"
    assert unwanted.asked == []
