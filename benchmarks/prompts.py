"""``python -m benchmarks.prompts``: so many large prompts a second, one after the other on a few connections.

Reads ``{"request": {arguments of load.chat_request}, "per_second": N, "seconds": S}`` from its first argument, and prints
``{"sent": N, "latencies": [seconds, sorted]}``. A process of its own: a megabyte takes a while to write, which must not delay
whoever measures the small requests.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import uvloop

from benchmarks import load
from benchmarks.http1 import message_end

#: More under way at once than this, and those that are due wait.
CONNECTIONS = 8


async def main(request: load.Request, per_second: float, seconds: float) -> list[float]:
    latencies: list[float] = []
    due: asyncio.Queue[float | None] = asyncio.Queue()

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(request.host, request.port)
        while (at := await due.get()) is not None:
            writer.write(request.data)
            await writer.drain()
            buffer = b""
            while message_end(buffer)[1] < 0:
                piece = await reader.read(65536)
                if not piece:
                    raise SystemExit("the connection was lost before the answer")
                buffer += piece
            if not buffer.startswith(b"HTTP/1.1 200 ") or request.mark not in buffer:
                raise SystemExit("not the answer of the upstream: " + buffer[:400].decode(errors="replace"))
            latencies.append(time.perf_counter() - at)
        writer.close()

    connections = [asyncio.ensure_future(connection()) for _ in range(CONNECTIONS)]
    begun = time.perf_counter()
    for number in range(int(per_second * seconds)):
        await asyncio.sleep(max(0.0, begun + number / per_second - time.perf_counter()))
        due.put_nowait(time.perf_counter())
    for _ in connections:
        due.put_nowait(None)
    await asyncio.gather(*connections)
    return sorted(latencies)


if __name__ == "__main__":
    given: dict[str, Any] = json.loads(sys.argv[1])
    wanted = load.chat_request(**given["request"] | {"mark": given["request"]["mark"].encode()})
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(main(wanted, given["per_second"], given["seconds"]))
    print(json.dumps({"sent": len(found), "latencies": found}))
