"""``python -m llmops.simulator``: serve until SIGTERM or SIGINT. One process, one event loop."""

from __future__ import annotations

import argparse
import asyncio
import errno
import gc
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server

from llmops.simulator import counting
from llmops.simulator.app import Simulator
from llmops.simulator.ledger import Ledger

_GRACE = 1.0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m llmops.simulator",
        description="An OpenAI-compatible provider for demo, tests and benchmarks. No model is behind it.",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8099, help="0 takes a free one; the ready line names it")
    parser.add_argument("--ledger", type=Path, help="append one JSON line for each request to this file")
    parser.add_argument(
        "--keep", type=int, default=10_000, help="records that stay readable at /simulator/ledger"
    )
    parser.add_argument("--keys", help="accept these API keys only (separated by commas)")
    parser.add_argument(
        "--any-model", action="store_true", help="also serve names that do not begin with 'sim-'"
    )
    parser.add_argument(
        "--estimate-tokens",
        action="store_true",
        help="count prompts by words, right for plain English, without the 45 MB of the tokenizer",
    )
    return parser.parse_args()


def _port(host: str, port: int) -> int:
    """The port to listen on, tried first: granian would answer a taken one with a traceback."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = "is taken" if error.errno == errno.EADDRINUSE else f"can not be used ({error.strerror})"
            sys.exit(f"Port {port} on {host} {reason}: choose another one with --port.")
        return int(probe.getsockname()[1])


async def _serve(simulator: Simulator, host: str, port: int) -> None:
    server = Server(
        simulator,
        host,
        port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        websockets=False,
        backlog=4096,
        backpressure=8192,
        log_enabled=False,
    )
    loop = asyncio.get_running_loop()
    asked_to_stop = asyncio.Event()
    for signal_ in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_, asked_to_stop.set)
    served = asyncio.create_task(server.serve())
    await _listening(host, port)
    sys.stdout.write(f"simulator ready on http://{host}:{port}/v1 (answers are simulated)\n")
    sys.stdout.flush()
    # What is loaded by now stays: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    await asked_to_stop.wait()
    server.stop()
    # Answers that take longer (some never end) are cancelled with the loop's other tasks, and recorded as dropped.
    _, unfinished = await asyncio.wait({served}, timeout=_GRACE)
    if unfinished:
        # Granian then sets the result of a future that was cancelled, which is of no interest to anyone.
        loop.set_exception_handler(lambda loop, context: None)


async def _listening(host: str, port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            await asyncio.sleep(0.01)
        else:
            writer.close()
            return


def _fastest_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop, which there is everywhere but on Windows."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def main() -> None:
    given = _arguments()
    port = _port(given.host, given.port)
    try:
        ledger = Ledger(given.ledger, keep=given.keep)
    except OSError as error:
        sys.exit(
            f"The ledger {given.ledger} can not be written ({error.strerror}): name another file with --ledger."
        )
    keys = [key.strip() for key in given.keys.split(",") if key.strip()] if given.keys is not None else None
    if given.estimate_tokens:
        counting.estimate()
    simulator = Simulator(ledger=ledger, keys=keys, any_model=given.any_model)
    with asyncio.Runner(loop_factory=_fastest_loop()) as runner:
        runner.run(_serve(simulator, given.host, port))


if __name__ == "__main__":
    main()
