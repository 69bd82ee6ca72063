"""Prompts as documents hold them, kept in the process: most of a document is versions of prompts, which never change.

Each time the database is asked which version of each prompt is the newest and where its labels point, and what differs
from the last time is compiled anew. Nothing is trusted to be as it was because some time has passed or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec

from llmops.prompts import serving
from llmops.prompts.rendering import LAYERS
from llmops.prompts.serving import ServedPrompt, ServedVersion
from llmops.serving.models import Revision
from llmops.serving.snapshot import EMPTY_DOCUMENT, PromptEntry, PromptVersionEntry, RevisionDocument

#: Encoded bytes of prompts that a process keeps; as objects they take about three times as much. Of what is beyond, each
#: compilation reads all versions.
KEPT_BYTES = 64_000_000


@dataclass(frozen=True, slots=True)
class Piece:
    """A prompt's entry, and its canonical bytes; ``unproved`` and ``ceilings`` as ``validation.Facts`` has them."""

    entry: PromptEntry
    encoded: bytes
    unproved: dict[tuple[str, int], str]
    ceilings: dict[tuple[str, int], tuple[int, dict[str, int]]]


#: Everything that a piece is made of: whoever has an equal one has the same piece.
_Made = tuple[Any, ...]
_kept: dict[UUID, tuple[_Made, Piece]] = {}
#: The live revision that was read last: its number, its digest, and what it holds.
_read: tuple[tuple[int, str], RevisionDocument] = ((0, ""), EMPTY_DOCUMENT)


class _InPieces(RevisionDocument, frozen=True):
    prompts: tuple[msgspec.Raw, ...] = ()  # type: ignore[assignment]


def prompt_pieces() -> list[Piece]:
    """Of every prompt in use that has a version, by project and slug."""
    global _kept
    prompts, labels = serving.served_prompts(), serving.all_labels()
    labelled = serving.once_labelled(prompts)
    before, pieces, made = _kept, {}, {}
    for prompt in prompts:
        made[prompt.pk] = (
            prompt, labels.get(prompt.pk, {}), labelled.get(prompt.pk, ()), serving.NEWEST, serving.RENDERER,
        )  # fmt: skip
        earlier = before.get(prompt.pk)
        if earlier is not None and earlier[0] == made[prompt.pk]:
            pieces[prompt.pk] = earlier[1]
    anew = [prompt for prompt in prompts if prompt.pk not in pieces]
    versions = serving.served_versions(anew, labelled)
    for prompt in anew:
        if prompt.pk in versions:
            pieces[prompt.pk] = _piece(prompt, versions[prompt.pk], labels.get(prompt.pk, {}))
    room, kept = KEPT_BYTES, {}
    for pk, piece in pieces.items():
        # Whether a version can be rendered is tried each time while it cannot.
        if piece.unproved or len(piece.encoded) > room:
            continue
        room -= len(piece.encoded)
        kept[pk] = (made[pk], piece)
    _kept = kept
    return [pieces[prompt.pk] for prompt in prompts if prompt.pk in pieces]


def encode_in_pieces(document: RevisionDocument, prompts: Sequence[bytes]) -> bytes:
    """``snapshot.encode_document`` of ``document``, whose prompts are encoded already."""
    members = {name: getattr(document, name) for name in document.__struct_fields__}
    whole = _InPieces(**members | {"prompts": tuple(map(msgspec.Raw, prompts))})
    return msgspec.json.encode(whole, order="sorted")


def read_live(revision: Revision) -> RevisionDocument:
    """What the live revision holds; its prompts are those of the pieces where their bytes are equal, so that comparing the two
    takes no time. Raises ``msgspec.MsgspecError``."""
    global _read
    which, document = (revision.number, revision.digest), _read[1]
    if _read[0] == which:
        return document
    known = {piece.encoded: piece.entry for _, piece in _kept.values()}
    found = msgspec.json.decode(revision.document.encode(), type=_InPieces)
    members = {name: getattr(found, name) for name in RevisionDocument.__struct_fields__}
    members["prompts"] = tuple(
        known.get(bytes(raw)) or msgspec.json.decode(raw, type=PromptEntry) for raw in found.prompts
    )
    document = RevisionDocument(**members)
    _read = (which, document)
    return document


def _piece(prompt: ServedPrompt, versions: Sequence[ServedVersion], labels: dict[str, int]) -> Piece:
    entry = PromptEntry(
        slug=prompt.slug,
        project=prompt.project,
        versions=tuple(
            PromptVersionEntry(
                number=version.number,
                digest=version.digest,
                layers={name: version.content[name] for name in LAYERS if version.content[name]},
                variables=tuple(version.content["variables"]),
                output_schema=version.content["output_schema"],
                route=version.content["route"],
                parameters=version.content["parameters"],
            )
            for version in versions
        ),
        labels=labels,
    )
    return Piece(
        entry,
        msgspec.json.encode(entry, order="sorted"),
        {(prompt.name, number): why for number, why in serving.unproved(versions).items()},
        {(prompt.name, number): most for number, most in serving.ceilings(versions).items()},
    )
