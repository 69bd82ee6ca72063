"""What images and audio look like on the wire, for tests: forms, answers, events."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from typing import Any

from llmops.serving.snapshot import PriceRow
from tests.gateway.rig import USD, Asked, Reply, Rig, Script

#: Of nanodollars a token (or character, second, image).
TEXT_IN, AUDIO_IN, IMAGE_IN, TEXT_OUT, AUDIO_OUT, IMAGE_OUT = 1_000, 6_000, 10_000, 2_000, 12_000, 40_000
TOKEN_PRICES = (
    PriceRow("input", 0, USD),
    PriceRow("audio_input", 0, 6 * USD),
    PriceRow("image_input", 0, 10 * USD),
    PriceRow("output", 0, 2 * USD),
    PriceRow("audio_output", 0, 12 * USD),
    PriceRow("image_output", 0, 40 * USD),
)
BOUNDARY = "a-boundary-of-the-client"


def per(unit: str, nano: int) -> tuple[PriceRow, ...]:
    """A price for each character, second or image, and none for tokens."""
    return (PriceRow(unit, 0, nano * 10**6),)


def wav(seconds: float = 0.5, rate: int = 8_000) -> bytes:
    frames = b"\x80" * int(seconds * rate)
    head = struct.pack("<4sIHHIIHH4sI", b"fmt ", 16, 1, 1, rate, rate, 1, 8, b"data", len(frames))
    return struct.pack("<4sI4s", b"RIFF", 4 + len(head) + len(frames), b"WAVE") + head + frames


def png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0\0"))
        + chunk(b"IEND", b"")
    )


def form(*parts: tuple[str, Any], boundary: str = BOUNDARY) -> bytes:
    """Fields as text, files as ``(file name, type, bytes)``, in this order."""
    lines = []
    for name, value in parts:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"'
        if isinstance(value, tuple):
            file, kind, data = value
            lines.append(
                f'{head}; filename="{file}"\r\nContent-Type: {kind}\r\n\r\n'.encode() + data + b"\r\n"
            )
        else:
            lines.append(f"{head}\r\n\r\n{value}\r\n".encode())
    return b"".join(lines) + f"--{boundary}--\r\n".encode()


FORM_TYPE = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
SOUND = ("file", ("speech.wav", "audio/wav", wav()))
PICTURE = ("image", ("cat.png", "image/png", png()))


async def post_form(rig: Rig, path: str, *parts: tuple[str, Any], **how: Any) -> Any:
    headers = FORM_TYPE | how.pop("headers", {})
    return await rig.call(form(*parts), path=path, headers=headers, **how)


def says(content: Any, status: int = 200, kind: str = "application/json") -> Script:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.head(status, {"content-type": kind, "content-length": str(len(body))})
        await reply.raw(body)

    return script


def image_usage(inp: int = 20, out: int = 300, images: int = 0) -> dict[str, Any]:
    return {
        "input_tokens": inp,
        "output_tokens": out,
        "total_tokens": inp + out,
        "input_tokens_details": {"text_tokens": inp - images, "image_tokens": images},
    }


def images(count: int = 1, used: Any = None) -> dict[str, Any]:
    shown: dict[str, Any] = {"created": 1, "data": [{"b64_json": base64.b64encode(png()).decode()}] * count}
    return shown if used is None else shown | {"usage": used}


def heard_usage(audio: int = 14, text: int = 0, out: int = 8) -> dict[str, Any]:
    return {
        "type": "tokens",
        "input_tokens": audio + text,
        "output_tokens": out,
        "total_tokens": audio + text + out,
        "input_token_details": {"audio_tokens": audio, "text_tokens": text},
    }


def event(kind: str, **members: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind} | members)}\n\n".encode()
