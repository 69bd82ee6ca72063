"""A revision as a file: its very bytes, their SHA-256, and where it comes from. Pure.

``{"llmops_revision": 1, "number", "digest", "author", "reason", "published_at", "document": {...}}``. The digest is taken over the
bytes of ``document`` as they stand in the file, so a file that was formatted anew is as refused as one that was changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from llmops.core.digests import canonical_json, equal, sha256_hex
from llmops.core.errors import InvalidRequest
from llmops.core.texts import text_problem
from llmops.serving.snapshot import FORMAT, RevisionDocument, decode_document

FILE_FORMAT = 1
_MOST_TOLD, _DEEPEST = 300, 100


class _File(msgspec.Struct):
    llmops_revision: int
    digest: str
    document: msgspec.Raw
    number: int = 0
    author: str = ""
    reason: str = ""
    published_at: str = ""


@dataclass(frozen=True, slots=True)
class Carried:
    """What a file holds: ``encoded`` are the document's very bytes, ``origin`` what the file tells about it."""

    encoded: bytes
    digest: str
    document: RevisionDocument
    origin: dict[str, Any]


def packed(document: str, *, digest: str, number: int, author: str, reason: str, published_at: str) -> bytes:
    """The file of a revision. ``document`` is its canonical JSON as stored."""
    about = canonical_json(
        {
            "llmops_revision": FILE_FORMAT,
            "number": number,
            "digest": digest,
            "author": author,
            "reason": reason,
            "published_at": published_at,
        }
    )
    return about[:-1] + b',"document":' + document.encode() + b"}\n"


def unpacked(data: bytes, *, digest: str = "") -> Carried:
    """What a file holds, once it is certain that it is what was exported. ``digest``: what the one who exported it names.

    Raises ``InvalidRequest`` with ``param`` ``file`` or ``digest`` that says what does not fit.
    """
    try:
        file = msgspec.json.decode(data, type=_File)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise InvalidRequest(
            "file: this is no revision. Give a file that a console wrote when a revision was exported.",
            param="file",
        ) from None
    if file.llmops_revision != FILE_FORMAT:
        raise InvalidRequest(
            f"file: it has the form {file.llmops_revision}, and this version reads {FILE_FORMAT}. Export it from a console "
            "of the same version.",
            param="file",
        )
    encoded = bytes(file.document)
    found = sha256_hex(encoded)
    if not equal(found, file.digest):
        raise InvalidRequest(
            f"file: it was changed after it was exported: its document has the digest {found[:12]}…, not "
            f"{file.digest[:12]}… as it says. Export it again, and carry it without opening it in an editor.",
            param="file",
        )
    if digest and not equal(found, digest.strip().lower()):
        raise InvalidRequest(
            f"digest: the file holds {found[:12]}…, which is another revision than the one that you name.",
            param="digest",
        )
    try:
        plain = msgspec.json.decode(encoded)
        _check_texts(plain)
        document = decode_document(encoded)
        strange = _strange(plain, msgspec.to_builtins(document))
    except (msgspec.MsgspecError, RecursionError) as wrong:
        raise InvalidRequest(
            f"file: its document cannot be served by this version ({wrong}). Update this console first.",
            param="file",
        ) from None
    if strange:
        raise InvalidRequest(
            f"file: this version does not know {strange}, which the document holds. Update this console first.",
            param="file",
        )
    _check_form(plain, encoded, document)
    if not 0 <= file.number < 10**9 or any(map(text_problem, (file.author, file.reason, file.published_at))):
        raise InvalidRequest(
            "file: what it tells of its revision is none of a console's. Export it again.", param="file"
        )
    told: dict[str, str | int] = {
        "number": file.number,
        "author": file.author,
        "reason": file.reason,
        "published_at": file.published_at,
    }
    return Carried(encoded, found, document, {key: _told(value) for key, value in told.items()})


def _check_form(plain: Any, encoded: bytes, document: RevisionDocument) -> None:
    """Raises ``InvalidRequest`` for what no console wrote, though it can be read."""
    if document.format != FORMAT:
        raise InvalidRequest(
            f"file: its document has the form {document.format}, and this version serves {FORMAT}. Export it from a console of "
            "the same version.",
            param="file",
        )
    # Of a member that is given twice, readers take either: what one of them shows, another would serve.
    if msgspec.json.encode(plain, order="sorted") != encoded:
        raise InvalidRequest(
            "file: its document is not in the form in which consoles write one (a member given twice, or another order). Export "
            "it again.",
            param="file",
        )


def _check_texts(value: Any, depth: int = 0) -> None:
    """Raises ``InvalidRequest`` for what a database refuses to hold, and for what is nested deeper than whoever reads it goes."""
    if depth > _DEEPEST or (isinstance(value, str) and "\0" in value):
        raise InvalidRequest(
            "file: its document holds what cannot be kept: a NUL, or values nested too deeply.", param="file"
        )
    if isinstance(value, dict):
        for name, item in value.items():
            _check_texts(name, depth)
            _check_texts(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_texts(item, depth + 1)


def _told(value: str | int) -> str | int:
    return value[:_MOST_TOLD] if isinstance(value, str) else value


def _strange(stored: Any, known: Any, path: str = "") -> str:
    """The first member of ``stored`` that reading it has lost; empty when there is none."""
    if isinstance(stored, dict) and isinstance(known, dict):
        for name, value in stored.items():
            here = f"{path}.{name}" if path else name
            if name not in known:
                return here
            if found := _strange(value, known[name], here):
                return found
    elif isinstance(stored, list) and isinstance(known, list | tuple):
        for index, value in enumerate(stored):
            if found := _strange(value, known[index], f"{path}[{index}]"):
                return found
    return ""
