"""langchain-openai against the data plane at ``OPENAI_BASE_URL``, over chat completions or, with ``responses``, over responses."""

from __future__ import annotations

from typing import Any

import openai
from checks import over_responses, raises, run
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel


def model(name: str = "chat", **given: Any) -> ChatOpenAI:
    return ChatOpenAI(model=name, max_retries=0, timeout=20, use_responses_api=over_responses(), **given)


def chat() -> None:
    answer = model().invoke("Say hello")
    assert "Simulated" in str(answer.text)
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] > 0


def stream() -> None:
    chunks = list(model(stream_usage=True).stream("Say hello"))
    assert len(chunks) > 1
    assert "Simulated" in "".join(str(chunk.text) for chunk in chunks)
    assert sum(chunk.usage_metadata["output_tokens"] for chunk in chunks if chunk.usage_metadata) > 0


async def async_stream() -> None:
    text = ""
    async for chunk in model().astream("Say hello"):
        text += str(chunk.text)
    assert "Simulated" in text


@tool
def get_weather(city: str) -> str:
    """The weather somewhere."""
    return f"4 degrees in {city}"


def tool_call() -> None:
    bound = model("tools").bind_tools([get_weather])
    asked: list[Any] = [HumanMessage("What is the weather?")]
    answer = bound.invoke(asked)
    [call] = answer.tool_calls
    assert call["name"] == "get_weather"
    assert isinstance(call["args"]["city"], str)
    result = get_weather.invoke(call["args"])
    final = bound.invoke([*asked, answer, ToolMessage(result, tool_call_id=call["id"])])
    assert final.content


def streamed_tool_call() -> None:
    whole: Any = None
    for chunk in model("tools").bind_tools([get_weather]).stream("What is the weather?"):
        whole = chunk if whole is None else whole + chunk
    assert [call["name"] for call in whole.tool_calls] == ["get_weather"]


class Ticket(BaseModel):
    label: str
    urgency: int


def structured_output() -> None:
    for method in ("json_schema", "function_calling"):
        found = model().with_structured_output(Ticket, method=method).invoke("Classify: it burns")
        assert isinstance(found, Ticket), method


def embeddings() -> None:
    found = OpenAIEmbeddings(model="embed", check_embedding_ctx_length=False, max_retries=0)
    one, two = found.embed_documents(["one", "two"])
    assert len(one) == len(two) > 10


def errors() -> None:
    assert (
        raises(openai.AuthenticationError, lambda: model(api_key="llmops_none").invoke("a")).code
        == "invalid_api_key"
    )
    assert raises(openai.NotFoundError, lambda: model("gpt-99").invoke("a")).code == "model_not_found"
    assert raises(openai.RateLimitError, lambda: model("limited").invoke("a")).request_id
    assert raises(openai.BadRequestError, lambda: model("picky").invoke("a"))
    assert raises(openai.InternalServerError, lambda: model("broken").invoke("a")).code == "upstream_error"
    assert raises(openai.APIError, lambda: list(model("dropped").stream("a")))


run(chat, stream, async_stream, tool_call, streamed_tool_call, structured_output, embeddings, errors)
