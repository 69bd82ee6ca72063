"""The official SDK against a running simulator: embeddings, moderation, lists of models and ranked documents."""

from __future__ import annotations

import base64
import json
import math
import struct
from typing import Any

import openai
import pytest

from tests.simulator.running import RunningSimulator
from tests.simulator.test_simulator_sdk import count

__all__ = ["count"]


def test_embeddings_are_the_same_in_both_formats(client: openai.OpenAI, count: Any) -> None:
    texts = ["The invoice is overdue.", "Ein zweiter Satz 你好"]
    model = "sim-embed-small+instant"
    floats = client.embeddings.create(model=model, input=texts, encoding_format="float")
    packed = client.embeddings.with_raw_response.create(model=model, input=texts, encoding_format="base64")
    for one, other in zip(floats.data, json.loads(packed.text)["data"], strict=True):
        assert len(one.embedding) == 1536
        assert math.isclose(math.fsum(value * value for value in one.embedding), 1, abs_tol=1e-5)
        unpacked = struct.unpack("<1536f", base64.b64decode(other["embedding"]))
        assert all(math.isclose(a, b, abs_tol=1e-6) for a, b in zip(one.embedding, unpacked, strict=True))
    assert floats.usage.prompt_tokens == floats.usage.total_tokens == sum(map(count, texts))
    assert [one.index for one in floats.data] == [0, 1]
    # The SDK asks for base64 by itself and unpacks it.
    assert len(client.embeddings.create(model=model, input=texts[0], dimensions=256).data[0].embedding) == 256
    assert len(client.embeddings.create(model="sim-embed-large+instant", input="a").data[0].embedding) == 3072


def test_texts_that_share_words_are_near_each_other(client: openai.OpenAI) -> None:
    texts = ["the invoice is overdue", "which invoice is overdue today", "penguins swim in cold water"]
    made = client.embeddings.create(model="sim-embed-small+instant", input=texts).data
    first, second, third = (one.embedding for one in made)
    assert (
        math.sumprod(first, second) > 0.4 > 0.2 > math.sumprod(first, third)
        if hasattr(math, "sumprod")
        else (sum(map(float.__mul__, first, second)) > 0.4 > 0.2 > sum(map(float.__mul__, first, third)))
    )


def test_embeddings_of_token_numbers(client: openai.OpenAI) -> None:
    model = "sim-embed-small+instant"
    assert client.embeddings.create(model=model, input=[1, 2, 3]).usage.prompt_tokens == 3
    several = client.embeddings.create(model=model, input=[[1, 2, 3], [4]])
    assert (len(several.data), several.usage.prompt_tokens) == (2, 4)


def test_moderation(client: openai.OpenAI) -> None:
    made = client.moderations.create(model="sim-moderation+instant", input=["Hello.", "I will kill it."])
    assert [result.flagged for result in made.results] == [False, True]
    assert made.results[1].categories.violence
    assert not made.results[1].categories.hate
    assert client.moderations.create(model="sim-moderation+instant+flag", input="Hello.").results[0].flagged


def test_models(client: openai.OpenAI, simulator: RunningSimulator) -> None:
    listed = client.models.list().data
    assert {model.owned_by for model in listed} == {"simulator"}
    suggested = simulator.own("/simulator/models")["data"]
    assert [model.id for model in listed] == [model["id"] for model in suggested]
    chat = [model for model in suggested if model["kind"] == "chat"]
    assert all(set(model["prices"]) == {"input", "cached_input", "output"} for model in chat)
    assert all(model["prices"] for model in suggested)
    assert client.models.retrieve("sim-gpt-4o-2024-08-06").id == "sim-gpt-4o-2024-08-06"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")


def test_documents_come_in_the_order_of_how_near_they_are(client: openai.OpenAI, count: Any) -> None:
    documents = ["Reset my password", {"text": "Where is my parcel?"}, "The parcel is late"]
    body = {"model": "sim-rerank+instant", "query": "my parcel", "documents": documents, "top_n": 2}
    made: Any = client.post("/rerank", body=body, cast_to=object)
    first, second = made["results"]
    assert first["document"] == {"text": "Where is my parcel?"}
    assert first["relevance_score"] > second["relevance_score"]
    assert made["usage"]["prompt_tokens"] == 3 * count("my parcel") + sum(
        count(one if isinstance(one, str) else one["text"]) for one in documents
    )
    bare: Any = client.post("/rerank", body=body | {"return_documents": False}, cast_to=object)
    assert set(bare["results"][0]) == {"index", "relevance_score"}
    with pytest.raises(openai.BadRequestError):
        client.post("/rerank", body=body | {"documents": []}, cast_to=object)
