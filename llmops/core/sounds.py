"""How long a sound is, as its own header says. Nothing is decoded, and nothing here is a bound: a header may lie."""

from __future__ import annotations

import struct

#: So much of the beginning and of the end of a file is enough.
HEAD_BYTES, TAIL_BYTES = 4_096, 66_000

# MPEG audio, layer III (ISO/IEC 11172-3, 13818-3): kbit/s by index, for version 1 and for versions 2 and 2.5.
_KBITS = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
#: Of WAV: PCM, floating point, and either with more channels.
_UNCOMPRESSED = (1, 3, 0xFFFE)
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


def seconds_said(head: bytes, tail: bytes, size: int) -> float | None:
    """Seconds of a WAV, FLAC, Ogg (Opus, Vorbis) or MP3 file of ``size`` bytes; None for what does not say.

    ``head`` and ``tail`` are its first and last bytes (``HEAD_BYTES``, ``TAIL_BYTES``).
    """
    try:
        if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
            return _wav(head, size)
        if head[:4] == b"fLaC":
            return _at_least(_flac(head), size / 288_000)
        if head[:4] == b"OggS":
            return _at_least(_ogg(head, tail), size / 64_000)
        return _at_least(_mp3(head, size), size / 40_000)
    except (struct.error, IndexError):
        return None


def _at_least(said: float | None, least: float) -> float | None:
    """No header makes a sound shorter than its bytes take at the highest rate of its format."""
    return None if said is None else max(said, least)


def _wav(head: bytes, size: int) -> float | None:
    at, rate = 12, 0
    while at + 8 <= len(head):
        name, length = struct.unpack_from("<4sI", head, at)
        if name == b"fmt ":
            coding, _, samples, said, block = struct.unpack_from("<HHIIH", head, at + 8)
            # Who plays what is not compressed goes by its samples.
            rate = samples * block if coding in _UNCOMPRESSED else said
        if name == b"data":
            # A stream does not know its length when it begins.
            return min(length, size - at - 8) / rate if rate else None
        at += 8 + length + length % 2
    return None


def _flac(head: bytes) -> float | None:
    """STREAMINFO is the first block (RFC 9639, section 8.2): 20 bits of rate, 3 + 5 bits, 36 bits of samples."""
    packed = int.from_bytes(head[18:26], "big")
    rate, samples = packed >> 44, packed & (2**36 - 1)
    return samples / rate if rate and samples else None


def _ogg(head: bytes, tail: bytes) -> float | None:
    """The position of the last page (RFC 3533) is in samples: of 48 kHz for Opus (RFC 7845), else of the codec's rate."""
    last = tail.rfind(b"OggS")
    position: int = struct.unpack_from("<q", tail, last + 6)[0] if last >= 0 else -1
    if position <= 0:
        return None
    if b"OpusHead" in head[:128]:
        return position / 48_000
    vorbis = head[:128].find(b"\x01vorbis")
    rate: int = struct.unpack_from("<I", head, vorbis + 12)[0] if vorbis >= 0 else 0
    return position / rate if rate else None


def _mp3(head: bytes, size: int) -> float | None:
    start = 0
    if head[:3] == b"ID3":
        # Seven bits a byte (ID3v2.4, section 6.2).
        start = 10 + sum(
            (byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=False)
        )
    frame = head[start : start + 200]
    if len(frame) < 4 or frame[0] != 0xFF or frame[1] & 0xE6 != 0xE2:
        return None
    version, index = frame[1] >> 3 & 3, frame[2] >> 4
    if version == 1 or not 0 < index < 15 or frame[2] >> 2 & 3 == 3:
        return None
    rate = _RATES[version][frame[2] >> 2 & 3]
    for mark in (b"Xing", b"Info"):
        at = frame.find(mark)
        if at >= 0 and frame[at + 7] & 1:
            frames: int = struct.unpack_from(">I", frame, at + 8)[0]
            return frames * (1152 if version == 3 else 576) / rate
    return (size - start) / (_KBITS[version == 3][index] * 125)
