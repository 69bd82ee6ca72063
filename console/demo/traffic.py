"""A little traffic for a new installation: real calls through the data plane with the printed key.

``python -m console.demo.traffic FIRST_RUN_JSON``; about forty calls over a few seconds, plain and streamed, some over a
route whose first target fails, some embeddings, with the attribution headers that pages group by.
"""

from __future__ import annotations

import json
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
from openai.types.chat import ChatCompletionMessageParam

QUESTIONS = {
    "triage": [
        "Sort this ticket: the invoice of March shows the wrong address.",
        "Sort this ticket: the app closes when I open settings.",
        "Sort this ticket: please delete my account.",
    ],
    "answers": [
        "How do I reset my password?",
        "What is the warranty on a refurbished phone?",
        "Can I change the delivery date of an order that has shipped?",
    ],
    "summaries": [
        "Summarise this conversation in two sentences: the customer asked for a refund and got one."
    ],
}


def main(path: str) -> None:
    first = json.loads(Path(path).read_text())
    client = openai.OpenAI(
        base_url=first["gateway_url"], api_key=first["service_key"], max_retries=0, timeout=30
    )
    chance = random.Random(7)
    plan = [
        (number, chance.choice(sorted(QUESTIONS)), f"customer-{chance.randrange(9)}") for number in range(40)
    ]
    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(lambda one: _tolerate(client, *one), plan))


def _tolerate(client: openai.OpenAI, number: int, feature: str, user: str) -> None:
    """A failing call is part of the picture: it shows on Overview as it would in life."""
    try:
        _call(client, number, feature, {"x-llmops-feature": feature, "x-llmops-user": user})
    except openai.APIError:
        return


def _call(client: openai.OpenAI, number: int, feature: str, headers: dict[str, str]) -> None:
    question = QUESTIONS[feature][number % len(QUESTIONS[feature])]
    if number % 8 == 7:
        client.embeddings.create(model="embed", input=question, extra_headers=headers)
        return
    route = "unreliable" if number % 5 == 4 else "chat"
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": question}]
    if number % 3:
        client.chat.completions.create(model=route, messages=messages, max_tokens=120, extra_headers=headers)
        return
    for _ in client.chat.completions.create(
        model=route, messages=messages, max_tokens=60, stream=True, extra_headers=headers
    ):
        pass


if __name__ == "__main__":
    main(sys.argv[1])
