"""pydantic-ai against the data plane at ``OPENAI_BASE_URL``, over chat completions or, with ``responses``, over responses."""

from __future__ import annotations

import openai
from checks import over_responses, raises, run
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models import Model
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider


def model(name: str = "chat", **given: str) -> Model:
    client = openai.AsyncOpenAI(max_retries=0, timeout=20, **given)
    kind = OpenAIResponsesModel if over_responses() else OpenAIChatModel
    return kind(name, provider=OpenAIProvider(openai_client=client))


def chat() -> None:
    found = Agent(model()).run_sync("Say hello")
    assert "Simulated" in found.output
    assert found.usage.output_tokens > 0


async def stream() -> None:
    async with Agent(model()).run_stream("Say hello") as found:
        pieces = [piece async for piece in found.stream_text(delta=True, debounce_by=None)]
    assert len(pieces) > 1
    assert "Simulated" in "".join(pieces)


def tool_call() -> None:
    agent = Agent(model("tools"))
    asked: list[str] = []

    @agent.tool_plain
    def get_weather(city: str) -> str:
        """The weather somewhere."""
        asked.append(city)
        return f"4 degrees in {city}"

    found = agent.run_sync("What is the weather?")
    assert len(asked) == 1
    assert found.output


class Ticket(BaseModel):
    label: str
    urgency: int


def structured_output() -> None:
    found = Agent(model(), output_type=Ticket).run_sync("Classify: it burns")
    assert isinstance(found.output, Ticket)
    native = Agent(model(), output_type=NativeOutput(Ticket)).run_sync("Classify: it burns")
    assert isinstance(native.output, Ticket)


def errors() -> None:
    for name, status in (("gpt-99", 404), ("picky", 400), ("limited", 429), ("broken", 502)):
        agent = Agent(model(name))
        error = raises(ModelHTTPError, lambda agent=agent: agent.run_sync("a"))  # type: ignore[misc]
        assert error.status_code == status, (name, error.status_code)
    stranger = Agent(model(api_key="llmops_none"))
    assert raises(openai.AuthenticationError, lambda: stranger.run_sync("a")).code == "invalid_api_key"


run(chat, stream, tool_call, structured_output, errors)
