"""Prompts by name, with the official SDK against a running data plane: label and number, streams, what is wrong, and a publish that
moves a label while calls go on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.e2e.test_sdk import KEY, PROVIDER_SECRET, Stack, start_gateway, wait_for
from tests.installation import Installation
from tests.simulator.running import running

#: What the SDK sends and gets back.
pytestmark = pytest.mark.any_engine

FILE = """\
version: 1
projects:
  - {{slug: support, name: Support}}
providers:
  - slug: sim
    kind: simulator
    base_url: {url}
    allow_private_network: true
    credentials: [{{name: only, secret: "plain:{secret}"}}]
models:
  - {{slug: plain, provider: sim, model: "sim-gpt-4o+instant", context_window: 128000, max_output_tokens: 16384, default_max_output_tokens: 2048, prices: {{input: "1", output: "10"}}}}
routes:
  - {{slug: chat, targets: [{{model: plain}}]}}
budgets:
  - {{name: support-month, scope: "project:support", limit_usd: "1000.00", period: month, hard: true}}
service_keys:
  - {{name: all, project: support, secret: "plain:{key}", routes: ["*"], models: ["*"]}}
prompts:
  - slug: triage
    versions:
      - system: "You triage support tickets."
        task: "Classify the ticket."
        user: "{{{{ ticket }}}}"
        route: chat
      - system: "You triage support tickets, kindly."
        user: "{{{{ ticket }}}}"
        route: chat
    labels: {{production: {production}}}
  - slug: own
    project: support
    versions: [{{task: "Say hello.", user: "Hello", route: chat}}]
    labels: {{production: 1}}
"""


@pytest.fixture(scope="module")
def stack(module_installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(tmp_path_factory.mktemp("simulator")) as simulator:
        configure(module_installation, simulator.url, production=1)
        module_installation.start_booking()
        port = module_installation.free_port()
        gateway = start_gateway(module_installation, port)
        module_installation.wait_ready(f"http://127.0.0.1:{port}/readyz", gateway)
        yield Stack(module_installation, simulator, gateway, port)


def configure(installation: Installation, url: str, *, production: int) -> None:
    text = FILE.format(url=url, secret=PROVIDER_SECRET, key=KEY, production=production)
    installation.manage("apply", "-f", "-", stdin=text)


TICKET: Any = {"ticket": "My printer burns"}


def test_responses_and_chats_by_label_and_by_number(stack: Stack) -> None:
    client = stack.client()
    said = client.responses.with_raw_response.create(
        prompt={"id": "triage", "version": "production", "variables": TICKET}
    )
    assert said.headers["x-llmops-prompt"] == "triage@1"
    assert said.parse().output_text
    said = client.responses.with_raw_response.create(
        prompt={"id": "triage", "version": "2", "variables": TICKET}, input="And it smells."
    )
    assert said.headers["x-llmops-prompt"] == "triage@2"
    chat: Any = client.chat.completions.with_raw_response.create(
        model="chat", messages=[], extra_body={"prompt": {"id": "triage", "variables": TICKET}}
    )
    assert chat.headers["x-llmops-prompt"] == "triage@1"
    assert chat.parse().choices[0].message.content
    assert client.responses.create(prompt={"id": "own"}).output_text
    events = client.responses.create(prompt={"id": "triage", "variables": TICKET}, stream=True)
    assert [event.type for event in events][-1] == "response.completed"
    chunks = client.chat.completions.create(
        model="chat", messages=[], stream=True, extra_body={"prompt": {"id": "triage", "variables": TICKET}}
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_what_is_wrong_raises_what_a_programmer_expects(stack: Stack) -> None:
    client = stack.client()
    for prompt, kind, param in (
        ({"id": "triage"}, openai.BadRequestError, "prompt.variables.ticket"),
        (
            {"id": "triage", "variables": {"ticket": "a", "b": "c"}},
            openai.BadRequestError,
            "prompt.variables.b",
        ),
        ({"id": "triage", "version": "beta", "variables": TICKET}, openai.NotFoundError, "prompt.version"),
        ({"id": "nothing"}, openai.NotFoundError, "prompt.id"),
    ):
        given: Any = prompt
        with pytest.raises(kind) as raised:
            client.responses.create(prompt=given)
        assert raised.value.param == param
        with pytest.raises(kind) as raised:
            client.chat.completions.create(model="chat", messages=[], extra_body={"prompt": given})
        assert raised.value.param == param


def test_the_call_says_which_version_it_used_and_a_published_label_is_felt(stack: Stack) -> None:
    client = stack.client()

    def ask() -> tuple[str, str]:
        said = client.responses.with_raw_response.create(prompt={"id": "triage", "variables": TICKET})
        return said.headers["x-llmops-call-id"], said.headers["x-llmops-prompt"]

    first, used = ask()
    assert used == "triage@1"
    configure(stack.installation, stack.simulator.url, production=2)
    wait_for(lambda: ask()[1] == "triage@2")
    last, used = ask()
    stack.installation.wait_booked()
    rows = stack.installation.rows("SELECT id, prompt_name, prompt_version FROM usage_call")
    found = {str(row[0]).replace("-", ""): row[1:] for row in rows}
    assert found[first.replace("-", "")] == ("triage", 1)
    assert found[last.replace("-", "")] == ("triage", 2)
