"""How long sounds say they are."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.core.sounds import HEAD_BYTES, TAIL_BYTES, seconds_said
from tests.gateway.making import wav


def said(data: bytes) -> float | None:
    return seconds_said(data[:HEAD_BYTES], data[-TAIL_BYTES:], len(data))


def mp3(frame: bytes, size: int, *, id3: int = 0) -> bytes:
    tag = b""
    if id3:
        tag = b"ID3\x04\0\0" + bytes((0, 0, id3 >> 7, id3 & 0x7F)) + b"\0" * id3
    return tag + frame + b"\0" * (size - len(frame))


def ogg(position: int, head: bytes) -> bytes:
    page = struct.pack("<4sBBqIIIB", b"OggS", 0, 0, position, 1, 0, 0, 0)
    return struct.pack("<4sBBqIIIB", b"OggS", 0, 2, 0, 1, 0, 0, 1) + head + b"\0" * 5_000 + page


def flac(rate: int, samples: int) -> bytes:
    packed = rate << 44 | 1 << 41 | 15 << 36 | samples
    return b"fLaC\0\0\0\x22" + b"\0" * 10 + packed.to_bytes(8, "big") + b"\0" * 100


@pytest.mark.parametrize(
    ("data", "seconds"),
    [
        (wav(2.5), 2.5),
        (wav(2.5).replace(b"data" + struct.pack("<I", 20_000), b"data\xff\xff\xff\xff"), 2.5),
        (wav(2.5).replace(struct.pack("<II", 8_000, 8_000), struct.pack("<II", 8_000, 160_000)), 2.5),
        (wav(2.5).replace(struct.pack("<II", 8_000, 8_000), struct.pack("<II", 8_000, 1)), 2.5),
        (wav(2.5).replace(b"fmt \x10\0\0\0\1", b"fmt \x10\0\0\0\6").replace(struct.pack("<II", 8_000, 8_000), struct.pack("<II", 1, 8_000)), 2.5),
        (flac(44_100, 44_100 * 90), 90),
        (flac(44_100, 0), None),
        (ogg(48_000 * 7, b"OpusHead" + b"\0" * 20), 7),
        (ogg(16_000 * 7, b"\x01vorbis" + struct.pack("<IBI", 0, 1, 16_000)), 7),
        (ogg(-1, b"OpusHead"), None),
        (mp3(b"\xff\xfb\x90\x64", 16_000 * 60), 60),
        (mp3(b"\xff\xfb\x90\x64", 16_000 * 60, id3=500), 60),
        (mp3(b"\xff\xf3\x84\xc4", 8_000 * 10), 10),
        (mp3(b"\xff\xfb\x90\x64" + b"\0" * 32 + b"Xing\0\0\0\x01" + struct.pack(">I", 1_000), 50_000), 1_152_000 / 44_100),
        (mp3(b"\xff\xfb\x90\x64" + b"\0" * 32 + b"Xing\0\0\0\x01\0\0\0\x01", 4_000_000), 100),
        (b"\x1aE\xdf\xa3webm", None),
        (b"", None),
        (b"RIFF\0\0\0\0WAVEfmt ", None),
    ],
)  # fmt: skip
def test_a_header_says_how_long_its_sound_is(data: bytes, seconds: float | None) -> None:
    assert said(data) == seconds


@given(
    st.sampled_from([b"RIFF\0\0\0\0WAVE", b"fLaC", b"OggS", b"ID3", b"\xff\xfb", b""]),
    st.binary(max_size=300),
)
def test_whatever_a_file_holds_it_says_a_length_or_nothing(start: bytes, rest: bytes) -> None:
    found = said(start + rest)
    assert found is None or found >= 0
