"""A provider that says the credential it was asked with, as servers do that echo requests: nobody here learns it."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.gateway.masking import Masking
from llmops.usage.records import encode
from tests.gateway.keeping import MINE, bytes_of, configure, get, gives
from tests.gateway.rig import (
    DONE,
    SECRET,
    Asked,
    Reply,
    Rig,
    Upstream,
    a_credential,
    a_model,
    answers,
    chunk,
    streams,
)

HIDDEN = "*" * len(SECRET)


def nowhere(rig: Rig, *said: bytes | dict[str, str]) -> None:
    """The credential is in nothing that went out and in nothing that is written down."""
    for one in said:
        assert SECRET not in (one.decode("latin-1") if isinstance(one, bytes) else str(one))
    for record in rig.records():
        assert SECRET.encode() not in encode(record)


@pytest.mark.parametrize(
    "members",
    [
        {"text": f"You sent Authorization: Bearer {SECRET}"},
        {"model": SECRET},
        {"id": SECRET, "system_fingerprint": SECRET},
    ],
)
async def test_whole_answers(rig: Rig, upstream: Upstream, members: dict[str, Any]) -> None:
    upstream.does(answers(**members))
    answer = await rig.chat()
    assert answer.status == 200
    assert HIDDEN in answer.body.decode()
    assert int(answer.headers["content-length"]) == len(answer.body)
    nowhere(rig, answer.body, answer.headers)


async def test_a_finish_reason_and_a_tools_name(rig: Rig, upstream: Upstream) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": SECRET, "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    for streamed in (False, True):
        if streamed:
            delta = {"tool_calls": [{"index": 0} | call]}
            piece = chunk(choices=[{"index": 0, "delta": delta, "finish_reason": SECRET}])
            upstream.does(streams(piece, DONE))
        else:
            choice = {"index": 0, "message": message, "finish_reason": SECRET}
            upstream.does(answers(choices=[choice]))
        answer = await rig.chat(stream=streamed)
        assert answer.status == 200
        nowhere(rig, answer.body)


@pytest.mark.parametrize(
    "first",
    [
        chunk(f"your key is {SECRET}"),
        f": authorization: Bearer {SECRET}\n\n".encode(),
        chunk("x", model=SECRET, id=SECRET),
    ],
)
async def test_streams(rig: Rig, upstream: Upstream, first: bytes) -> None:
    upstream.does(streams(first, chunk("x"), chunk(finish="stop"), DONE))
    answer = await rig.chat(stream=True, store=True)
    assert (answer.status, answer.body.endswith(DONE)) == (200, True)
    assert HIDDEN in answer.body.decode()
    nowhere(rig, answer.body, answer.headers)


async def test_what_is_downloaded_and_its_headers(rig: Rig, upstream: Upstream) -> None:
    configure(rig)
    rig.plane.objects.made("file", "file-1", key=MINE, provider="up")

    async def script(asked: Asked, reply: Reply) -> None:
        body = f"key {SECRET} end".encode()
        await reply.head(
            200,
            {
                "content-type": f"text/plain; key={SECRET}",
                "etag": SECRET,
                "content-disposition": f'attachment; filename="{SECRET}"',
                "last-modified": "now",
                "content-length": str(len(body)),
            },
        )
        await reply.raw(body)

    upstream.does(script)
    answer = await get(rig, "/v1/files/file-1/content")
    assert answer.body == f"key {HIDDEN} end".encode()
    assert (answer.headers["last-modified"], "etag" in answer.headers) == ("now", False)
    nowhere(rig, answer.body, answer.headers)
    upstream.does(gives({"id": "file-1", "filename": SECRET}))
    answer = await get(rig, "/v1/files/file-1")
    assert answer.json == {"id": "file-1", "filename": HIDDEN}


async def test_sound_and_its_type(rig: Rig, upstream: Upstream) -> None:
    rig.configure(models=(a_model("tts", capabilities=("speech",)),))
    upstream.does(bytes_of(f"RIFF{SECRET} and so on".encode(), kind=f"audio/{SECRET}"))
    answer = await rig.call({"model": "tts", "input": "Hi", "voice": "alloy"}, path="/v1/audio/speech")
    assert answer.status == 200
    nowhere(rig, answer.body, answer.headers)


async def test_a_credential_that_is_a_word_is_left_where_it_stands(rig: Rig, upstream: Upstream) -> None:
    rig.configure(credentials={"up": (a_credential(secret="EMPTY"),)})
    upstream.does(answers("EMPTY is a word"))
    assert json.loads((await rig.chat()).body)["choices"][0]["message"]["content"] == "EMPTY is a word"


# ---------------------------------------------------------------------- in pieces


@given(
    st.lists(st.sampled_from(["abab", "aba", "ab", "a", "b", "c", "abac"]), max_size=12).map("".join),
    st.sampled_from(["abac", "aab", "aaa", "abab", "c"]),
    st.lists(st.integers(0, 48), max_size=8),
)
def test_wherever_it_is_cut_the_same_goes_out_and_as_early_as_can_be(
    text: str, secret: str, cuts: list[int]
) -> None:
    data, key = text.encode(), secret.encode()
    mask, out = Masking(key), b""
    edges = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
    for start, end in pairwise(edges):
        out += mask.feed(data[start:end])
        assert end - len(out) < len(key), "no more waits than may be its beginning"
        assert key not in out
    out += mask.rest()
    assert len(out) == len(data)
    assert key not in out
    # What is masked in one piece is masked in all cuttings alike.
    assert out == data.replace(key, b"*" * len(key))


@pytest.mark.parametrize("cut", [1, len(SECRET) // 2, len(SECRET) - 1])
async def test_a_download_with_the_key_on_the_seam_of_two_pieces(
    rig: Rig, upstream: Upstream, cut: int
) -> None:
    configure(rig)
    rig.plane.objects.made("file", "file-1", key=MINE, provider="up")
    whole = b"before " + SECRET.encode() + b" after" + SECRET[:5].encode()
    at = len(b"before ") + cut

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/plain", "content-length": str(len(whole))})
        await reply.raw(whole[:at])
        await asyncio.sleep(0.05)
        await reply.raw(whole[at:])

    upstream.does(script)
    answer = await get(rig, "/v1/files/file-1/content")
    assert answer.complete
    assert answer.body == whole.replace(SECRET.encode(), HIDDEN.encode())


async def test_a_sound_with_the_key_on_the_seam_of_two_pieces(rig: Rig, upstream: Upstream) -> None:
    rig.configure(models=[a_model("voice", max_output_tokens=0)])

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "audio/mpeg", "transfer-encoding": "chunked"})
        for piece in (b"ID3" + SECRET[:9].encode(), SECRET[9:].encode() + b"end" + SECRET[:4].encode()):
            await reply.chunk(piece)
            await asyncio.sleep(0.05)
        await reply.raw(b"0\r\n\r\n")

    upstream.does(script)
    body = {"model": "voice", "input": "Hello", "voice": "alloy"}
    answer = await rig.call(body, path="/v1/audio/speech")
    assert (answer.complete, answer.body) == (True, b"ID3" + HIDDEN.encode() + b"end" + SECRET[:4].encode())
