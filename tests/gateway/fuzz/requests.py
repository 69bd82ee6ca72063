"""Requests that nobody would send, and requests that somebody nearly sends: strategies for hypothesis."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from llmops.gateway.app import ORDINARY, OTHERS
from tests.gateway.rig import KEY

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Request:
    """``pieces`` are the messages of the body as a server hands them over. ``gone``: the client leaves after them."""

    method: str
    path: str
    headers: Headers
    pieces: list[bytes]
    query: bytes = b""
    gone: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


# ---------------------------------------------------------------------- values

#: JSON that parsers stumble over, and some that is none.
_NASTY = (
    b"",
    b"null",
    b"{}",
    b"[]",
    b'""',
    b"-0",
    b"0.0",
    b"1e400",
    b"-1e400",
    b"1E-400",
    b"NaN",
    b"Infinity",
    b"1.0000000000000000000000000000000000001",
    b"1" * 400,
    b"-" + b"9" * 5_000,
    b"9223372036854775807",
    b"9223372036854775808",
    b"18446744073709551616",
    b"00",
    b"0x10",
    b"tru",
    b'"\\ud800"',
    b'"\\udc00\\ud800"',
    b'"\\u0000"',
    b'"\xff\xfe"',
    b'"\xed\xa0\x80"',
    b'"\x00"',
    b'"' + b"x" * 70_000 + b'"',
    b'"\\',
    b'"unended',
    b"'single'",
    b"[" * 2_000 + b"]" * 2_000,
    b"[" * 2_000,
    b'{"a":' * 2_000 + b"1" + b"}" * 2_000,
    b"[1,]",
    b'{"a":1,}',
    b'{"a":1,"a":2}',
    b"/* no */ 1",
    b'"data: [DONE]\\n\\n"',
    b'"a\\r\\nset-cookie: x=y"',
)
_texts = st.text(st.characters(exclude_categories=()), max_size=20)
_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.integers(-2, 5),
        st.floats(allow_nan=False, allow_infinity=False),
        _texts,
        st.sampled_from(["small", "chat", "auto", "none", "user", "text", "json_schema", "function", "base64"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.one_of(
                st.sampled_from(
                    ["type", "role", "content", "text", "url", "image_url", "input_audio", "data", "function",
                     "name", "arguments", "include_usage", "json_schema", "schema", "file_id", "id"]
                ),
                _texts,
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)  # fmt: skip
_raw_values = st.one_of(
    _values.map(lambda value: json.dumps(value).encode()),
    st.sampled_from(_NASTY),
    st.binary(max_size=30),
)
#: Members that some endpoint looks at or passes on.
_NAMES = (
    "model", "messages", "input", "prompt", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens",
    "max_output_tokens", "user", "tools", "tool_choice", "functions", "function_call", "response_format", "text",
    "temperature", "top_p", "logit_bias", "logprobs", "stop", "seed", "metadata", "store", "modalities", "audio",
    "prediction", "web_search_options", "reasoning", "reasoning_effort", "service_tier", "safety_identifier",
    "prompt_cache_key", "previous_response_id", "conversation", "instructions", "include", "background", "truncation",
    "dimensions", "encoding_format", "size", "quality", "voice", "file", "image", "mask", "purpose",
    "input_file_id", "endpoint", "completion_window", "instructions", "speed", "parallel_tool_calls", "max_tool_calls",
)  # fmt: skip
_names = st.one_of(st.sampled_from(_NAMES), _texts)
_GOOD: dict[str, list[tuple[str, Any]]] = {
    "/v1/chat/completions": [
        ("model", "small"),
        ("messages", [{"role": "user", "content": "Say hello"}]),
        ("max_tokens", 5),
    ],
    "/v1/embeddings": [("model", "small"), ("input", ["Say hello", "and again"])],
    "/v1/responses": [("model", "small"), ("input", "Say hello"), ("max_output_tokens", 20)],
    "/v1/images/generations": [("model", "drawing"), ("prompt", "A cat"), ("size", "1024x1024"), ("n", 1)],
    "/v1/audio/speech": [("model", "voice"), ("input", "Say hello"), ("voice", "alloy")],
    "/v1/batches": [
        ("input_file_id", "file-1"),
        ("endpoint", "/v1/chat/completions"),
        ("completion_window", "24h"),
    ],
}
_FALLBACK: list[tuple[str, Any]] = [("model", "small"), ("input", "Say hello"), ("prompt", "Say hello")]

Members = list[tuple[bytes, bytes]]


def _written(members: Members) -> bytes:
    return b"{" + b",".join(name + b":" + value for name, value in members) + b"}"


@st.composite
def _nearly_right(draw: st.DrawFn, path: str) -> bytes:
    """A right body with a few members changed, added, given twice, or left out; perhaps with a few bytes broken."""
    members = [
        (json.dumps(name).encode(), json.dumps(value).encode()) for name, value in _GOOD.get(path, _FALLBACK)
    ]
    for _ in range(draw(st.integers(0, 4))):
        name = json.dumps(draw(_names)).encode()
        known = [index for index, one in enumerate(members) if one[0] == name]
        match draw(st.sampled_from(("set", "set", "set", "twice", "drop"))):
            case "set" if known:
                members[known[0]] = (name, draw(_raw_values))
            case "drop" if known:
                del members[known[0]]
            case _:
                members.insert(draw(st.integers(0, len(members))), (name, draw(_raw_values)))
    body = _written(members)
    if draw(st.integers(0, 5)) == 0:
        at = draw(st.integers(0, len(body)))
        body = body[:at] + draw(st.binary(max_size=3)) + body[at + draw(st.integers(0, 3)) :]
    return body


_NESTED = (
    b"[" * 100_000,
    b'{"model":"small","messages":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    b'{"model":"small","messages":[{"role":"user","content":' + b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + b"}]}",
    b'{"model":"small","messages":[{"role":"user","content":"a"}],"tools":' + b"[" * 9_000 + b"]" * 9_000 + b"}",
    b'{"model":"small","input":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    b'{"model":"small","messages":[' + b'{"role":"user","content":"a"},' * 20_000 + b'{"role":"user"}]}',
    b"x" * 1_100_000,
)  # fmt: skip


def bodies(path: str) -> st.SearchStrategy[bytes]:
    return st.one_of(
        _nearly_right(path),
        _nearly_right(path),
        _nearly_right(path),
        st.binary(max_size=200),
        _values.map(lambda value: json.dumps(value).encode()),
        st.sampled_from((*_NASTY, *_NESTED)),
    )


# ---------------------------------------------------------------------- headers

#: What a server lets through in the value of a header: no line ends, which end the header.
_header_bytes = st.binary(max_size=60).map(lambda raw: raw.translate(None, b"\r\n\x00"))
_header_values = st.one_of(
    _header_bytes,
    st.sampled_from(
        [b"", b" ", b"\t", b"x" * 10_000, b"a" * 80, b"\xff" * 50, "Grüße".encode(), b"a,b,,c", b"," * 2_000,
         b"%0d%0aset-cookie: a=b", b"req\x7f", b"-1", b"0", b"1" * 5_000, b"1.5", b"NaN", b"identity", b"gzip",
         b"chunked", b"application/json", b"multipart/form-data", b"multipart/form-data; boundary=",
         b"multipart/form-data; boundary=" + b"b" * 300, b"text/plain; charset=utf-16"]
    ),
)  # fmt: skip
_header_names = st.one_of(
    st.sampled_from(
        [b"x-request-id", b"x-llmops-feature", b"x-llmops-user", b"x-llmops-tags", b"x-llmops-session",
         b"idempotency-key", b"content-type", b"content-length", b"content-encoding", b"transfer-encoding", b"accept",
         b"host", b"cookie", b"x-forwarded-for", b"x-forwarded-host", b"openai-organization", b"openai-project",
         b"openai-beta", b"api-key", b"expect", b"traceparent", b"range", b"x-simulator", b"x-stainless-retry-count",
         b"x-llmops-priority", b"x-llmops-cache", b"x-http-method-override", b"upgrade"]
    ),
    st.binary(min_size=1, max_size=12).map(lambda raw: raw.hex().encode()),
)  # fmt: skip
_right_key = (b"authorization", b"Bearer " + KEY.encode())
_wrong_keys = st.one_of(
    st.just([]),
    _header_values.map(lambda value: [(b"authorization", value)]),
    _header_values.map(lambda value: [(b"authorization", b"Bearer " + value)]),
    st.just([_right_key, (b"authorization", b"Bearer other")]),
)
_keys = st.integers(0, 9).flatmap(lambda number: st.just([_right_key]) if number else _wrong_keys)
headers: st.SearchStrategy[Headers] = st.builds(
    lambda key, more: [*key, *more],
    _keys,
    st.one_of(st.just([]), st.lists(st.tuples(_header_names, _header_values), max_size=3)),
)

# ---------------------------------------------------------------------- addresses

_segments = st.one_of(
    st.sampled_from(
        ["v1", "chat", "completions", "models", "small", "..", ".", "", "%2e%2e", "admin", "x" * 300]
    ),
    _texts.map(lambda text: text.replace("/", "")),
)


def _filled(template: str) -> st.SearchStrategy[str]:
    """An address of the table with anything in the place of its parameters."""
    parts = [_segments if part.startswith("{") else st.just(part) for part in template.strip("/").split("/")]
    return st.tuples(*parts).map(lambda found: "/" + "/".join(found))


paths: st.SearchStrategy[str] = st.one_of(
    *(st.just(path) for path in ORDINARY),
    *(_filled(template) for template in OTHERS),
    st.lists(_segments, max_size=5).map(lambda found: "/v1/" + "/".join(found)),
)
methods = st.one_of(
    st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT"]),
    st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=1, max_size=12),
)


def _cut(body: bytes, places: list[int]) -> list[bytes]:
    borders = sorted({0, len(body), *(place % (len(body) + 1) for place in places)})
    return [body[start:end] for start, end in itertools.pairwise(borders)] or [b""]


@st.composite
def bodied(draw: st.DrawFn) -> Request:
    """POSTs of what the pipeline serves, with a body that may be anything."""
    path = draw(st.sampled_from(sorted(ORDINARY)))
    pieces = _cut(draw(bodies(path)), draw(st.lists(st.integers(0, 10_000), max_size=3)))
    return Request("POST", path, draw(headers), pieces, gone=draw(st.integers(0, 9)) == 0)


_part_names = st.one_of(
    st.sampled_from(["model", "file", "image", "image[]", "mask", "prompt", "stream", "n", "response_format", "size"]),
    _texts,
)  # fmt: skip
_part_heads = st.one_of(
    st.tuples(_part_names, st.sampled_from(["", '; filename="a.wav"', "; filename=", "; filename*=x", ";;", '; name="model"'])).map(
        lambda found: f'Content-Disposition: form-data; name="{found[0]}"{found[1]}'.encode("utf-8", "replace")
    ),
    st.binary(max_size=40),
)  # fmt: skip
_part_values = st.one_of(
    st.sampled_from(
        [b"small", b"true", b"1", b"auto", b"\r\n", b"--b", b"\r\n--b--", b"\n--b\r\n", b"x" * 300_000]
    ),
    st.binary(max_size=60),
)
_RIGHT = [
    (b'Content-Disposition: form-data; name="model"', b"small"),
    (b'Content-Disposition: form-data; name="file"; filename="a.wav"', b"RIFF...."),
    (b'Content-Disposition: form-data; name="image"; filename="a.png"', b"PNG"),
]


@st.composite
def formed(draw: st.DrawFn) -> Request:
    """Forms, nearly right: parts in any order, some of them odd, perhaps with a few bytes broken or cut off."""
    parts = draw(
        st.permutations([*_RIGHT, *draw(st.lists(st.tuples(_part_heads, _part_values), max_size=3))])
    )
    body = b"".join(b"--b\r\n" + head + b"\r\n\r\n" + value + b"\r\n" for head, value in parts) + b"--b--\r\n"
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(body)))
        body = body[:at] + draw(st.binary(max_size=3)) + body[at + draw(st.integers(0, 9)) :]
    if draw(st.integers(0, 5)) == 0:
        body = body[: draw(st.integers(0, len(body)))]
    path = draw(st.sampled_from([path for path, endpoint in sorted(ORDINARY.items()) if endpoint.forms]))
    kind = draw(
        st.sampled_from([b"multipart/form-data; boundary=b", b'Multipart/Form-Data; x="y"; boundary="b"'])
    )
    pieces = _cut(body, draw(st.lists(st.integers(0, 10_000), max_size=5)))
    return Request(
        "POST", path, [_right_key, (b"content-type", kind)], pieces, gone=draw(st.integers(0, 9)) == 0
    )


@st.composite
def anywhere(draw: st.DrawFn) -> Request:
    """Any method at any address of the data plane, those of its table above all."""
    path = draw(paths)
    body = draw(st.one_of(st.just(b""), bodies(path)))
    query = draw(
        st.one_of(st.just(b""), st.binary(max_size=40), st.sampled_from([b"limit=-1", b"after=%00&a=b"]))
    )
    return Request(draw(methods), path, draw(headers), [body], query)
