"""The lines of a batch's file, each judged as the call that it is: its shape, its address, its model, what it names. Pure.

A provider runs them with this console's own key, and some run whatever a line says. So a line is a POST to the address of its
batch and nothing else, and what two readers could read differently (a member given twice) is none.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from hashlib import blake2b
from typing import Any

from llmops.core.errors import InvalidRequest
from llmops.core.stopping import go_on
from llmops.gateway.kept.owners import texts_like_ids

#: Addresses whose calls a batch may hold: those whose answers tell what they are billed by.
ADDRESSES = frozenset(
    (
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/images/edits",
        "/v1/images/generations",
        "/v1/moderations",
        "/v1/responses",
    )
)
#: Lines of one file, and ids that they may name. OpenAI takes 50,000 lines.
MAX_LINES, MAX_NAMED = 200_000, 20_000
MAX_CUSTOM_ID = 512
#: A line without any of these refers to nothing that is kept (an escape may stand for anything).
_MARKS = (b"_id", b"conversation", b"container", b"item_reference", b"\\u", b"file-", b"file_")
#: What an answer that comes later, or in pieces, is billed by, the output of a batch does not tell.
_NEVER = ("stream", "background")

Line = tuple[int, bytes]


def address_of(name: Any) -> str:
    """The address that an ``endpoint`` or a ``url`` names; Azure writes it without its version. Empty for none of ours."""
    if not isinstance(name, str):
        return ""
    address = name if name.startswith("/v1/") else "/v1" + name
    return address if address in ADDRESSES else ""


class Judge:
    """``param`` is the member that names the file, ``allowed`` the provider's own names of models that may be called.
    ``models`` and ``named`` are what was found: models with the first line that names each, ids of objects."""

    def __init__(self, param: str, endpoint: str, allowed: Collection[str], provider: str) -> None:
        self._param = param
        self._endpoint = endpoint
        self._allowed = allowed
        self._provider = provider
        self._ids: set[bytes] = set()
        self.models: dict[str, int] = {}
        self.named: set[str] = set()

    def look(self, lines: Sequence[Line]) -> list[str]:
        """The model of each line. Raises ``InvalidRequest`` saying which line may not go, and why. May run beside the loop."""
        models = []
        for line in lines:
            go_on()
            models.append(self._look(*line))
        return models

    def _look(self, number: int, line: bytes) -> str:
        if number > MAX_LINES:
            raise self._wrong(number, f"a batch has at most {MAX_LINES} lines")
        try:
            found = json.loads(line.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number)
        except _Twice as twice:
            raise self._wrong(number, f"the member {twice.name!r} is given twice in one object") from None
        except (ValueError, RecursionError):
            raise self._wrong(number, "it is not a request in JSON with a model in its body") from None
        body = found.get("body") if isinstance(found, dict) else None
        model = body.get("model") if isinstance(body, dict) else None
        if not isinstance(body, dict) or not isinstance(model, str):
            raise self._wrong(number, "it is not a request in JSON with a model in its body")
        self._shape(number, found)
        for name in _NEVER:
            if body.get(name):
                raise self._wrong(
                    number, f"what its answer costs cannot be counted: leave {name!r} out of its body"
                )
        if model not in self.models:
            if model not in self._allowed:
                raise self._unknown(number, model)
            self.models[model] = number
        if any(mark in line for mark in _MARKS):
            self.named.update(texts_like_ids(body))
            if len(self.named) > MAX_NAMED:
                raise InvalidRequest(
                    f"{self._param}: the lines refer to more than {MAX_NAMED} kept objects.",
                    param=self._param,
                )
        return model

    def _shape(self, number: int, line: dict[str, Any]) -> None:
        custom = line.get("custom_id")
        if not isinstance(custom, str) or not 0 < len(custom) <= MAX_CUSTOM_ID:
            raise self._wrong(number, f"its custom_id must be text of at most {MAX_CUSTOM_ID} characters")
        mark = blake2b(custom.encode("utf-8", "surrogatepass"), digest_size=12).digest()
        if mark in self._ids:
            raise self._wrong(number, f"its custom_id {custom[:100]!r} is that of another line")
        self._ids.add(mark)
        if line.get("method") != "POST":
            raise self._wrong(number, 'its method must be "POST"')
        if address_of(line.get("url")) != self._endpoint:
            raise self._wrong(number, f"its url must be {self._endpoint!r}, the endpoint of the batch")

    def _unknown(self, number: int, model: str) -> InvalidRequest:
        known = ", ".join(sorted(self._allowed)[:10]) or "none"
        return self._wrong(
            number,
            f"it names the model {model[:100]!r}. The lines of a batch name the provider's own models; of those at "
            f"{self._provider!r} this key may call: {known}",
            code="model_not_found",
        )

    def _wrong(self, number: int, why: str, *, code: str = "invalid_request") -> InvalidRequest:
        return InvalidRequest(f"{self._param}: line {number}: {why}.", param=self._param, code=code)


class _Twice(Exception):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(next(name for name in names if names.count(name) > 1)[:100])
    return found


def _no_number(text: str) -> None:
    raise ValueError(text)
