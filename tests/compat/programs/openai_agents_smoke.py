"""openai-agents against the data plane at ``OPENAI_BASE_URL``, over chat completions or, as is its default, over
``responses``."""

from __future__ import annotations

import openai
from agents import (
    Agent,
    Model,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from checks import over_responses, raises, run
from openai.types.responses import ResponseTextDeltaEvent
from pydantic import BaseModel

# It would be sent to OpenAI.
set_tracing_disabled(True)


def model(name: str = "chat", **given: str) -> Model:
    kind = OpenAIResponsesModel if over_responses() else OpenAIChatCompletionsModel
    return kind(name, openai.AsyncOpenAI(max_retries=0, timeout=20, **given))


def agent(name: str = "chat", **given: object) -> Agent:
    return Agent(name="Support", instructions="Answer shortly.", model=model(name), **given)  # type: ignore[arg-type]


async def chat() -> None:
    found = await Runner.run(agent(), "Say hello")
    assert "Simulated" in found.final_output
    assert found.context_wrapper.usage.output_tokens > 0


async def stream() -> None:
    found = Runner.run_streamed(agent(), "Say hello")
    text = ""
    async for event in found.stream_events():
        if event.type == "raw_response_event" and isinstance(event.data, ResponseTextDeltaEvent):
            text += event.data.delta
    assert "Simulated" in text
    assert found.final_output == text


asked: list[str] = []


@function_tool
def get_weather(city: str) -> str:
    """The weather somewhere."""
    asked.append(city)
    return f"4 degrees in {city}"


async def tool_call() -> None:
    found = await Runner.run(agent("tools", tools=[get_weather]), "What is the weather?")
    assert len(asked) == 1
    assert found.final_output


class Ticket(BaseModel):
    label: str
    urgency: int


async def structured_output() -> None:
    found = await Runner.run(agent(output_type=Ticket), "Classify: it burns")
    assert isinstance(found.final_output, Ticket)


def errors() -> None:
    for name, kind in (
        ("gpt-99", openai.NotFoundError),
        ("picky", openai.BadRequestError),
        ("limited", openai.RateLimitError),
        ("broken", openai.InternalServerError),
    ):
        assert raises(kind, lambda name=name: Runner.run_sync(agent(name), "a")).request_id  # type: ignore[misc]
    stranger = Agent(name="Stranger", model=model(api_key="llmops_none"))
    assert (
        raises(openai.AuthenticationError, lambda: Runner.run_sync(stranger, "a")).code == "invalid_api_key"
    )


run(chat, stream, tool_call, structured_output, errors)
