"""Chat completions that were made with ``store: true``. Fields: OpenAI API reference, "Chat"."""

from __future__ import annotations

from typing import Any

import msgspec

from llmops.simulator.errors import wrong_shape
from llmops.simulator.exchange import Exchange
from llmops.simulator.keeping import Chat


class _Change(msgspec.Struct):
    metadata: dict[str, str] | None


def store(
    exchange: Exchange, answer: bytes, messages: list[dict[str, Any]], metadata: dict[str, str] | None
) -> None:
    shown = msgspec.json.decode(answer) | {"metadata": metadata or {}}
    asked = [
        message | {"id": f"{shown['id']}-{number}"}
        for number, message in enumerate(messages)
        if message.get("role") != "assistant"
    ]
    exchange.app.keeping.chats.put(Chat(shown, asked))


async def listing(exchange: Exchange) -> None:
    await exchange.whole(exchange.app.keeping.chats.page(exchange.query, 20, 100))


async def one(exchange: Exchange, name: str) -> None:
    await exchange.whole(msgspec.json.encode(exchange.app.keeping.chats.get(name).shown))


async def update(exchange: Exchange, name: str) -> None:
    chat = exchange.app.keeping.chats.get(name)
    try:
        change = msgspec.json.decode(await exchange.body(), type=_Change)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise wrong_shape(error) from error
    chat.shown["metadata"] = change.metadata or {}
    await exchange.whole(msgspec.json.encode(chat.shown))


async def delete(exchange: Exchange, name: str) -> None:
    exchange.app.keeping.chats.take(name)
    shown = {"id": name, "object": "chat.completion.deleted", "deleted": True}
    await exchange.whole(msgspec.json.encode(shown))


async def messages(exchange: Exchange, name: str) -> None:
    data = exchange.app.keeping.chats.get(name).messages
    page = {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": False,
    }
    await exchange.whole(msgspec.json.encode(page))
