"""Two data planes as they run in production, processes of their own: what one learns of a provider the other knows, over
Redis where there is one, and policies hold for the official SDK at both. On PostgreSQL they have a Redis, on SQLite none."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from tests.gateway.responding import a_response, used
from tests.gateway.rig import DONE, Asked, Reply, Upstream, chunk, completion, fails, usage_chunk
from tests.installation import Installation, Process

#: The second is of a project that no other test calls for, so that its budget holds what that test spent.
KEY = "llmops_twoplane_0123456789abcdefghijklmnopqrstuvwxyz"
APART = "llmops_apartkey_0123456789abcdefghijklmnopqrstuvwxyz"
COOLDOWN_S = 2
CONFIGURATION = """\
version: 1
projects: [{{slug: support, name: Support}}, {{slug: apart, name: Apart}}]
providers:
  - slug: up
    kind: compatible
    base_url: {url}
    allow_private_network: true
    credentials: [{{name: only, secret: "plain:any-provider-key"}}]
models:
  - {{slug: small, provider: up, model: small-2024-01-01, context_window: 128000, max_output_tokens: 16384, default_max_output_tokens: 64, prices: {{input: "1", output: "10"}}}}
policies:
  - slug: words
    checks:
      - {{kind: personal_data, stage: before, action: redact, settings: {{kinds: [email], reversible: true}}}}
      - {{kind: deny, stage: after, action: block, settings: {{rules: [{{name: competitors, words: [{word}, Globex]}}]}}}}
routes:
  - {{slug: shared, targets: [{{model: small}}], retry: {{attempts: 1}}, breaker: {{failure_rate: 0.5, window: 60, min_calls: 4, cooldown: {cooldown}}}}}
  - {{slug: orphaned, targets: [{{model: small}}], retry: {{attempts: 1}}, breaker: {{failure_rate: 0.5, window: 60, min_calls: 4, cooldown: {cooldown}}}}}
  - {{slug: background, targets: [{{model: small}}], retry: {{attempts: 1}}}}
  - {{slug: watched, targets: [{{model: small}}], policies: [words], retry: {{attempts: 1}}}}
  - {{slug: told, targets: [{{model: small}}], policies: [words], retry: {{attempts: 1}}}}
budgets:
  - {{name: support-month, scope: "project:support", limit_usd: "50.00", period: month, hard: true}}
  - {{name: apart-month, scope: "project:apart", limit_usd: "50.00", period: month, hard: true}}
service_keys:
  - {{name: all, project: support, secret: "plain:{key}", routes: ["*"]}}
  - {{name: apart, project: apart, secret: "plain:{apart}", routes: ["*"]}}
"""


class Provider:
    """An upstream on a loop of its own, which the test tells what to do."""

    def __init__(self) -> None:
        self.upstream = Upstream()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(
            target=self._loop.run_until_complete, args=(self._serve(),), daemon=True
        )

    async def _serve(self) -> None:
        async with self.upstream.serving():
            self._started.set()
            await self._stop.wait()

    def start(self) -> None:
        self._thread.start()
        assert self._started.wait(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    @property
    def asked(self) -> int:
        return len(self.upstream.asked)


class Stack:
    """One for all tests of this file, each of which has a route of its own, and with it breakers of its own."""

    def __init__(self, installation: Installation, provider: Provider) -> None:
        self.installation = installation
        self.provider = provider
        self.apply()
        installation.start_booking()
        self.ports = [installation.free_port() for _ in range(2)]
        self.planes: list[Process] = [self.start(port) for port in self.ports]
        self.be_whole()

    def be_whole(self) -> None:
        """Both data planes run, also when a test has killed one."""
        for number, plane in enumerate(self.planes):
            if plane.returncode is not None:
                self.planes[number] = self.start(self.ports[number])
        for port, plane in zip(self.ports, self.planes, strict=True):
            self.installation.wait_ready(f"http://127.0.0.1:{port}/readyz", plane)

    @property
    def shared(self) -> bool:
        return bool(self.installation.env.get("REDIS_URL"))

    def start(self, port: int) -> Process:
        command = ["granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", str(port), "--loop", "uvloop",
                   "--no-ws", "--log-level", "warning", "console.asgi_gateway:application"]  # fmt: skip
        return self.installation.spawn(command, name="plane")

    def apply(self, word: str = "Acme") -> None:
        text = CONFIGURATION.format(
            url=self.provider.upstream.url, key=KEY, apart=APART, word=word, cooldown=COOLDOWN_S
        )
        self.installation.manage("apply", "-f", "-", stdin=text)

    def client(self, plane: int, key: str = KEY) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"http://127.0.0.1:{self.ports[plane]}/v1", api_key=key, max_retries=0, timeout=30
        )

    def ask(self, plane: int, route: str = "shared", text: str = "hi") -> str:
        """The answer's text, or the code of its error."""
        try:
            answer = self.client(plane).chat.completions.create(
                model=route, messages=[{"role": "user", "content": text}]
            )
        except openai.APIStatusError as error:
            return str(error.code)
        return answer.choices[0].message.content or ""


@pytest.fixture(scope="module")
def started(module_installation: Installation) -> Iterator[Stack]:
    provider = Provider()
    provider.start()
    try:
        yield Stack(module_installation, provider)
    finally:
        provider.stop()


@pytest.fixture
def stack(started: Stack) -> Stack:
    started.be_whole()
    return started


def eventually(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def says(text: str) -> Any:
    async def script(asked: Asked, reply: Reply) -> None:
        await reply.json(completion(text))

    return script


class Waits:
    """Answers when it is told to; a probe that takes its time."""

    def __init__(self) -> None:
        self.go_on = threading.Event()

    async def __call__(self, asked: Asked, reply: Reply) -> None:
        while not self.go_on.is_set():
            await asyncio.sleep(0.01)
        await reply.json(completion("well again"))


class Halts:
    """Streams ``before``, and ``after`` when it is told to."""

    def __init__(self, before: Sequence[bytes], after: Sequence[bytes]) -> None:
        self.before, self.after = before, after
        self.go_on = threading.Event()

    async def __call__(self, asked: Asked, reply: Reply) -> None:
        await reply.events(*self.before, end=False)
        while not self.go_on.is_set():
            await asyncio.sleep(0.01)
        for piece in self.after:
            await reply.chunk(piece)
        await reply.raw(b"0\r\n\r\n")


def open_at_the_first(stack: Stack, route: str = "shared") -> None:
    stack.provider.upstream.does(fails(500))
    assert [stack.ask(0, route) for _ in range(4)] == ["upstream_error"] * 4
    assert stack.ask(0, route) == "circuit_open"


def test_what_one_process_learns_of_a_provider_the_other_knows(stack: Stack) -> None:
    open_at_the_first(stack)
    asked = stack.provider.asked
    if not stack.shared:
        assert stack.ask(1) == "upstream_error", "each for itself"
        return
    # Told within a second; until then the other may still find out by itself.
    eventually(lambda: stack.ask(1) == "circuit_open", 5)

    def left_alone() -> bool:
        asked = stack.provider.asked
        refused = [stack.ask(plane) for plane in (0, 1, 1, 0)] == ["circuit_open"] * 4
        return refused and stack.provider.asked == asked

    # Where the cool-down ends in between, a probe fails and opens it anew.
    eventually(left_alone)
    asked = stack.provider.asked
    probe = Waits()
    stack.provider.upstream.does(probe)
    with ThreadPoolExecutor(max_workers=8) as pool:
        # After the cool-down one of all calls at both processes is the probe; the others are refused meanwhile.
        first = pool.submit(self_probing, stack)
        eventually(lambda: stack.provider.asked == asked + 1)
        others = list(pool.map(stack.ask, [0, 1, 0, 1]))
        assert others == ["circuit_open"] * 4
        assert stack.provider.asked == asked + 1
        probe.go_on.set()
        assert first.result() == "well again"
    for plane in (0, 1):
        eventually(lambda plane=plane: stack.ask(plane) == "well again")  # type: ignore[misc]


def self_probing(stack: Stack, route: str = "shared") -> str:
    """Ask until a call goes to the provider again; its answer."""
    deadline = time.monotonic() + 60
    while (said := stack.ask(0, route)) == "circuit_open":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return said


def test_a_process_that_is_killed_while_it_probes_does_not_keep_the_provider_from_the_others(
    stack: Stack,
) -> None:
    route = "orphaned"
    open_at_the_first(stack, route)
    if not stack.shared:
        stack.planes[0].kill()
        stack.provider.upstream.does(says("hello"))
        assert stack.ask(1, route) == "hello"
        return
    eventually(lambda: stack.ask(1, route) == "circuit_open", 5)
    asked = stack.provider.asked
    probe = Waits()
    stack.provider.upstream.does(probe)
    with ThreadPoolExecutor(max_workers=1) as pool:
        dead = pool.submit(lambda: suppressed(stack, route))
        eventually(lambda: stack.provider.asked == asked + 1)
        stack.planes[0].kill()
        dead.result()
    probe.go_on.set()
    stack.provider.upstream.does(says("hello"))
    eventually(lambda: stack.ask(1, route) == "hello", 30)


def suppressed(stack: Stack, route: str) -> str:
    try:
        return self_probing(stack, route)
    except openai.APIConnectionError:
        return "cut"


@pytest.mark.any_engine
def test_policies_hold_for_the_sdk_at_both_processes_plain_and_streamed(stack: Stack) -> None:
    upstream = stack.provider.upstream
    for plane in (0, 1):
        upstream.does(says("Write to [EMAIL_1], not to anybody else."))
        assert stack.ask(plane, "watched", "Mail a@b.example") == "Write to a@b.example, not to anybody else."
        assert "a@b.example" not in upstream.asked[-1].body.decode()
        upstream.does(says("Better ask Acme."))
        assert stack.ask(plane, "watched") == "policy_blocked"
        fine = map(chunk, ["Fine words, one after the other. "] * 60)
        better = (*map(chunk, ("But ", "Ac", "me", " is better")), chunk(finish="stop"), usage_chunk(), DONE)
        # What comes at once is refused at once, with nothing of it shown: the rest waits for the first to be seen.
        halted = Halts(before=[*fine], after=better)
        upstream.does(halted)
        seen = ""
        with pytest.raises(openai.APIError, match="competitors"):
            for one in stack.client(plane).chat.completions.create(
                model="watched", messages=[{"role": "user", "content": "hi"}], stream=True
            ):
                seen += "".join(choice.delta.content or "" for choice in one.choices)
                halted.go_on.set()
        assert seen.startswith("Fine words") and "Ac" not in seen
    # A new version holds at both within a second, for calls that come then.
    stack.apply(word="Initech")
    upstream.does(says("Better ask Acme."))
    for plane in (0, 1):
        eventually(lambda plane=plane: stack.ask(plane, "watched") == "Better ask Acme.", 5)  # type: ignore[misc]
    upstream.does(says("Better ask Initech."))
    assert [stack.ask(plane, "watched") for plane in (0, 1)] == ["policy_blocked"] * 2


def background(state: dict[str, Any]) -> Any:
    async def script(asked: Asked, reply: Reply) -> None:
        await reply.json(a_response(**state))

    return script


def test_a_background_response_outlives_the_process_that_followed_it(stack: Stack) -> None:
    """Held under a hard budget, the follower killed, booked as unknown at its hold; another process asks how it ended."""
    upstream, installation = stack.provider.upstream, stack.installation
    upstream.does(background({"status": "in_progress", "output": [], "usage": None}))
    before = stack.provider.asked
    response = stack.client(0, APART).responses.create(
        model="background", input="think hard", background=True, max_output_tokens=1_000
    )
    assert response.status == "in_progress"
    eventually(lambda: stack.provider.asked > before + 1)
    stack.planes[0].kill()

    def money() -> tuple[str, int, int]:
        [(status, cost)] = installation.rows(
            "SELECT status, cost_nano FROM usage_call WHERE route = 'background'"
        ) or [("", 0)]
        [(settled,)] = installation.rows(
            "SELECT settled_nano FROM budgets_window JOIN budgets_budget ON budgets_budget.id = budget_id "
            "WHERE slug = 'apart-month'"
        )
        return status, cost, settled

    eventually(lambda: money()[0] == "unknown", 60)
    _, hold, settled = money()
    assert settled == hold > 1_000 * 10_000
    upstream.does(background({"status": "completed", "usage": used(10, 500)}))
    due = "from llmops.usage.models import *; from django.utils.timezone import now; KeptObject.objects.update(due_at=now())"
    installation.manage("shell", "-v", "0", "-c", due)
    cost = 10 * 1_000 + 500 * 10_000
    eventually(lambda: money() == ("unknown", cost, cost), 30)
    asked = stack.provider.asked
    time.sleep(4)
    assert stack.provider.asked == asked, "nobody looks again"
    assert money() == ("unknown", cost, cost)


def test_verdicts_of_both_are_in_the_calls_stories(stack: Stack) -> None:
    stack.provider.upstream.does(says("Better ask Globex."))
    assert [stack.ask(plane, "told") for plane in (0, 1)] == ["policy_blocked"] * 2
    stack.installation.wait_booked()
    rows = stack.installation.rows(
        "SELECT error_code, verdicts, cost_nano FROM usage_call WHERE route = 'told'"
    )
    assert len(rows) == 2
    for code, verdicts, cost in rows:
        told = json.loads(verdicts) if isinstance(verdicts, str) else verdicts
        assert code == "policy_blocked" and cost > 0
        assert [(one["policy"], one["check"], one["action"]) for one in told] == [("words", "deny", "block")]
