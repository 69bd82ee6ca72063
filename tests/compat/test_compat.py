"""Libraries that services use, each in its own environment, against a running data plane with a simulated provider.

The official Python SDK is tried in ``tests/e2e/test_sdk.py``; these are smoke tests of what others make of the same API.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.compat.fetched import node_program, python
from tests.e2e.test_sdk import start_gateway
from tests.installation import Installation
from tests.simulator.running import running

PROGRAMS = Path(__file__).resolve().parent / "programs"
KEY = "llmops_compat00_" + "c" * 40
MODELS = {
    "plain": "sim-gpt-4o+instant",
    "tools": "sim-gpt-4o+instant+toolcall",
    "broken": "sim-gpt-4o+error=500",
    "limited": "sim-gpt-4o+error=429",
    "picky": "sim-gpt-4o+error=400",
    "moderation": "sim-moderation",
    "dropped": "sim-gpt-4o+latency=5+tps=200+drop=4",
    "dripping": "sim-gpt-4o+latency=20+tps=20+tokens=2000",
}
_MODEL = (
    "  - {{slug: {slug}, provider: sim, model: {model!r}, context_window: 128000, max_output_tokens: 16384, "
    'default_max_output_tokens: 512, prices: {{input: "1", output: "10"}}}}\n'
)
CONFIGURATION = """\
version: 1
projects:
  - {{slug: support, name: Support, default_route: chat}}
providers:
  - slug: sim
    kind: simulator
    base_url: {url}
    allow_private_network: true
    credentials: [{{name: only, secret: "plain:any"}}]
models:
{models}
  - {{slug: embed, provider: sim, model: sim-embed-small, context_window: 8192, max_output_tokens: 0, default_max_output_tokens: 0, prices: {{input: "1"}}}}
  - {{slug: drawing, provider: sim, model: sim-image+instant, context_window: 32000, max_output_tokens: 0, default_max_output_tokens: 0, prices: {{input: "5", image_output: "40"}}}}
  - {{slug: voice, provider: sim, model: sim-tts+instant, context_window: 32000, max_output_tokens: 0, default_max_output_tokens: 0, prices: {{characters: "15"}}}}
  - {{slug: ear, provider: sim, model: sim-whisper+instant, context_window: 32000, max_output_tokens: 0, default_max_output_tokens: 0, prices: {{seconds: "100"}}}}
routes:
  - {{slug: chat, targets: [{{model: plain}}]}}
budgets:
  - {{name: month, scope: "project:support", limit_usd: "1000.00", period: month, hard: true}}
service_keys:
  - {{name: all, project: support, secret: "plain:{key}", routes: ["*"], models: ["*"], concurrency: 64}}
"""
#: A program that takes longer hangs.
PROGRAM_S = 100


@pytest.fixture(scope="module")
def url(module_installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("simulator")) as simulator:
        models = "".join(_MODEL.format(slug=slug, model=model) for slug, model in MODELS.items())
        text = CONFIGURATION.format(url=simulator.url, models=models, key=KEY)
        module_installation.manage("apply", "-f", "-", stdin=text)
        port = module_installation.free_port()
        gateway = start_gateway(module_installation, port)
        module_installation.wait_ready(f"http://127.0.0.1:{port}/readyz", gateway)
        yield f"http://127.0.0.1:{port}/v1"


def checked(command: Sequence[str], url: str) -> list[str]:
    """Run a program; its checks by name. Fails with what each failed check said."""
    env = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "OPENAI_BASE_URL": url,
        "OPENAI_API_KEY": KEY,
        # Nobody is told about a test.
        "LANGSMITH_TRACING": "false",
        "OPENAI_AGENTS_DISABLE_TRACING": "1",
        "OTEL_SDK_DISABLED": "true",
        "NO_PROXY": "*",
    }
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PROGRAM_S)
    except subprocess.TimeoutExpired as late:
        pytest.fail(
            f"{command[-1]} was not done after {PROGRAM_S} s:\n{late.stdout}\n{late.stderr}", pytrace=False
        )
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"check"')]
    if done.returncode or not found:
        pytest.fail(
            f"{command[-1]} ended with status {done.returncode}:\n{done.stdout}{done.stderr}", pytrace=False
        )
    if wrong := [f"{one['check']}: {one['said']}" for one in found if one["said"]]:
        pytest.fail("\n".join(wrong), pytrace=False)
    return [one["check"] for one in found]


USUAL = {"chat", "stream", "tool_call", "structured_output", "errors"}


# Installing on the first run counts as well.
@pytest.mark.timeout(600)
def test_the_official_node_sdk(url: str) -> None:
    assert {
        *USUAL,
        "responses",
        "embeddings",
        "models",
        "moderations",
        "files",
        "images",
        "sounds",
        "broken_stream",
        "aborted",
    } <= {*checked(node_program("smoke.mjs"), url)}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("library", ["langchain_openai", "pydantic_ai", "openai_agents"])
def test_a_library_on_top_of_the_sdk(url: str, library: str) -> None:
    program = PROGRAMS / f"{library}_smoke.py"
    passed = {*checked([str(python()), str(program), "chat", "responses"], url)}
    assert passed >= {f"{over}.{check}" for over in ("chat", "responses") for check in USUAL}


def test_lock_files_hold_no_address() -> None:
    here = PROGRAMS.parent
    assert "resolved" not in (here / "node" / "package-lock.json").read_text()
    for line in (here / "requirements.lock").read_text().splitlines():
        assert "://" not in line
        assert not line.startswith("-")
