"""Both planes in this one process: ``python -m console.asgi_embedded``, the web server of ``./dev run``.

granian's own command keeps a process of 30 MB beside each server to start it again, which the watcher does already.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.server.embed import Server

from console.asgi import application
from console.prepared import is_prepared
from console.process import EXIT_UNPREPARED

#: Calls under way have had their time by then (``CONSOLE_DRAIN_SECONDS``).
_STOP_WITHIN_S = 10.0


async def _serve(host: str, port: int) -> int:
    server = Server(
        application,
        host,
        port,
        interface=Interfaces.ASGI,
        http=HTTPModes.auto,
        websockets=False,
        backlog=1024,
        backpressure=10_000,
        # It warns of itself, which would be the first line of every log.
        log_level=LogLevels.error,
    )
    asked_to_stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_stop.set)
    served = asyncio.create_task(server.serve())
    stopping = asyncio.create_task(asked_to_stop.wait())
    await asyncio.wait({served, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if served.done():
        # It never ends by itself: the port is taken, or the data plane could not start.
        await served
        return 1
    server.stop()
    await asyncio.wait({served}, timeout=_STOP_WITHIN_S)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m console.asgi_embedded")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", required=True, type=int)
    given = parser.parse_args()
    if not is_prepared():
        return EXIT_UNPREPARED
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(given.host, given.port))


if __name__ == "__main__":
    sys.exit(main())
