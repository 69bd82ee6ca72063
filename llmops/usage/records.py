"""The journal's records: what a data-plane process writes down, one JSON object a line.

A segment file begins with ``Opened``. Before an attempt goes upstream the process appends ``Held``; when the attempt
has ended it appends ``Ended``, which settles the hold of that attempt, and with the last attempt carries the whole
call. A call that never went upstream (refused) is an ``Ended`` without a hold. Every ``Held`` has exactly one ``Ended``
(an attempt that in the end was not made, one with cost 0), and the one with the outcome comes last of its call. ``n``
counts the records of a journal from 1 without gaps over all its segments; a torn last line (no newline) is what a dying
process left and is ignored.

Times are Unix nanoseconds, durations microseconds, amounts nanodollars, ids UUIDs as text. Records are trees, so that the
collector of cycles need not look at them (``gc=False``).
"""

from __future__ import annotations

from typing import Any

import msgspec

from llmops.core.verdicts import Verdict


class Opened(msgspec.Struct, tag="open", tag_field="t", omit_defaults=True, gc=False):
    n: int
    at: int
    journal: str
    segment: int
    host: str
    pid: int
    version: int = 1


class HeldCharge(msgspec.Struct, array_like=True, gc=False):
    """What one attempt holds on one window of a hard budget."""

    window: int
    held: int


class Charge(msgspec.Struct, array_like=True, gc=False):
    """What one attempt held on a window and what of it was spent; ``overrun`` is what it cost beyond the hold."""

    window: int
    held: int
    cost: int
    overrun: int = 0


class Shortage(msgspec.Struct, array_like=True, gc=False):
    """A window of a hard budget that had too little left for a call, and the limit that it had."""

    window: int
    limit: int


class Origin(msgspec.Struct, omit_defaults=True, gc=False):
    """Who asked for what: the members of a call that are known before it goes upstream.

    ``user`` and ``prompt`` are digests (16 hex digits); whatever else stands there is digested when it is booked.
    """

    call: str
    started: int
    project: str
    key: str
    endpoint: str
    revision: int
    route: str = ""
    streamed: bool = False
    request: str = ""
    feature: str = ""
    user: str = ""
    session: str = ""
    tags: list[str] = []
    prompt: str = ""
    bytes_in: int = 0
    #: of the prompt that the request named
    prompt_name: str = ""
    prompt_version: int = 0
    #: the key's earlier secret was sent, which works for a while beside the present one
    old_secret: bool = False


class Held(msgspec.Struct, tag="hold", tag_field="t", omit_defaults=True, gc=False):
    """An attempt is about to go upstream. If no ``Ended`` follows, its outcome is unknown."""

    n: int
    at: int
    attempt: int
    origin: Origin
    model: str
    model_version: int
    provider: str
    charges: list[HeldCharge] = []
    soft: list[str] = []
    worst_cost: int = 0
    cap: int | None = None


class Attempt(msgspec.Struct, omit_defaults=True, gc=False):
    """One try at one target, for the call's story. ``code`` is empty for success."""

    n: int
    model: str
    provider: str
    credential: str = ""
    status: int = 0
    code: str = ""
    note: str = ""
    started_us: int = 0
    total_us: int = 0
    ttft_us: int | None = None
    provider_us: int | None = None
    provider_request: str = ""
    cost: int = 0
    why: str = ""


class Media(msgspec.Struct, omit_defaults=True, gc=False):
    """What of a call was not text: tokens that ``input`` and ``output`` of ``Tokens`` include, and what is billed in other
    units: characters spoken, seconds of audio heard (begun ones count), images made."""

    audio_input: int = 0
    image_input: int = 0
    audio_output: int = 0
    image_output: int = 0
    characters: int = 0
    seconds: int = 0
    images: int = 0


class Tokens(msgspec.Struct, omit_defaults=True, gc=False):
    """Billed tokens. ``input`` includes ``cached`` and ``cache_write``; ``output`` includes ``reasoning``.

    ``tier`` is the service tier that the answer names, empty for the default one.
    """

    input: int = 0
    cached: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    estimated: bool = False
    media: Media | None = None
    tier: str = ""


#: Behind the request id of a call: the calls that asked moderation models about it.
_JUDGED = ".judged"
#: The longest request id that a data plane takes.
LONGEST_REQUEST_ID = 80


def judged_id(request_id: str) -> str:
    """The request id of the calls that ask moderation models about the request of this id, so that all of it is found."""
    return request_id[: LONGEST_REQUEST_ID - len(_JUDGED)] + _JUDGED


#: Tools of one call whose names are kept, and the length of such a name.
MAX_TOOLS, MAX_TOOL_NAME = 16, 64


class Outcome(msgspec.Struct, omit_defaults=True, gc=False):
    """What became of a call. ``status`` is one of ``usage.models.Call.STATUSES``.

    ``cost`` is the sum over its attempts, as their ``Ended`` records carry it.
    """

    status: str
    http: int
    model: str = ""
    model_version: int | None = None
    provider: str = ""
    upstream_model: str = ""
    code: str = ""
    message: str = ""
    finish: str = ""
    #: names of the tools that the model called
    tools: list[str] = []
    #: what policies said, at most ``core.verdicts.MAX_VERDICTS``
    verdicts: list[Verdict] = []
    attempts: list[Attempt] = []
    retries: int = 0
    fallbacks: int = 0
    tokens: Tokens = msgspec.field(default_factory=Tokens)
    cap: int | None = None
    clamped: bool = False
    cost: int = 0
    total_us: int = 0
    ttft_us: int | None = None
    upstream_us: int | None = None
    queue_us: int = 0
    #: how the response cache was used (empty: not at all), and what an answer out of it had cost
    cache: str = ""
    saved: int = 0
    provider_us: int | None = None
    provider_request: str = ""
    bytes_out: int = 0
    #: cut off at the cap that the caller had set
    capped: bool = False


class Ended(msgspec.Struct, tag="end", tag_field="t", omit_defaults=True, gc=False):
    """An attempt has ended: its charges are settled. ``outcome`` comes with the last attempt of the call.

    ``cost`` is what this attempt cost in all, overrun included; ``cause`` says why there is an overrun. ``attempt`` is 0 for a
    call that never went upstream. ``short`` is of the hard budget that refused it.
    """

    n: int
    at: int
    attempt: int
    origin: Origin
    charges: list[Charge] = []
    soft: list[str] = []
    cost: int = 0
    outcome: Outcome | None = None
    cause: str = ""
    short: Shortage | None = None


class CredentialSeen(msgspec.Struct, tag="credential", tag_field="t", omit_defaults=True, gc=False):
    """A provider refused (or, with a ``status`` below 400, first accepted again) a credential, named by its id."""

    n: int
    at: int
    credential: str
    status: int
    code: str = ""


class Kept(msgspec.Struct, tag="kept", tag_field="t", omit_defaults=True, gc=False):
    """A provider made an object and keeps it (a response, a file, a batch ...): it belongs to the project whose key asked.

    ``model`` is the slug of the route or model that was named. ``details`` is what whoever looks after the object later
    must know of the call that made it; ``due`` (0: never) is when somebody is to look at it first. ``items`` are the ids
    that things inside of it have, as far as they are known.
    """

    n: int
    at: int
    object: str
    kind: str
    project: str
    key: str
    provider: str
    credential: str = ""
    model: str = ""
    details: dict[str, Any] = {}
    due: int = 0
    items: list[str] = []


class Holds(msgspec.Struct, tag="holds", tag_field="t", omit_defaults=True, gc=False):
    """A kept object of a project holds things with ids of their own: output items of a response that was streamed."""

    n: int
    at: int
    object: str
    provider: str
    project: str
    items: list[str]


class Gone(msgspec.Struct, tag="gone", tag_field="t", omit_defaults=True, gc=False):
    """The provider deleted an object that it had kept for a project."""

    n: int
    at: int
    object: str
    provider: str
    project: str


class Metered(msgspec.Struct, tag="metered", tag_field="t", omit_defaults=True, gc=False):
    """What a kept object came to cost, once it ended; ``end`` is the whole call that says so.

    Booked only if the object's cost is not booked yet: of any number of these records for one object one counts.
    """

    n: int
    at: int
    object: str
    provider: str
    end: Ended


class TextKept(msgspec.Struct, tag="text", tag_field="t", omit_defaults=True, gc=False):
    """What a call asked, of a project that has it kept: ``sealed`` is JSON of ``[role, text]`` pairs under a master key.

    ``readable``: kept for people, as an object (``usage.texts``). ``part`` ``answer``: what it was answered.
    """

    n: int
    at: int
    call: str
    project: str
    started: int
    sealed: str
    route: str = ""
    readable: bool = False
    part: str = ""


#: ``TextKept.part``
ANSWER = "answer"


def kept_answer_identity(call: object) -> str:
    """What the sealed answer of a call is bound to."""
    return f"usage.kept_answer:{call}"


def kept_text_identity(call: object) -> str:
    """What the sealed texts of a call are bound to."""
    return f"usage.kept_text:{call}"


class BreakerSeen(msgspec.Struct, tag="breaker", tag_field="t", omit_defaults=True, gc=False):
    """A breaker of this process opened or closed (``state`` ``open`` or ``closed``). ``by`` says what made it: the failure
    ``rate``, a ``probe``, ``calls`` that went well, ``another`` process, an operator's ``reset``. ``until`` is when the next
    probe is due."""

    n: int
    at: int
    route: str
    model: str
    provider: str
    state: str
    by: str
    until: int = 0
    why: str = ""
    #: only calls of this project are kept away; of all without one
    project: str = ""


class LimitTold(msgspec.Struct, array_like=True, gc=False):
    """What a provider says is left of a credential's limits with a model (its own name); a limit of 0 was not told."""

    credential: str
    model: str
    requests: int = 0
    requests_left: int = 0
    tokens: int = 0
    tokens_left: int = 0


class LimitsSeen(msgspec.Struct, tag="limits", tag_field="t", omit_defaults=True, gc=False):
    """What answers told of rate limits since the last such record of this process."""

    n: int
    at: int
    told: list[LimitTold]


Record = (
    Opened
    | Held
    | Ended
    | CredentialSeen
    | BreakerSeen
    | Kept
    | Holds
    | Gone
    | Metered
    | TextKept
    | LimitsSeen
)

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)


def encode(record: Record) -> bytes:
    """One line, with its newline."""
    return _encoder.encode(record) + b"\n"


def decode(line: bytes) -> Any:
    """The record of one line. Raises ``msgspec.DecodeError`` for a line that is not one."""
    return _decoder.decode(line)
