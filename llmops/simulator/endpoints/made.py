"""Tiny valid pictures and sounds, and how long a sound is."""

from __future__ import annotations

import math
import struct
import zlib
from hashlib import blake2b

from llmops.simulator.generation import Answer
from llmops.simulator.ledger import Usage

_RATE = 8_000
_LETTERS_A_SECOND = 15
#: Of compressed sounds, whose length no header says here.
_BYTES_A_SECOND = 4_000


class Made(Answer, frozen=True, kw_only=True):
    """An answer whose tokens are known as a whole; what is out of it in pieces has cost as large a part of them."""

    total: Usage

    def usage(self, pieces: int | None = None) -> Usage:
        if pieces is None or not self.pieces:
            return self.total
        done = self.total.completion * pieces // self.pieces
        return Usage(prompt=self.total.prompt, completion=done, images=0, seconds=self.total.seconds)


def picture(said: bytes, number: int = 0) -> bytes:
    """A PNG of 8 x 8 in a colour of its own."""
    colour = blake2b(said + b"%d" % number, digest_size=3).digest()
    rows = (b"\0" + colour * 8) * 8
    head = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )


def seconds_to_say(characters: int) -> float:
    return max(0.1, characters / _LETTERS_A_SECOND)


def sound(said: str) -> bytes:
    """A WAV (8 kHz, 8 bit, mono) as long as the text takes to say, with a tone of its own."""
    seed = blake2b(said.encode("utf-8", "surrogatepass"), digest_size=2).digest()
    period = 20 + seed[0] % 40
    wave = bytes(128 + round(60 * math.sin(2 * math.pi * at / period)) for at in range(period))
    count = round(seconds_to_say(len(said)) * _RATE)
    samples = (wave * (count // period + 1))[:count]
    head = struct.pack("<4sIHHIIHH4sI", b"fmt ", 16, 1, 1, _RATE, _RATE, 1, 8, b"data", len(samples))
    return struct.pack("<4sI4s", b"RIFF", 4 + len(head) + len(samples), b"WAVE") + head + samples


def seconds_in(data: bytes) -> int:
    """How many seconds of sound were begun: exactly for a plain WAV, at 32 kbit/s for all else."""
    if data[:4] == b"RIFF" and data[8:16] == b"WAVEfmt " and len(data) > 44:
        [rate] = struct.unpack_from("<I", data, 28)
        return max(1, math.ceil((len(data) - 44) / rate)) if rate else 1
    return max(1, math.ceil(len(data) / _BYTES_A_SECOND))
