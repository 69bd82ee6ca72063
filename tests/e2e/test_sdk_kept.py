"""Files, batches and stored chats through a running data plane, with the official SDK: sync, async, large, and cut off."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import os
import time
from collections.abc import Iterator
from typing import Any

import openai
import psutil
import pytest

from tests.e2e.test_sdk import start_gateway, wait_for
from tests.installation import Installation, Process
from tests.simulator.running import RunningSimulator, running

MINE, THEIRS = (f"llmops_keptke0{n}_" + "s" * 40 for n in range(2))
ASK: list[Any] = [{"role": "user", "content": "How much did support spend in May?"}]
MODEL = "sim-gpt-4o+instant"
SIZE = 100 * 1024 * 1024
#: What 100 MB may add to a process that holds none of it: buffers of connections, and room for the allocator.
SLACK = 48 * 1024 * 1024
CONFIGURATION = """\
version: 1
projects: [{{slug: support, name: Support}}, {{slug: sales, name: Sales}}]
providers:
  - slug: sim
    kind: simulator
    base_url: {url}
    allow_private_network: true
    credentials: [{{name: only, secret: "plain:simulated"}}]
models:
  - {{slug: plain, provider: sim, model: {model!r}, context_window: 128000, max_output_tokens: 16384, default_max_output_tokens: 512, prices: {{input: "1", output: "10", batch_input: "0.5", batch_output: "5"}}}}
service_keys:
  - {{name: mine, project: support, secret: "plain:{mine}", routes: ["*"], models: ["*"]}}
  - {{name: theirs, project: sales, secret: "plain:{theirs}", routes: ["*"], models: ["*"]}}
"""


class Stack:
    """Two data planes over one simulator, and an ingester."""

    def __init__(self, installation: Installation, simulator: RunningSimulator) -> None:
        self.installation = installation
        self.simulator = simulator
        self.ports = [installation.free_port() for _ in range(2)]
        self.planes: list[Process] = []
        for plane in range(2):
            self.start(plane)

    def start(self, plane: int) -> None:
        """Start a data plane, or start it anew."""
        port = self.ports[plane]
        started = start_gateway(self.installation, port)
        self.planes[plane : plane + 1] = [started]
        self.installation.wait_ready(f"http://127.0.0.1:{port}/readyz", started)

    def client(self, key: str = MINE, plane: int = 0, **given: Any) -> openai.OpenAI:
        url = f"http://127.0.0.1:{self.ports[plane]}/v1"
        return openai.OpenAI(api_key=key, base_url=url, **({"max_retries": 0, "timeout": 60} | given))

    def aclient(self) -> openai.AsyncOpenAI:
        url = f"http://127.0.0.1:{self.ports[0]}/v1"
        return openai.AsyncOpenAI(api_key=MINE, base_url=url, max_retries=0, timeout=60)

    def memory(self, plane: int = 0) -> int:
        """Resident bytes of a data plane and its workers."""
        first = psutil.Process(self.planes[plane].pid)
        return sum(one.memory_info().rss for one in (first, *first.children(recursive=True)))

    def calls(self, endpoint: str) -> list[tuple[Any, ...]]:
        return self.installation.rows(
            f"SELECT status, http_status, cost_nano, input_tokens, output_tokens FROM usage_call WHERE endpoint = '{endpoint}'"
        )


@pytest.fixture(scope="module")
def stack(module_installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(tmp_path_factory.mktemp("simulator")) as simulator:
        text = CONFIGURATION.format(url=simulator.url, model=MODEL, mine=MINE, theirs=THEIRS)
        module_installation.manage("apply", "-f", "-", stdin=text)
        module_installation.start_booking()
        yield Stack(module_installation, simulator)


def line(number: int, model: str = MODEL) -> bytes:
    body = {"model": model, "messages": ASK}
    asked = {"custom_id": f"c-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(asked).encode() + b"\n"


def test_a_file_is_its_projects_on_every_data_plane(stack: Stack) -> None:
    content = os.urandom(200_000)
    file = stack.client().files.create(file=("a.bin", content), purpose="user_data")
    # Made on one, read on the other a moment later: its journal may not be booked yet.
    other = stack.client(plane=1)
    assert other.files.retrieve(file.id).bytes == len(content)
    assert other.files.content(file.id).read() == content
    assert file.id in [one.id for one in other.files.list(limit=2)]
    stranger = stack.client(THEIRS)
    for attempt in (stranger.files.retrieve, stranger.files.content, stranger.files.delete):
        with pytest.raises(openai.NotFoundError):
            attempt(file.id)
    assert list(stranger.files.list()) == []
    assert other.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        other.files.retrieve(file.id)


@pytest.mark.parametrize("stream", [False, True])
def test_an_item_of_a_response_is_its_projects_on_every_data_plane(stack: Stack, stream: bool) -> None:
    client = stack.client()
    asked: dict[str, Any] = {"model": "plain", "input": "remember this"}
    if stream:
        with client.responses.stream(**asked) as events:
            response = events.get_final_response()
    else:
        response = client.responses.create(**asked)
    named: Any = [
        {"type": "item_reference", "id": response.output[0].id},
        {"role": "user", "content": "and now?"},
    ]
    # Relayed by one, named at the other a moment later: its journal may not be booked yet.
    for one in (client, stack.client(plane=1)):
        assert one.responses.create(model="plain", input=named).status == "completed"
    for plane in (0, 1):
        with pytest.raises(openai.NotFoundError, match="this project has no item"):
            stack.client(THEIRS, plane=plane).responses.create(model="plain", input=named)


@pytest.mark.parametrize("stream", [False, True])
def test_a_stored_chat_is_its_projects(stack: Stack, stream: bool) -> None:
    asked: dict[str, Any] = {"model": "plain", "messages": ASK, "store": True, "metadata": {"a": "b"}}
    client = stack.client()
    if stream:
        name = list(client.chat.completions.create(stream=True, **asked))[-1].id
    else:
        name = client.chat.completions.create(**asked).id
    other = stack.client(plane=1)
    assert other.chat.completions.retrieve(name).id == name
    changed: Any = other.chat.completions.update(name, metadata={"c": "d"})
    assert changed.metadata == {"c": "d"}
    assert [one.content for one in other.chat.completions.messages.list(name)] == [ASK[0]["content"]]
    assert name in [one.id for one in other.chat.completions.list()]
    stranger = stack.client(THEIRS)
    with pytest.raises(openai.NotFoundError):
        stranger.chat.completions.retrieve(name)
    assert list(stranger.chat.completions.list()) == []
    assert other.chat.completions.delete(name).deleted


def test_a_batch_runs_and_is_counted_once(stack: Stack) -> None:
    client = stack.client()
    source = client.files.create(file=("in.jsonl", line(1) + line(2)), purpose="batch")
    batch = client.batches.create(
        input_file_id=source.id, endpoint="/v1/chat/completions", completion_window="24h",
        metadata={"simulator_seconds": "0.1"},
    )  # fmt: skip
    with pytest.raises(openai.NotFoundError):
        stack.client(THEIRS).batches.retrieve(batch.id)
    other = stack.client(plane=1)
    wait_for(lambda: other.batches.retrieve(batch.id).status == "completed")
    done = other.batches.retrieve(batch.id)
    answers = [json.loads(one) for one in other.files.content(str(done.output_file_id)).text.splitlines()]
    used = [one["response"]["body"]["usage"] for one in answers]
    asked = sum(one["prompt_tokens"] for one in used)
    answered = sum(one["completion_tokens"] for one in used)
    wait_for(lambda: bool(stack.calls("batches.usage")), seconds=60)
    time.sleep(1)
    assert stack.calls("batches.usage") == [("ok", 200, asked * 500 + answered * 5_000, asked, answered)]
    assert batch.id in [one.id for one in client.batches.list()]
    with pytest.raises(openai.BadRequestError, match="line 1"):
        wrong = client.files.create(file=("in.jsonl", line(1, "sim-other")), purpose="batch")
        client.batches.create(
            input_file_id=wrong.id, endpoint="/v1/chat/completions", completion_window="24h"
        )


@pytest.mark.any_engine
async def test_the_async_client_does_all_of_it(stack: Stack) -> None:
    async with stack.aclient() as client:
        made = await asyncio.gather(
            *(client.files.create(file=(f"{n}", b"x" * n), purpose="vision") for n in range(1, 9))
        )
        found = [one.id async for one in client.files.list(purpose="vision", limit=3)]
        assert set(found) == {one.id for one in made}
        assert len(found) == len(made)
        for size, one in enumerate(made, 1):
            assert len((await client.files.content(one.id)).content) == size
        gone = await asyncio.gather(*(client.files.delete(one.id) for one in made))
        assert all(one.deleted for one in gone)


class Zeros(io.RawIOBase):
    """100 MB that nobody holds."""

    def __init__(self) -> None:
        self.left = SIZE

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), self.left, 65_536)
        buffer[:count] = bytes(count)
        self.left -= count
        return count


@pytest.mark.any_engine
def test_100_megabytes_go_up_and_down_and_none_of_it_stays(stack: Stack) -> None:
    port = stack.ports[0]
    head = b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n--b\r\ncontent-disposition: form-data; name="file"; filename="z"\r\n\r\n'
    tail = b"\r\n--b--\r\n"
    before = stack.memory()
    most = before
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.putrequest("POST", "/v1/files")
    connection.putheader("authorization", f"Bearer {MINE}")
    connection.putheader("content-type", "multipart/form-data; boundary=b")
    connection.putheader("content-length", str(len(head) + SIZE + len(tail)))
    connection.endheaders()
    connection.send(head)
    source = Zeros()
    for number in range(SIZE // 65_536):
        connection.send(source.read(65_536) or b"")
        if number % 100 == 0:
            most = max(most, stack.memory())
    connection.send(tail)
    answer = json.load(connection.getresponse())
    assert answer["bytes"] == SIZE
    most = max(most, stack.memory())
    connection.request(
        "GET", f"/v1/files/{answer['id']}/content", headers={"authorization": f"Bearer {MINE}"}
    )
    response = connection.getresponse()
    assert response.getheader("content-length") == str(SIZE)
    got = 0
    while piece := response.read(65_536):
        got += len(piece)
        if got % (100 * 65_536) < 65_536:
            # A slow reader: what it does not take must wait at the provider, not here.
            time.sleep(0.02)
            most = max(most, stack.memory())
    assert got == SIZE
    assert most - before < SLACK, f"{(most - before) >> 20} MB more"
    connection.close()


@pytest.mark.any_engine
def test_a_download_that_breaks_off_is_a_broken_connection(stack: Stack) -> None:
    client = stack.client()
    # More than a connection takes before its reader does: some of it went out when it breaks off.
    file = client.files.create(file=("a.bin", b"x" * 3_000_000), purpose="user_data")
    connection = http.client.HTTPConnection("127.0.0.1", stack.ports[0], timeout=30)
    headers = {"authorization": f"Bearer {MINE}", "x-simulator": "drop=30"}
    connection.request("GET", f"/v1/files/{file.id}/content", headers=headers)
    response = connection.getresponse()
    assert response.status == 200, response.read()
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        response.read()
    with pytest.raises(openai.APIConnectionError):
        client.files.content(file.id, extra_headers={"x-simulator": "drop=30"}).read()
    wait_for(lambda: ("interrupted", 200, 0, 0, 0) in stack.calls("files.content"))


@pytest.mark.any_engine
def test_who_hangs_up_in_the_middle_of_an_upload_leaves_nothing(stack: Stack) -> None:
    before = len(list(stack.client().files.list()))
    connection = http.client.HTTPConnection("127.0.0.1", stack.ports[0], timeout=30)
    connection.putrequest("POST", "/v1/files")
    connection.putheader("authorization", f"Bearer {MINE}")
    connection.putheader("content-type", "multipart/form-data; boundary=b")
    connection.putheader("content-length", "1000000")
    connection.endheaders()
    connection.send(b"--b\r\n" + b"x" * 100_000)
    time.sleep(0.3)
    connection.close()
    wait_for(lambda: any(row[0] == "client_closed" for row in stack.calls("files.create")))
    assert len(list(stack.client().files.list())) == before


def test_a_data_plane_that_is_killed_loses_no_batch_and_doubles_none(stack: Stack) -> None:
    """Against the simulator's own truth: the usage in the outputs."""
    before = len(stack.calls("batches.usage"))
    client = stack.client(plane=1)
    source = client.files.create(file=("in.jsonl", line(1) + line(2) + line(3)), purpose="batch")
    made = [
        client.batches.create(
            input_file_id=source.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={"simulator_seconds": "0.1"},
        ).id
        for _ in range(12)
    ]
    # Some are counted when the process dies, some are claimed, some were never looked at.
    wait_for(lambda: len(stack.calls("batches.usage")) > before, seconds=60)
    stack.planes[0].kill()
    stack.start(0)
    released = "from llmops.usage.models import KeptObject as K; K.objects.exclude(claimed_until=None).update(claimed_until=None)"
    time.sleep(1)
    stack.installation.manage("shell", "-c", released)
    wait_for(lambda: len(stack.calls("batches.usage")) >= before + len(made), seconds=90)
    time.sleep(2)
    calls = stack.calls("batches.usage")
    assert len(calls) == before + len(made)
    for name in made:
        batch = client.batches.retrieve(name)
        answers = client.files.content(str(batch.output_file_id)).text.splitlines()
        used = [json.loads(one)["response"]["body"]["usage"] for one in answers]
        asked, answered = (sum(one[kind] for one in used) for kind in ("prompt_tokens", "completion_tokens"))
        calls.remove(("ok", 200, asked * 500 + answered * 5_000, asked, answered))
    assert len(calls) == before
