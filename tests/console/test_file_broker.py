"""The broker made of files: whoever looks while others write meets whole messages, each once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty
from typing import Any
from uuid import uuid4

import pytest
from kombu import Connection

from console import file_broker

WRITERS, EACH = 4, 50


@pytest.fixture
def broker(name: str, tmp_path: Path) -> Iterator[Connection]:
    file_broker.use()
    folders = {name: tmp_path / name for name in ("queue", "processed", "control")}
    for folder in folders.values():
        folder.mkdir()
    options = {
        "data_folder_in": str(folders["queue"]), "data_folder_out": str(folders["queue"]), "store_processed": True,
        "processed_folder": str(folders["processed"]), "control_folder": str(folders["control"]),
    }  # fmt: skip
    with Connection("filesystem://", transport_options=options) as connection:
        # Bound before anybody races: that is written by whoever starts first.
        connection.SimpleQueue(name).close()
        yield connection


@pytest.fixture
def name() -> str:
    """Another queue each time: what is bound a process remembers, although this directory is new."""
    return f"work-{uuid4().hex}"


def put(connection: Connection, name: str, count: int) -> None:
    with connection.clone() as own:
        queue = own.SimpleQueue(name)
        for number in range(count):
            queue.put({"number": number, "padding": "x" * 20_000})
        queue.close()


def taken(connection: Connection, name: str) -> list[Any]:
    queue, found = connection.SimpleQueue(name), []
    try:
        while True:
            message = queue.get(block=False)
            found.append(message.payload["number"])
            message.ack()
    except Empty:
        return found
    finally:
        queue.close()


def test_a_message_is_there_whole_or_not_at_all(broker: Connection, name: str, tmp_path: Path) -> None:
    with ThreadPoolExecutor(WRITERS) as pool:
        writing = [pool.submit(put, broker, name, EACH) for _ in range(WRITERS)]
        while not all(one.done() for one in writing):
            for path in (tmp_path / "queue").glob(f"*.{name}.msg"):
                json.loads(path.read_bytes())
        for one in writing:
            one.result()
    assert sorted(taken(broker, name)) == sorted(list(range(EACH)) * WRITERS)
    assert list((tmp_path / "queue").iterdir()) == []


def test_messages_are_taken_in_the_order_in_which_they_were_sent(broker: Connection, name: str) -> None:
    """Also those of the same moment, of which there are many here."""
    put(broker, name, EACH)
    assert taken(broker, name) == list(range(EACH))


def test_readers_beside_writers_lose_nothing_and_end_for_nothing(broker: Connection, name: str) -> None:
    with ThreadPoolExecutor(WRITERS) as pool:
        writing = [pool.submit(put, broker, name, EACH) for _ in range(WRITERS)]
        found: list[int] = []
        while not all(one.done() for one in writing):
            found += taken(broker, name)
        for one in writing:
            one.result()
    assert sorted(found + taken(broker, name)) == sorted(list(range(EACH)) * WRITERS)


def test_what_a_dead_writer_left_ends_no_reader(
    broker: Connection, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "queue" / f"0_dead.{name}.msg").write_bytes(b"")
    (tmp_path / "queue" / f"0_dying.{name}.msg.unfinished").write_bytes(b'{"bo')
    put(broker, name, 1)
    assert taken(broker, name) == [0]
    assert "cannot be read and is dropped" in caplog.text
