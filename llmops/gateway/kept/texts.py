"""What is asked, of some calls of a project that says so: as policies left it, without keys and passwords, cut to a bound, sealed
before it is written down. Where the project has it kept for people, also the request as it can be sent again, and the answer
(``answers.py``). Nothing of a call waits or fails for it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import msgspec

from llmops.core.redaction import redact_text
from llmops.core.verdicts import REDACT
from llmops.gateway.endpoints.base import Raw, decode_any
from llmops.gateway.kept.answers import Keeping, beginning
from llmops.gateway.policing.texts import asked_places
from llmops.usage.records import kept_text_identity

if TYPE_CHECKING:
    from llmops.gateway.call import Call
    from llmops.gateway.endpoints.base import Members

#: Of the texts of one call together, in bytes; of a request that can be sent again just as much.
MOST_BYTES = 32 * 1024
#: A larger request is not looked at for it: that would take longer than it is worth.
MOST_ASKED_BYTES = 1024 * 1024
#: A caller's wish that this call be among those that are kept, where its project keeps any.
KEEP = b"x-llmops-keep-texts"
#: Members that are about people, or about what a provider keeps, and not about what is answered.
_LEFT_OUT = frozenset(
    (
        "user", "safety_identifier", "metadata", "prompt_cache_key", "prompt_cache_retention", "store", "stream", "stream_options",
        "background", "model",
    )
)  # fmt: skip
_encode = msgspec.json.Encoder().encode


def keep(call: Call) -> None:
    """Write the texts of the request into the journal, if this call is one of those; sealed under the installation's key."""
    asked, resolution, origin, seal = call.asked, call.resolution, call.origin, call.plane.seal
    assert asked is not None and resolution is not None
    if seal is None or origin is None or asked.size > MOST_ASKED_BYTES:
        return
    wished = call.headers.get(KEEP, b"").strip().lower() == b"true"
    if resolution.keeps < 100 and not wished and random.random() * 100 >= resolution.keeps:
        return
    readable = resolution.reads
    policed = call.policing is not None and any(one.action == REDACT for one in call.policing.verdicts)
    # Large ones are read while the call goes on, which may leave out some of them.
    members = dict(asked.members)
    sent, version = members, call.prompt[1] if call.prompt is not None else 0
    if call.unexpanded is not None and version and not policed:
        # By its prompt's name, so that another version can be asked the same. What policies took out is still in its variables.
        sent = dict(call.unexpanded)
    identity = kept_text_identity(call.id)

    def work() -> str:
        texts = [(place.text.role, place.text.text) for place in asked_places(members)[0]]
        kept = bounded(texts)
        told: Any = _readable(sent, version, policed, texts, kept) if readable else kept
        return seal(_encode(told).decode(), identity) if kept or readable else ""

    call.plane.aside.keep(origin, work, size=asked.size, readable=readable, part="")
    if readable:
        Keeping(call, origin, seal)


def _readable(
    members: Members, version: int, policed: bool, texts: list[tuple[str, str]], kept: list[tuple[str, str]]
) -> dict[str, Any]:
    """``texts`` as pairs of role and text; ``request``: the members to send again, None where they are too many.

    ``cut``: the texts are not whole; ``changed``: something was taken out of what was asked. ``version`` is that of the prompt
    which the request names, 0 for none.
    """
    sent = {
        name: decode_any(raw)
        for name, raw in members.items()
        if name not in _LEFT_OUT and isinstance(raw, Raw)
    }
    request = _plain(sent)
    changed = policed or request != sent
    named = request.get("prompt")
    if version and isinstance(named, dict):
        named["version"] = version
    cut = sum(len(text.encode("utf-8", "replace")) for _, text in texts) > MOST_BYTES
    whole = not cut and len(_encode(request)) <= MOST_BYTES
    return {"texts": kept, "request": request if whole else None, "cut": cut, "changed": changed}


def _plain(value: Any) -> Any:
    """A copy whose texts hold no secrets. Members keep their names and shapes: a schema may well speak of passwords."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return value


def bounded(texts: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Redacted, the last ones first where there is not room for all: what is asked now stands at the end."""
    left, kept = MOST_BYTES, list[tuple[str, str]]()
    for role, text in reversed(texts):
        if left <= 0:
            break
        # Cut before it is read for secrets, and again after it, by bytes.
        cut = _cut(redact_text(beginning(text, left * 2)), left)
        left -= len(cut.encode())
        kept.append((role, cut))
    return kept[::-1]


def _cut(text: str, most: int) -> str:
    return text if len(text) * 4 <= most else text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore")
