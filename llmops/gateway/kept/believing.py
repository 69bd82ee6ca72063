"""What the output of a batch states of its usage, and what of it is believed: each line against the request that it answers, by the
measures that calls are held to (``money/estimating.py``).

An answer counts once, and only to a line that asked for it. Its input is at least what the request plainly holds, its output at
least what the answer plainly holds, and at most what the request allowed. Pure, but for counting tokens: large work goes beside the
loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from llmops.core.stopping import go_on
from llmops.core.tokens import count_text
from llmops.gateway.endpoints.base import MAX_USAGE_TOKENS, believable_usage
from llmops.gateway.endpoints.chat import CHAT
from llmops.gateway.endpoints.responses import RESPONSES
from llmops.gateway.money.estimating import FEW, MORE, PLAIN, SUSPICIOUS, TIMES, least_input
from llmops.usage.records import Tokens

if TYPE_CHECKING:
    from llmops.gateway.endpoints.base import Endpoint
    from llmops.serving.snapshot import ModelEntry

#: By the address of a batch: how an answer's text is read, which members of a request are input, which cap its output.
_TEXTS: dict[str, Endpoint] = {"/v1/chat/completions": CHAT, "/v1/responses": RESPONSES}
_INPUT = {
    "/v1/chat/completions": ("messages",),
    "/v1/responses": ("instructions", "input"),
    "/v1/embeddings": ("input",),
}
_CAPS = ("max_completion_tokens", "max_tokens", "max_output_tokens")

Entries = Callable[[str], "ModelEntry | None"]
_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_USAGE_TOKENS)]


class _InputDetails(msgspec.Struct):
    cached_tokens: _Count | None = None
    cache_write_tokens: _Count | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: _Count | None = None


class _ResponsesUsage(msgspec.Struct):
    """Usage as /v1/responses tells it."""

    input_tokens: _Count
    output_tokens: _Count = 0
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class _Body(msgspec.Struct):
    model: str = ""
    usage: msgspec.Raw = msgspec.Raw()


class _Response(msgspec.Struct):
    body: msgspec.Raw = msgspec.Raw()


class _Line(msgspec.Struct):
    custom_id: str
    response: _Response | None = None


class _Request(msgspec.Struct):
    custom_id: str
    body: dict[str, msgspec.Raw]


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_body = msgspec.json.Decoder(_Body).decode
_decode_request = msgspec.json.Decoder(_Request).decode
_decode_usage = msgspec.json.Decoder(_ResponsesUsage).decode
_decode_any = msgspec.json.Decoder().decode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Sums:
    """Tokens by the model that a provider names in its answers. ``address`` is the batch's."""

    def __init__(self, address: str = "") -> None:
        self._address = address
        #: custom id (digest) -> model and tokens
        self._told: dict[bytes, tuple[str, Tokens]] = {}
        self._seen: set[bytes] = set()
        self._asked: set[bytes] | None = None
        self.lines = 0
        #: lines that say nothing about their usage
        self.silent = 0
        #: lines that are none of a batch's output
        self.odd = 0
        #: lines whose usage was not believed
        self.doubted = 0

    @property
    def by_model(self) -> dict[str, Tokens]:
        found: dict[str, Tokens] = {}
        for mark, (model, tokens) in self._told.items():
            if self._asked is None or mark in self._asked:
                add_tokens(found.setdefault(model, Tokens()), tokens)
        return found

    @property
    def strange(self) -> int:
        """Lines that nobody asked for; known once the requests were looked at."""
        return 0 if self._asked is None else len(self._seen - self._asked)

    def add(self, line: bytes, entry_of: Entries | None = None) -> None:
        """A line of the output; ``entry_of`` gives the model by the name it answers under."""
        self.lines += 1
        try:
            said = _decode_line(line)
            raw = bytes(said.response.body) if said.response is not None else b""
            body = _decode_body(raw) if raw and raw != b"null" else None
        except _UNREADABLE:
            self.odd += 1
            return
        mark = _mark(said.custom_id)
        if mark in self._seen:
            # It answers once, whatever is said a second time.
            self.odd += 1
            return
        self._seen.add(mark)
        used = usage_of(bytes(body.usage)) if body is not None else None
        if body is None or used is None:
            self.silent += 1
            return
        if entry_of is not None and len(raw) > SUSPICIOUS + PLAIN * used.output:
            self._check_answer(used, raw, entry_of(body.model))
        self._told[mark] = body.model, used

    def add_all(self, lines: Sequence[bytes], entry_of: Entries) -> None:
        for line in lines:
            go_on()
            self.add(line, entry_of)

    def check(self, lines: Sequence[bytes], entry_of: Entries) -> None:
        """Some lines of the input. Once begun, only what those lines asked for counts."""
        if self._asked is None:
            self._asked = set()
        for line in lines:
            go_on()
            try:
                request = _decode_request(line)
            except _UNREADABLE:
                continue
            mark = _mark(request.custom_id)
            self._asked.add(mark)
            told = self._told.get(mark)
            if told is None or (entry := entry_of(told[0])) is None:
                continue
            before = told[1].input, told[1].output
            self._check_request(told[1], request.body, len(line), entry)
            if (told[1].input, told[1].output) != before:
                self._doubt(told[1])

    def _check_answer(self, used: Tokens, raw: bytes, entry: ModelEntry | None) -> None:
        endpoint = _TEXTS.get(self._address)
        if endpoint is None or entry is None:
            return
        text = endpoint.text(raw)
        if len(text) <= FEW + PLAIN * used.output:
            return
        counted = count_text(text, entry.upstream_model)
        if counted > MORE + TIMES * used.output:
            used.output = counted
            self._doubt(used)

    def _check_request(
        self, used: Tokens, body: dict[str, msgspec.Raw], size: int, entry: ModelEntry
    ) -> None:
        names = _INPUT.get(self._address, ())
        if names and size > SUSPICIOUS + PLAIN * used.input:
            members = {name: body[name] for name in names if name in body}
            least = least_input(members, entry.upstream_model, entry.context_window)
            if least > MORE + TIMES * used.input:
                used.input = least
        if self._address in _TEXTS and (most := _most_output(body, entry)):
            used.output = min(used.output, most)
            used.reasoning = min(used.reasoning, used.output)

    def _doubt(self, used: Tokens) -> None:
        if not used.estimated:
            used.estimated = True
            self.doubted += 1


def _most_output(body: dict[str, msgspec.Raw], entry: ModelEntry) -> int:
    """The output that a request allows, in tokens; 0 when nothing bounds it."""
    caps = [cap for name in _CAPS if (cap := _number(body, name))]
    cap = min([*caps, entry.max_output_tokens] if entry.max_output_tokens else caps, default=0)
    return cap * (_number(body, "n") or 1)


def _number(body: dict[str, msgspec.Raw], name: str) -> int:
    try:
        value: Any = _decode_any(body[name]) if name in body else None
    except _UNREADABLE:
        return 0
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _mark(custom_id: str) -> bytes:
    return blake2b(custom_id.encode("utf-8", "surrogatepass"), digest_size=12).digest()


def usage_of(raw: bytes) -> Tokens | None:
    """Billed tokens of a ``usage`` member, of whichever endpoint."""
    tokens = believable_usage(raw)
    if tokens is not None or not raw:
        return tokens
    try:
        usage = _decode_usage(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    asked, answered = usage.input_tokens_details, usage.output_tokens_details
    return Tokens(
        input=usage.input_tokens,
        cached=min((asked.cached_tokens or 0) if asked else 0, usage.input_tokens),
        cache_write=(asked.cache_write_tokens or 0) if asked else 0,
        output=usage.output_tokens,
        reasoning=min((answered.reasoning_tokens or 0) if answered else 0, usage.output_tokens),
    )


def add_tokens(sums: Tokens, more: Tokens) -> None:
    sums.input += more.input
    sums.cached += more.cached
    sums.cache_write += more.cache_write
    sums.output += more.output
    sums.reasoning += more.reasoning
    sums.estimated = sums.estimated or more.estimated
