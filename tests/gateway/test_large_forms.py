"""Large forms: where they lie meanwhile, how often they can be sent, and what is left when one breaks off."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from llmops.core.errors import ConsoleError, InvalidRequest, RequestTooLarge, ServiceUnavailable
from llmops.gateway.forms import multipart
from llmops.gateway.forms import spool as spool_module
from llmops.gateway.forms.multipart import read_form
from llmops.gateway.forms.spool import IN_MEMORY, Spool
from tests.gateway.forms import GOOD, LIMIT, Gone, at_once, body_of, field, form_of, kept, off_loop, sent


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_large_form_lies_in_a_file_without_a_name_and_can_be_sent_twice(tmp_path: Path) -> None:
    data = os.urandom(5 * IN_MEMORY)
    # Long enough not to stand in the file by chance.
    boundary = b"a-boundary-of-the-client"
    body = body_of(boundary, field("file", data, file="f.wav"), field("model", b"mine"))
    before = open_files()
    spool = Spool(off_loop, tmp_path)
    form = await form_of(
        [body[at : at + 70_000] for at in range(0, len(body), 70_000)], boundary, spool=spool
    )
    assert spool.on_disk
    assert len(spool._waiting) == 0
    assert not list(tmp_path.iterdir())
    for _ in range(2):
        assert await sent(form, {"model": b"yours"}) == body.replace(b"mine", b"yours")
    form.close()
    form.close()
    assert open_files() == before


async def test_a_small_form_touches_no_disk() -> None:
    spool = Spool(off_loop, Path("/nonexistent"))
    form = await form_of(body_of(b"b", field("file", b"x" * 1000, file="f"), GOOD), spool=spool)
    assert not spool.on_disk
    form.close()


async def test_no_more_is_taken_than_was_put_away(tmp_path: Path) -> None:
    """The client is asked for its next piece only after the last one lies on the disk."""
    taken = 0
    waiting: list[int] = []
    spool = Spool(off_loop, tmp_path)
    body = body_of(b"b", GOOD, field("file", b"x" * (4 * IN_MEMORY), file="f"))
    pieces = [body[at : at + 100_000] for at in range(0, len(body), 100_000)]

    async def receive() -> dict[str, Any]:
        nonlocal taken
        waiting.append(taken - spool._written)
        piece = pieces.pop(0)
        taken += len(piece)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    form = await read_form(
        receive, {b"content-type": b"multipart/form-data; boundary=b"}, spool, LIMIT, Gone, kept
    )
    assert max(waiting) <= IN_MEMORY + 100_000
    assert max(waiting[15:]) <= 400_000
    form.close()


@pytest.mark.parametrize(
    ("given", "sent_on"),
    [
        (b"multipart/form-data; boundary=b", "multipart/form-data; boundary=b"),
        (b'multipart/form-data; charset="; boundary=c"; boundary=b', "multipart/form-data; boundary=b"),
        (b'Multipart/Form-Data ; BOUNDARY="b"; x', "multipart/form-data; boundary=b"),
    ],
)
async def test_the_provider_is_told_the_boundary_that_was_read_and_nothing_else(
    tmp_path: Path, given: bytes, sent_on: str
) -> None:
    form = await form_of(
        body_of(b"b", GOOD), spool=Spool(off_loop, tmp_path), headers={b"content-type": given}
    )
    assert form.upload({}).content_type == sent_on
    form.close()


async def test_what_goes_wrong_leaves_no_file_open(tmp_path: Path) -> None:
    big = body_of(b"b", field("file", b"x" * (2 * IN_MEMORY), file="f"), GOOD)
    pieces = [big[at : at + 300_000] for at in range(0, len(big), 300_000)]
    before = open_files()
    with pytest.raises(RequestTooLarge):
        await form_of(pieces, spool=Spool(off_loop, tmp_path), largest=IN_MEMORY + 500_000)
    with pytest.raises(RequestTooLarge):
        await form_of(big, headers={b"content-length": b"%d" % len(big)}, largest=1000)
    with pytest.raises(InvalidRequest, match="cut short"):
        await form_of(pieces[:-1], spool=Spool(off_loop, tmp_path))
    with pytest.raises(ConsoleError, match="no room"):
        await form_of(pieces, spool=Spool(off_loop, tmp_path / "gone"))

    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": piece, "more_body": True} for piece in pieces
    ]
    messages.append({"type": "http.disconnect"})

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    headers = {b"content-type": b"multipart/form-data; boundary=b"}
    with pytest.raises(Gone):
        await read_form(receive, headers, Spool(off_loop, tmp_path), LIMIT, Gone, kept)
    assert open_files() == before
    assert not list(tmp_path.iterdir())


async def test_a_body_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multipart, "_GRACE_S", 0.05)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(3600)
        raise AssertionError

    headers = {b"content-type": b"multipart/form-data; boundary=b"}
    with pytest.raises(InvalidRequest, match="too slowly"):
        await read_form(receive, headers, Spool(off_loop), LIMIT, Gone, kept)


def test_spools_are_made_where_they_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    real = tempfile.TemporaryFile

    def spy(**how: Any) -> Any:
        seen.append(how["dir"])
        return real(**how)

    monkeypatch.setattr("llmops.gateway.forms.spool.tempfile.TemporaryFile", spy)
    spool = Spool(at_once, tmp_path)
    asyncio.run(spool.write(b"x" * (IN_MEMORY + 1)))
    assert seen == [tmp_path]
    spool.close()


async def test_who_ends_within_a_write_leaves_it_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A descriptor's number is another file's as soon as it was closed and one is opened: the journal's, for one."""
    writing, go_on = threading.Event(), threading.Event()
    real = os.pwrite

    def held(number: int, data: Any, at: int) -> int:
        if at:
            writing.set()
            assert go_on.wait(60)
        return real(number, data, at)

    monkeypatch.setattr(os, "pwrite", held)
    before = open_files()
    spool = Spool(off_loop, tmp_path)
    await spool.write(b"x" * (IN_MEMORY + 1))
    write = asyncio.ensure_future(spool.write(b"y" * IN_MEMORY))
    assert await asyncio.to_thread(writing.wait, 60)
    write.cancel()
    await asyncio.wait([write])
    spool.close()
    others = [os.open(tmp_path / f"journal{n}", os.O_RDWR | os.O_CREAT) for n in range(8)]
    go_on.set()
    await asyncio.get_running_loop().shutdown_default_executor()
    assert [os.fstat(other).st_size for other in others] == [0] * 8
    for other in others:
        os.close(other)
    assert open_files() <= before


async def test_uploads_leave_the_disk_some_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = os.statvfs(tmp_path)
    size, left = disk.f_frsize, spool_module.LEFT_FREE
    shown = {"free": left // size + 1}

    class Shown:
        f_blocks, f_frsize = disk.f_blocks, size

        @property
        def f_bavail(self) -> int:
            return shown["free"]

    monkeypatch.setattr(os, "fstatvfs", lambda number: Shown())
    spool = Spool(off_loop, tmp_path)
    with pytest.raises(ServiceUnavailable, match="no room") as found:
        await spool.write(b"x" * (IN_MEMORY + 1))
    assert found.value.retry_after == 30
    spool.close()
    shown["free"] = (left + 2 * IN_MEMORY) // size + 1
    spool = Spool(off_loop, tmp_path)
    await spool.write(b"x" * (IN_MEMORY + 1))
    assert spool.on_disk
    spool.close()
