"""The official SDK, sync and async, against a running data plane: what a service that changes its base URL meets."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import openai
import pytest

from llmops.core.tokens import count_chat
from tests.installation import Installation, Process
from tests.simulator.running import RunningSimulator, running

# What the wire is like; that both engines book what is served is shown where processes are killed and budgets run out.
pytestmark = pytest.mark.any_engine

KEY, NARROW, REVOKED, POOR, SLOW = (f"llmops_e2ekey0{n}_" + "s" * 40 for n in range(5))
PROVIDER_SECRET = "the-simulator-takes-any-key-but-nobody-sees-it"
ASK: list[Any] = [{"role": "user", "content": "How much did support spend in May?"}]
_MODEL = (
    "  - {{slug: {slug}, provider: sim, model: {model!r}, context_window: 128000, max_output_tokens: 16384, "
    'default_max_output_tokens: 512, prices: {{input: "1", output: "10"}}}}\n'
)
MODELS = {
    "plain": "sim-gpt-4o+instant",
    "paced": "sim-gpt-4o+latency=20+tps=200",
    "tools": "sim-gpt-4o+instant+toolcall",
    "cached": "sim-gpt-4o+instant+cached=5",
    "broken": "sim-gpt-4o+error=500",
    "dropped": "sim-gpt-4o+latency=5+tps=200+drop=4",
    "refused": "sim-gpt-4o+error=401",
    "picky": "sim-gpt-4o+error=400",
    "flaky": "sim-gpt-4o+instant+fail=1",
    "dripping": "sim-gpt-4o+latency=20+tps=20+tokens=2000",
}
CONFIGURATION = """\
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
{models}
  - {{slug: embed, provider: sim, model: sim-embed-small, context_window: 8192, max_output_tokens: 0, default_max_output_tokens: 0, prices: {{input: "1"}}}}
routes:
  - {{slug: chat, targets: [{{model: plain}}], fallbacks: [paced]}}
  - {{slug: rescued, targets: [{{model: broken}}], fallbacks: [plain], retry: {{attempts: 2, total_timeout: 30}}}}
  - {{slug: hopeless, targets: [{{model: broken}}], retry: {{attempts: 1, total_timeout: 30}}}}
budgets:
  - {{name: support-month, scope: "project:support", limit_usd: "1000.00", period: month, hard: true}}
  - {{name: poor-feature, scope: "feature:poor", limit_usd: "0.000001", period: day, hard: true}}
service_keys:
  - {{name: all, project: support, secret: "plain:{all}", routes: ["*"], models: ["*"], concurrency: 64}}
  - {{name: narrow, project: support, secret: "plain:{narrow}", routes: [chat], models: []}}
  - {{name: slow, project: support, secret: "plain:{slow}", routes: [chat], rpm: 2}}
"""


class Stack:
    """A data plane over a simulator; ``url`` ends in /v1."""

    def __init__(
        self, installation: Installation, simulator: RunningSimulator, gateway: Process, port: int
    ) -> None:
        self.installation = installation
        self.simulator = simulator
        self.gateway = gateway
        self.url = f"http://127.0.0.1:{port}/v1"

    def client(self, key: str = KEY, **given: Any) -> openai.OpenAI:
        return openai.OpenAI(api_key=key, base_url=self.url, **({"max_retries": 0, "timeout": 30} | given))

    def aclient(self, key: str = KEY, **given: Any) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            api_key=key, base_url=self.url, **({"max_retries": 0, "timeout": 30} | given)
        )

    def calls(self) -> dict[str, dict[str, Any]]:
        """The ledger's calls by id, once everything written so far is booked."""
        self.installation.wait_booked()
        names = (
            "id",
            "status",
            "http_status",
            "error_code",
            "cost_nano",
            "input_tokens",
            "output_tokens",
            "cache",
        )
        rows = self.installation.rows(
            f"SELECT {', '.join(names)}, streamed, usage_estimated, attempt_count FROM usage_call"
        )
        found = {}
        for row in rows:
            call = dict(zip((*names, "streamed", "usage_estimated", "attempt_count"), row, strict=True))
            found[str(call["id"]).replace("-", "")] = call
        return found


def start_gateway(installation: Installation, port: int) -> Process:
    return installation.spawn(
        [
            "granian",
            *("--interface", "asgi", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
            *("--loop", "uvloop", "--no-ws", "--log-level", "warning", "console.asgi_gateway:application"),
        ]
    )


@pytest.fixture(scope="module")
def stack(module_installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(tmp_path_factory.mktemp("simulator")) as simulator:
        models = "".join(_MODEL.format(slug=slug, model=model) for slug, model in MODELS.items())
        text = CONFIGURATION.format(
            url=simulator.url, secret=PROVIDER_SECRET, models=models, all=KEY, narrow=NARROW, slow=SLOW
        )
        module_installation.manage("apply", "-f", "-", stdin=text)
        module_installation.start_booking()
        port = module_installation.free_port()
        gateway = start_gateway(module_installation, port)
        module_installation.wait_ready(f"http://127.0.0.1:{port}/readyz", gateway)
        yield Stack(module_installation, simulator, gateway, port)


def call_of(headers: Any) -> str:
    return str(headers["x-llmops-call-id"]).replace("-", "")


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


# ---------------------------------------------------------------------- answers


def test_a_chat_answer_with_its_cost_on_record(stack: Stack) -> None:
    raw = stack.client().chat.completions.with_raw_response.create(model="chat", messages=ASK)
    answer = raw.parse()
    assert answer.choices[0].message.content
    assert answer.choices[0].message.content.startswith("Simulated")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == count_chat(ASK, "sim-gpt-4o")
    assert raw.headers["x-llmops-model"] == "plain"
    assert raw.headers["x-request-id"]
    call = stack.calls()[call_of(raw.headers)]
    assert (call["status"], call["input_tokens"], call["output_tokens"]) == (
        "ok",
        answer.usage.prompt_tokens,
        answer.usage.completion_tokens,
    )
    assert call["cost_nano"] == answer.usage.prompt_tokens * 1_000 + answer.usage.completion_tokens * 10_000


def test_a_stream_is_the_same_answer_in_pieces(stack: Stack) -> None:
    client = stack.client()
    whole = client.chat.completions.create(model="plain", messages=ASK, seed=4)
    chunks = list(client.chat.completions.create(model="plain", messages=ASK, seed=4, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks)
    assert all(chunk.choices for chunk in chunks)


def test_usage_comes_with_a_stream_that_asks_for_it(stack: Stack) -> None:
    stream = stack.client().chat.completions.create(
        model="paced", messages=ASK, max_tokens=20, stream=True, stream_options={"include_usage": True}
    )
    *_, last = list(stream)
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 20
    call = stack.calls()[call_of(stream.response.headers)]
    assert (call["output_tokens"], bool(call["streamed"]), bool(call["usage_estimated"])) == (20, True, False)


def test_a_key_of_ones_own_gets_the_first_answer_again(stack: Stack) -> None:
    once = {"Idempotency-Key": str(uuid4())}
    create = stack.client().chat.completions.with_raw_response.create
    first = create(model="chat", messages=ASK, extra_headers=once)
    again = create(model="chat", messages=ASK, extra_headers=once)
    assert (again.text, again.headers["idempotent-replayed"]) == (first.text, "true")
    paid, free = (stack.calls()[call_of(one.headers)] for one in (first, again))
    assert paid["cost_nano"] > 0
    assert (free["status"], free["cost_nano"], free["cache"]) == ("ok", 0, "replayed")
    events = list(
        stack.client().chat.completions.create(
            model="plain", messages=ASK, stream=True, extra_headers={"Idempotency-Key": "s"}
        )
    )
    repeated = list(
        stack.client().chat.completions.create(
            model="plain", messages=ASK, stream=True, extra_headers={"Idempotency-Key": "s"}
        )
    )
    assert repeated == events
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        create(model="chat", messages=ASK, seed=1, extra_headers=once)
    assert (refused.value.code, refused.value.param) == ("idempotency_key_reused", "seed")


def test_ordinary_calls_of_the_sdk_send_no_idempotency_key() -> None:
    sent: list[Any] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(request.headers)
        return httpx2.Response(500, json={"error": {"message": "no"}}, headers={"retry-after-ms": "1"})

    client = openai.OpenAI(
        api_key="k",
        base_url="http://gateway/v1",
        http_client=httpx2.Client(transport=httpx2.MockTransport(answer)),
    )
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="chat", messages=ASK)
    assert len(sent) == 3
    assert not any("idempotency-key" in headers for headers in sent)


def test_tools_go_through_untouched(stack: Stack) -> None:
    tool: Any = {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather somewhere",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["c", "f"]}},
                "required": ["city", "unit"],
            },
        },
    }
    client = stack.client()
    answer = client.chat.completions.create(
        model="tools", messages=ASK, tools=[tool], tool_choice="required", parallel_tool_calls=False
    )
    assert answer.choices[0].finish_reason == "tool_calls"
    [call] = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert set(json.loads(call.function.arguments)) == {"city", "unit"}
    follow_up: list[Any] = [
        *ASK,
        answer.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "4 degrees"},
    ]
    final = client.chat.completions.create(model="tools", messages=follow_up, tools=[tool])
    assert final.choices[0].message.content


def test_embeddings_in_both_encodings(stack: Stack) -> None:
    client = stack.client()
    plain = client.embeddings.create(model="embed", input=["one", "two"], encoding_format="float")
    packed = client.embeddings.create(model="embed", input=["one", "two"])
    assert len(plain.data) == len(packed.data) == 2
    assert packed.data[1].embedding == pytest.approx(plain.data[1].embedding, abs=1e-6)
    raw = client.embeddings.with_raw_response.create(model="embed", input="one two three")
    call = stack.calls()[call_of(raw.headers)]
    assert call["cost_nano"] == raw.parse().usage.prompt_tokens * 1_000


def test_models_are_listed_as_the_key_may_use_them(stack: Stack) -> None:
    assert {"chat", "plain", "embed"} <= {model.id for model in stack.client().models.list()}
    assert [model.id for model in stack.client(NARROW).models.list()] == ["chat"]
    assert stack.client().models.retrieve("chat").id == "chat"


async def test_the_async_client_has_it_all_too(stack: Stack) -> None:
    async with stack.aclient() as client:
        answers = await asyncio.gather(
            *(client.chat.completions.create(model="chat", messages=ASK, seed=n) for n in range(20))
        )
        assert all(answer.choices[0].message.content for answer in answers)
        text = ""
        async for chunk in await client.chat.completions.create(
            model="paced", messages=ASK, max_tokens=10, stream=True
        ):
            text += chunk.choices[0].delta.content or ""
        assert text
        assert (await client.embeddings.create(model="embed", input="one")).data
        assert [model.id async for model in client.models.list()]


def test_a_fallback_answers_and_says_so(stack: Stack) -> None:
    raw = stack.client().chat.completions.with_raw_response.create(model="rescued", messages=ASK)
    assert (raw.headers["x-llmops-fallback"], raw.headers["x-llmops-model"]) == ("true", "plain")
    assert raw.headers["x-llmops-attempts"] == "2"
    assert stack.calls()[call_of(raw.headers)]["attempt_count"] == 2


def test_attribution_headers_reach_the_ledger(stack: Stack) -> None:
    raw = stack.client().chat.completions.with_raw_response.create(
        model="chat",
        messages=ASK,
        user="ada@example.com",
        extra_headers={"x-llmops-feature": "e2e", "x-llmops-tags": "a,b", "x-llmops-session": "s1"},
    )
    call = stack.calls()[call_of(raw.headers)]["id"]
    [row] = stack.installation.rows(
        f"SELECT feature, session, tags, user_digest FROM usage_call WHERE id = '{call}'"
    )
    tags = json.loads(row[2]) if isinstance(row[2], str) else row[2]
    assert (row[0], row[1], tags) == ("e2e", "s1", ["a", "b"])
    assert len(row[3]) == 16


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("key", "model", "error", "code"),
    [
        ("llmops_unknown0_" + "x" * 40, "chat", openai.AuthenticationError, "invalid_api_key"),
        (NARROW, "rescued", openai.PermissionDeniedError, "permission_denied"),
        (NARROW, "plain", openai.PermissionDeniedError, "permission_denied"),
        (KEY, "gpt-99", openai.NotFoundError, "model_not_found"),
        (KEY, "picky", openai.BadRequestError, None),
        (KEY, "hopeless", openai.InternalServerError, "upstream_error"),
        (KEY, "refused", openai.InternalServerError, "upstream_auth"),
    ],
)
def test_errors_are_the_classes_that_programmers_expect(
    stack: Stack, key: str, model: str, error: type[openai.APIStatusError], code: str | None
) -> None:
    with pytest.raises(error) as raised:
        stack.client(key).chat.completions.create(model=model, messages=ASK)
    assert raised.value.code == code
    assert raised.value.request_id
    assert PROVIDER_SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"messages": []}, "messages"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"n": 0}, "n"),
    ],
)
def test_a_bad_request_names_the_field(stack: Stack, members: dict[str, Any], param: str) -> None:
    given: dict[str, Any] = {"model": "chat", "messages": ASK} | members
    with pytest.raises(openai.BadRequestError) as raised:
        stack.client().chat.completions.create(**given)
    assert raised.value.param == param


def test_a_budget_that_is_spent_is_a_rate_limit_error_with_its_name(stack: Stack) -> None:
    with pytest.raises(openai.RateLimitError) as raised:
        stack.client(max_retries=2).chat.completions.create(
            model="chat", messages=ASK, extra_headers={"x-llmops-feature": "poor"}
        )
    assert (raised.value.code, raised.value.type) == ("insufficient_quota", "insufficient_quota")
    assert "poor-feature" in str(raised.value)
    assert "resets at" in str(raised.value)


def test_a_rate_limit_is_one_to_the_sdk(stack: Stack) -> None:
    client = stack.client(SLOW)
    with pytest.raises(openai.RateLimitError) as raised:
        for _ in range(3):
            client.chat.completions.create(model="chat", messages=ASK, max_tokens=1)
    assert raised.value.code == "rate_limit_exceeded"
    assert raised.value.response.headers["x-request-id"]


def test_a_stream_that_breaks_off_raises(stack: Stack) -> None:
    seen = []
    with pytest.raises(openai.APIError, match="broke off"):
        for chunk in stack.client().chat.completions.create(model="dropped", messages=ASK, stream=True):
            seen.append(chunk)
    assert seen


def test_a_body_of_fifty_megabytes_is_refused(stack: Stack) -> None:
    big: list[Any] = [{"role": "user", "content": "x" * 50_000_000}]
    with pytest.raises((openai.APIStatusError, openai.APIConnectionError)) as raised:
        stack.client().chat.completions.create(model="chat", messages=big)
    if isinstance(raised.value, openai.APIStatusError):
        assert raised.value.status_code == 413
    assert stack.client().chat.completions.create(model="chat", messages=ASK)


def test_a_client_that_stops_reading_a_stream_stops_the_provider(stack: Stack) -> None:
    stack.simulator.reset()
    stream = stack.client().chat.completions.create(
        model="dripping", messages=ASK, max_tokens=1_000, stream=True
    )
    call = call_of(stream.response.headers)
    for index, _ in enumerate(stream):
        if index == 5:
            break
    began = time.monotonic()
    stream.close()
    [record] = stack.simulator.wait_for(lambda records: len(records) == 1)
    assert record["outcome"] == "client_gone"
    assert time.monotonic() - began < 5
    wait_for(lambda: call in stack.calls())
    found = stack.calls()[call]
    assert (found["status"], bool(found["usage_estimated"])) == ("client_closed", True)
    assert 0 < found["output_tokens"] <= record["usage"]["completion"]


# ---------------------------------------------------------------------- what changes is felt, what happened is on record


def test_a_revoked_key_and_a_paused_route_are_felt_within_a_second(stack: Stack) -> None:
    client = stack.client()
    client.chat.completions.create(model="chat", messages=ASK)
    run = "from llmops.core.actors import command_actor as a; "
    pause = run + "from llmops.providers.models import Route; from llmops.providers.services import {}; {}"
    stack.installation.manage(
        "shell",
        "-c",
        pause.format(
            "pause_route", "pause_route(a('t'), route=Route.objects.get(slug='chat'), reason='on fire')"
        ),
    )
    began = time.monotonic()
    with pytest.raises(openai.InternalServerError, match="on fire"):
        while time.monotonic() - began < 5:
            client.chat.completions.create(model="chat", messages=ASK, max_tokens=1)
            time.sleep(0.02)
    stack.installation.manage(
        "shell",
        "-c",
        pause.format("resume_route", "resume_route(a('t'), route=Route.objects.get(slug='chat'))"),
    )

    def answers_again() -> bool:
        try:
            client.chat.completions.create(model="chat", messages=ASK, max_tokens=1)
        except openai.InternalServerError:
            return False
        return True

    wait_for(answers_again)


def test_every_attempt_that_the_provider_served_is_in_the_ledger_once(stack: Stack) -> None:
    stack.simulator.reset()
    client = stack.client()
    for model in ("chat", "rescued", "flaky", "hopeless", "picky"):
        try:
            client.chat.completions.create(model=model, messages=ASK, max_tokens=8)
        except openai.APIStatusError:
            continue
    served = [record["attempt_id"] for record in stack.simulator.records()]
    calls = stack.calls()
    attempts = {
        f"{call['id']}.{n}": call for call in calls.values() for n in range(1, call["attempt_count"] + 1)
    }
    assert len(served) == len(set(served))
    assert {one.replace("-", "") for one in served} <= {one.replace("-", "") for one in attempts}
    spent = sum(call["cost_nano"] for call in calls.values())
    [(settled, overrun)] = stack.installation.rows(
        "SELECT sum(w.settled_nano), sum(w.overrun_nano) FROM budgets_window w JOIN budgets_budget b "
        "ON b.id = w.budget_id WHERE b.slug = 'support-month'"
    )
    assert settled + overrun == spent


def test_no_secret_is_in_journals_logs_or_the_ledger(stack: Stack) -> None:
    secrets = [PROVIDER_SECRET, KEY, NARROW]
    places = [
        *stack.installation.data_dir.rglob("*.jsonl"),
        *(one.log for one in stack.installation.processes),
    ]
    assert places
    for place in places:
        text = Path(place).read_text(errors="replace")
        assert not [secret for secret in secrets if secret in text], place
