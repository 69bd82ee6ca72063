"""Other gateways beside ours over the same upstream, one process each: requests/s at 64 in flight.

They are installed for the time of the benchmark, as their makers publish them, into its temporary directory: LiteLLM's proxy
with pip, Portkey's gateway with npm. What cannot be installed or does not start is said in place of its figures. Ours runs with
key, limits, hard budget, policy and journal; theirs as they come, with the provider configured and nothing else.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import compare, load
from benchmarks.compare import Comparison, Side, alternate
from benchmarks.failure import BenchmarkFailed
from benchmarks.installation import ROUTE, UPSTREAM_MODELS
from benchmarks.planes import NOT_PINNED, PINNED, Planes, planes
from benchmarks.processes import Started, plain_environment, wait_for
from benchmarks.report import Bar, Options, Section, Table
from benchmarks.upstream import MARK
from tests.servers import free_port

ROUNDS = 3
SECONDS = 4.0
IN_FLIGHT = 64
#: LiteLLM's proxy is some hundred packages.
_INSTALL_S = 900
_LITELLM_KEY = "sk-bench-of-the-console"


@dataclass(frozen=True)
class _Peer:
    name: str
    asked: float
    start: Callable[[Planes, Path], Side]


class _Absent(Exception):
    """It cannot be measured here; the text says why."""


def run(options: Options) -> Section:
    rounds, seconds = options.rounds or ROUNDS, options.seconds or SECONDS
    found: dict[str, Comparison] = {}
    absent: dict[str, str] = {}
    peers = (_Peer("Portkey", 3.0, _portkey), _Peer("LiteLLM", 40.0, _litellm))
    with planes(ROUTE) as both:
        both.gateway.run(in_flight=IN_FLIGHT, seconds=1)
        elsewhere = 0
        for peer in peers:
            directory = both.stage.directory / peer.name
            directory.mkdir()
            try:
                side = peer.start(both, directory)
                side.run(in_flight=IN_FLIGHT, seconds=5)
                found[peer.name] = alternate(
                    side, both.gateway, in_flight=IN_FLIGHT, rounds=rounds, seconds=seconds
                )
                side.server.stop()
            except (_Absent, BenchmarkFailed) as problem:
                absent[peer.name] = str(problem)
                print(f"{peer.name} is not measured: {problem}", file=sys.stderr, flush=True)
                continue
            elsewhere += side.sent
        if not absent:
            both.relay.sent = elsewhere
            both.must_add_up()
    if not found:
        raise BenchmarkFailed("none of the others could be measured: " + "; ".join(absent.values()))
    ratios = {name: comparison.ratio(compare.per_second) for name, comparison in found.items()}
    rows = [
        [
            name,
            f"{compare.median(comparison.yardstick, compare.per_second):,.0f}",
            f"{compare.median(comparison.measured, compare.per_second):,.0f}",
            f"{ratios[name]:.1f}",
            f"{compare.median(comparison.yardstick, compare.p99) * 1e3:.0f}",
            f"{compare.median(comparison.measured, compare.p99) * 1e3:.0f}",
        ]
        for name, comparison in found.items()
    ]
    sides = statistics.median(one.busy for comparison in found.values() for one in comparison.yardstick)
    return Section(
        "peers",
        bars=[
            Bar(
                f"requests/s of a process at {IN_FLIGHT} in flight, ours / {peer.name}",
                f">= {peer.asked:g}",
                f"{ratios[peer.name]:.1f}",
                ratios[peer.name] >= peer.asked,
            )
            for peer in peers
            if peer.name in found
        ],
        tables=[Table(["", "its requests/s", "ours beside it", "ratio", "its p99, ms", "our p99, ms"], rows)],
        notes=[
            f"Medians of {rounds} alternating rounds of {seconds:g} s over the upstream that answers at once. Ours runs with key, "
            "limits, hard budget, policy and journal; the others as they are published, with the provider configured and "
            "nothing else.",
            f"The others were busy {sides:.0%} of the time.",
            *(f"{name} was not measured: {reason.splitlines()[0]}" for name, reason in absent.items()),
            PINNED if both.pinned else NOT_PINNED,
        ],
    )


def _side(both: Planes, name: str, server: Started, port: int, key: str, headers: dict[str, str]) -> Side:
    model = ROUTE if name == "LiteLLM" else UPSTREAM_MODELS[ROUTE]
    request = load.chat_request(host="127.0.0.1", port=port, model=model, key=key, mark=MARK, headers=headers)
    return Side(name, server, request)


def _portkey(both: Planes, directory: Path) -> Side:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise _Absent("node and npm are not on this machine")
    _install(
        [npm, "install", "--no-audit", "--no-fund", "--loglevel", "error", "@portkey-ai/gateway"], directory
    )
    program = directory / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    port = free_port()
    server = both.stage.start(
        "Portkey",
        [program, f"--port={port}", "--headless"],
        # It calls inside addresses only where it is told to.
        env=plain_environment() | {"TRUSTED_CUSTOM_HOSTS": "127.0.0.1", "NODE_ENV": "production"},
        on=both.server_cores,
        program=node,
    )
    wait_for(server, f"http://127.0.0.1:{port}/", any_status=True)
    headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": f"{both.upstream_url}/v1"}
    return _side(both, "Portkey", server, port, "no-key-is-asked-for", headers)


def _litellm(both: Planes, directory: Path) -> Side:
    venv = directory / "venv"
    _install([sys.executable, "-m", "venv", str(venv)], directory)
    python = venv / "bin" / "python"
    _install(
        [str(python), "-m", "pip", "install", "--quiet", "--only-binary", ":all:", "litellm[proxy]"],
        directory,
    )
    model = {
        "model": f"openai/{UPSTREAM_MODELS[ROUTE]}",
        "api_base": f"{both.upstream_url}/v1",
        "api_key": "upstream",
    }
    configuration = directory / "config.yaml"
    # JSON is YAML.
    configuration.write_text(
        json.dumps(
            {
                "model_list": [{"model_name": ROUTE, "litellm_params": model}],
                "general_settings": {"master_key": _LITELLM_KEY},
            }
        )
    )
    port = free_port()
    server = both.stage.start(
        "LiteLLM",
        [
            venv / "bin" / "litellm",
            *("--config", configuration, "--host", "127.0.0.1", "--port", port, "--num_workers", 1),
        ],
        # Nothing is fetched, told to anybody or logged for each request.
        env=plain_environment()
        | {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_TELEMETRY": "False"},
        on=both.server_cores,
        program=python,
    )
    wait_for(server, f"http://127.0.0.1:{port}/health/liveliness")
    return _side(both, "LiteLLM", server, port, _LITELLM_KEY, {})


def _install(command: list[str], directory: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=directory, capture_output=True, text=True, timeout=_INSTALL_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise _Absent(f"{' '.join(command)} was not done after {_INSTALL_S} s") from None
    if done.returncode:
        raise _Absent(
            f"{' '.join(command)} ended with status {done.returncode}: {done.stderr.strip()[-600:]}"
        )
