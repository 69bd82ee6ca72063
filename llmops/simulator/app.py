"""The ASGI application: who may ask, which endpoint answers, and the simulator's own pages."""

from __future__ import annotations

import asyncio
import secrets
import sys
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from urllib.parse import parse_qs

import msgspec

from llmops.core.asgi import Message, Receive, Send
from llmops.simulator.endpoints import (
    batches,
    chat,
    embeddings,
    files,
    hearing,
    images,
    kept_responses,
    models,
    moderations,
    organisation,
    rerank,
    responses,
    speech,
    stored_chats,
)
from llmops.simulator.errors import ApiError, wrong
from llmops.simulator.exchange import ClientGone, Exchange, Window, fingerprint
from llmops.simulator.keeping import Keeping
from llmops.simulator.ledger import DROPPED, Ledger
from llmops.simulator.prompts import Prompts

Endpoint = Callable[[Exchange], Awaitable[None]]
OfObject = Callable[[Exchange, str], Awaitable[None]]

_PROVIDER: dict[tuple[str, str], Endpoint] = {
    ("POST", "/v1/chat/completions"): chat.create,
    ("POST", "/v1/responses"): responses.create,
    ("POST", "/v1/responses/compact"): responses.compact,
    ("POST", "/v1/responses/input_tokens"): responses.input_tokens,
    ("POST", "/v1/embeddings"): embeddings.create,
    ("POST", "/v1/moderations"): moderations.create,
    ("POST", "/v1/rerank"): rerank.create,
    ("POST", "/v1/images/generations"): images.generate,
    ("POST", "/v1/images/edits"): images.edit,
    ("POST", "/v1/images/variations"): images.vary,
    ("POST", "/v1/audio/speech"): speech.create,
    ("POST", "/v1/audio/transcriptions"): hearing.transcribe,
    ("POST", "/v1/audio/translations"): hearing.translate,
    ("GET", "/v1/models"): models.listing,
    ("GET", "/v1/chat/completions"): stored_chats.listing,
    ("POST", "/v1/files"): files.create,
    ("GET", "/v1/files"): files.listing,
    ("GET", "/v1/organization/costs"): organisation.costs,
    ("GET", "/v1/organization/usage/completions"): organisation.completions,
    ("GET", "/v1/organization/usage/embeddings"): organisation.embeddings,
    ("POST", "/v1/batches"): batches.create,
    ("GET", "/v1/batches"): batches.listing,
}
#: What is done with one object: method, what stands before its id, what behind it.
_OBJECTS: dict[tuple[str, str, str], OfObject] = {
    ("GET", "/v1/chat/completions/", ""): stored_chats.one,
    ("POST", "/v1/chat/completions/", ""): stored_chats.update,
    ("DELETE", "/v1/chat/completions/", ""): stored_chats.delete,
    ("GET", "/v1/chat/completions/", "/messages"): stored_chats.messages,
    ("GET", "/v1/files/", ""): files.one,
    ("DELETE", "/v1/files/", ""): files.delete,
    ("GET", "/v1/files/", "/content"): files.content,
    ("GET", "/v1/batches/", ""): batches.one,
    ("POST", "/v1/batches/", "/cancel"): batches.cancel,
    ("GET", "/v1/responses/", ""): kept_responses.retrieve,
    ("DELETE", "/v1/responses/", ""): kept_responses.delete,
    ("POST", "/v1/responses/", "/cancel"): kept_responses.cancel,
    ("GET", "/v1/responses/", "/input_items"): kept_responses.input_items,
}


class Simulator:
    """One provider. ``keys``: the only ones that are accepted; ``None`` accepts any.

    ``any_model`` serves model names that do not begin with ``sim-``, so that a real provider's names can be tried.
    """

    def __init__(
        self, *, ledger: Ledger | None = None, keys: Iterable[str] | None = None, any_model: bool = False
    ) -> None:
        self.ledger = ledger or Ledger()
        self.keys = None if keys is None else frozenset(keys)
        self.any_model = any_model
        self.prefix = secrets.token_hex(10)
        self.window = Window()
        self.prompts = Prompts()
        self.kept = chat.KeptAnswers()
        self.responses = kept_responses.KeptResponses()
        self.keeping = Keeping()
        self.in_flight = 0
        self._numbers = 0
        self._calls: Counter[str] = Counter()
        self._own: dict[tuple[str, str], Endpoint] = {
            ("GET", "/healthz"): self._health,
            ("GET", "/simulator/models"): models.suggested,
            ("GET", "/simulator/ledger"): self._ledger_page,
            ("DELETE", "/simulator/ledger"): self._forget,
            ("PUT", "/simulator/keys"): self._change_keys,
        }

    def next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def new_id(self, prefix: str) -> str:
        """Unlike any other id of this or another simulator process."""
        return f"{prefix}{self.prefix[:12]}{self.next_number():012x}"

    def count_call(self, name: str) -> int:
        """How often this exact name was called before."""
        count = self._calls[name]
        self._calls[name] += 1
        return count

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        exchange = Exchange(self, scope, receive, send)
        self.in_flight += 1
        try:
            await self._serve(exchange, scope["method"])
        except ApiError as error:
            await exchange.refuse(error)
        except ClientGone:
            exchange.gone()
        except asyncio.CancelledError:
            exchange.record(DROPPED, error="stopped")
            raise
        except Exception:
            traceback.print_exc(file=sys.stderr)
            await exchange.refuse(
                ApiError(500, "The simulator itself failed; see its log.", kind="server_error")
            )
        finally:
            self.in_flight -= 1

    async def _serve(self, exchange: Exchange, method: str) -> None:
        path = exchange.path
        own = self._own.get((method, path))
        if own is not None:
            return await own(exchange)
        self._authenticate(exchange)
        endpoint = _PROVIDER.get((method, path))
        if endpoint is None and method == "GET" and path.startswith("/v1/models/"):
            endpoint = models.one
        if endpoint is None:
            for (of, before, behind), found in _OBJECTS.items():
                name = path[len(before) : len(path) - len(behind)]
                if (
                    of == method
                    and path.startswith(before)
                    and path.endswith(behind)
                    and "/" not in name
                    and name
                ):
                    return await found(exchange, name)
            raise ApiError(404, f"Invalid URL ({method} {path}).", code="unknown_url")
        await endpoint(exchange)

    def _authenticate(self, exchange: Exchange) -> None:
        scheme, _, key = exchange.header(b"authorization").partition(" ")
        key = key.strip() if scheme.lower() == "bearer" else exchange.header(b"api-key")
        if not key:
            raise ApiError(
                401,
                "You didn't provide an API key. Send it in an Authorization header: 'Authorization: Bearer KEY'.",
            )
        exchange.key = fingerprint(key)
        if self.keys is not None and key not in self.keys:
            raise ApiError(401, "Incorrect API key provided.", code="invalid_api_key")

    async def _health(self, exchange: Exchange) -> None:
        state = {"status": "ok", "simulator": True, "in_flight": self.in_flight - 1}
        await exchange.unrecorded(msgspec.json.encode(state))

    async def _ledger_page(self, exchange: Exchange) -> None:
        asked = parse_qs(exchange.query.decode("latin-1"))
        try:
            since, limit = (
                int(asked.get(name, [default])[0]) for name, default in (("since", "0"), ("limit", "1000"))
            )
        except ValueError as error:
            raise wrong("'since' and 'limit' are whole numbers.") from error
        await exchange.unrecorded(self.ledger.page(since, limit))

    async def _forget(self, exchange: Exchange) -> None:
        self.ledger.clear()
        self._calls.clear()
        await exchange.unrecorded(b'{"cleared":true}')

    async def _change_keys(self, exchange: Exchange) -> None:
        """``{"keys": ["a"]}`` or ``{"keys": null}``: what a provider's console would do, for tests of rotation."""
        try:
            change = msgspec.json.decode(await exchange.body(), type=_Keys)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            raise wrong(f"Invalid request: {error}.", "keys") from error
        self.keys = None if change.keys is None else frozenset(change.keys)
        await exchange.unrecorded(b'{"changed":true}')


class _Keys(msgspec.Struct):
    keys: list[str] | None
