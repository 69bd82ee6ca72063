"""What the pipeline asks of an endpoint, and reading request bodies without touching what need not change.

A body is split into its top-level members as raw JSON; only members that are looked at are decoded, and a member that
need not change goes to the provider with its very bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple, Protocol

import msgspec

from llmops.core.errors import InvalidRequest
from llmops.gateway.forms.spool import Upload
from llmops.gateway.routing import Target
from llmops.gateway.streaming.events import Relay
from llmops.providers.pricing import Units
from llmops.providers.rules import FLEX, PRIORITY
from llmops.usage.records import Media, Tokens

Raw = msgspec.Raw
Members = dict[str, Raw]

MAX_MODEL = 200
MAX_TOKENS = 10_000_000
MAX_USER = 256
#: Usage beyond this is not believed (a provider's mistake must not empty a budget's arithmetic).
MAX_USAGE_TOKENS = 100_000_000

decode_any = msgspec.json.Decoder().decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
encode = msgspec.json.Encoder().encode
_POSITION = re.compile(r"\(byte (\d+)\)")
NULL = b"null"
#: A letter, digit or sign of ASCII that JSON wrote as an escape: the words of such a text cannot be looked for in its bytes.
ESCAPED = re.compile(rb"\\u00[2-7]")


#: A model needs a price; it may have one; whatever its price, this costs nothing.
BILLED, UNLESS_FREE, FREE = 0, 1, 2


class Reference(NamedTuple):
    """An object that the provider keeps, named by the member ``param``; ``kind`` None takes any kind.

    ``code`` is the error's code when it is not there, ``what`` the kind in words.
    """

    kind: str | None
    id: str
    param: str
    code: str
    what: str


def voice_of(voice: Any, param: str) -> tuple[Reference, ...]:
    """A voice that was made at the provider, not one of those that everybody has."""
    name = voice.get("id") if isinstance(voice, Mapping) else None
    return (Reference(None, name, param, "not_found", "voice"),) if isinstance(name, str) and name else ()


class Asked:
    """A request body, as far as the data plane looks into it. ``cap`` is the largest output the caller allows a choice."""

    __slots__ = (
        "background",
        "billing",
        "cap",
        "cap_field",
        "choices",
        "keeps",
        "media",
        "members",
        "model",
        "own_cap",
        "prompt",
        "refers",
        "size",
        "stream",
        "tells",
        "tier",
        "uncapped",
        "units",
        "unmetered",
        "user",
        "uses",
        "wants_usage",
    )

    def __init__(self, members: Members, size: int, *, model: str, user: str) -> None:
        self.members = members
        self.size = size
        self.model = model
        self.user = user
        self.media = 0
        self.stream = False
        self.wants_usage = False
        self.choices = 1
        self.cap: int | None = None
        self.cap_field = ""
        #: False: the cap comes with the prompt that the caller named
        self.own_cap = True
        #: service tier that was asked for, where it may have prices of its own
        self.tier = ""
        #: what comes into play beside text: flags of ``providers.pricing``
        self.uses = 0
        #: at most so much of what is not billed in tokens; None for text, which is billed in tokens alone
        self.units: Units | None = None
        #: the provider takes no output cap for it
        self.uncapped = False
        #: whether it is billed: ``BILLED``, ``UNLESS_FREE`` or ``FREE``
        self.billing = BILLED
        #: what of it is billed by measures that are not known here, in words
        self.unmetered = ""
        #: the kind of object (``gateway.objects``) that the provider keeps of the answer
        self.keeps = ""
        #: kept objects that it names
        self.refers: tuple[Reference, ...] = ()
        #: ids of items that it tells in full, which may be kept or not
        self.tells: tuple[str, ...] = ()
        #: the answer comes at once, and the work goes on at the provider
        self.background = False
        #: a prompt is named: nothing else was read yet (``gateway.prompting``)
        self.prompt = False


def asked_of(members: Members, size: int) -> Asked:
    """What every endpoint's body says: for whom, and for which model (empty: the project's default route decides).

    Raises ``InvalidRequest``.
    """
    named = "model" in members and bytes(members["model"]) != NULL
    return Asked(
        members,
        size,
        model=text_member(members, "model", required=True, longest=MAX_MODEL) if named else "",
        user=text_member(members, "user", longest=MAX_USER),
    )


def naming_a_prompt(members: Members, size: int) -> Asked | None:
    """A body that names a prompt, of which nothing else is read before the prompt is; None for any other."""
    if bytes(members["prompt"]) == NULL:
        return None
    asked = Asked(members, size, model="", user="")
    asked.prompt = True
    return asked


class ErrorInside(Exception):
    """An answer with the status of success holds an error in place of an answer: ``raw``, its JSON."""

    def __init__(self, raw: bytes) -> None:
        super().__init__("an error in place of an answer")
        self.raw = raw


class Whole:
    """What is read of an answer in one piece; the client gets its bytes as they are."""

    __slots__ = ("failed", "finish", "id", "items", "model", "status", "thought", "tier", "tools", "usage")

    def __init__(self, *, model: str = "", usage: bytes | None = None, finish: str = "") -> None:
        self.model = model
        #: as JSON
        self.usage = usage
        self.finish = finish
        #: the answer itself says that it failed: the code
        self.failed = ""
        #: under which the provider may keep the answer, and how far it is with it
        self.id = ""
        self.status = ""
        #: the service tier that answered
        self.tier = ""
        #: names of the tools that the model called
        self.tools: list[str] = []
        #: ids of what is inside of it, by which later requests may name it
        self.items: list[str] = []
        #: it shows that the model thought, not what
        self.thought = False


class Endpoint(Protocol):
    """``name`` is what calls are recorded under, ``path`` follows the provider's base URL."""

    name: str
    path: str
    #: whether output is billed, and a price for it must be known
    has_output: bool
    #: whether its bodies may be forms; then it is one of ``making.MediaEndpoint``
    forms: bool
    #: what a model must be for: one of ``providers.rules.CAPABILITIES``
    capability: str

    def read(self, body: bytes) -> Asked:
        """Raises ``InvalidRequest`` naming the member that is wrong."""
        ...

    def encode(self, asked: Asked, target: Target, cap: int | None) -> bytes | Upload:
        """The body for a target; ``cap`` is the output cap to set, None leaves it as it is."""
        ...

    def input_bound(self, asked: Asked, target: Target) -> int:
        """At least as many tokens as the provider can bill as input."""
        ...

    def count_input(self, asked: Asked, target: Target) -> int:
        """The same, closer and slower: run it off the event loop."""
        ...

    def usage(self, raw: bytes | None) -> Tokens | None:
        """Billed tokens of a ``usage`` member in JSON; None when there is none that can be believed."""
        ...

    def whole(self, body: bytes) -> Whole | None:
        """What an answer in one piece says; None when it is not a JSON object. Raises ``ErrorInside``."""
        ...

    def text(self, body: bytes) -> str:
        """The output of an answer in one piece, for counting; the body itself when it has another shape."""
        ...

    def relay(self, asked: Asked) -> Relay:
        """The reader of an answer's events."""
        ...


def read_members(body: bytes) -> Members:
    """The members of a JSON object. Of a member that is given twice the last counts, and only that is sent on."""
    try:
        return _decode_members(body)
    except msgspec.ValidationError:
        raise InvalidRequest("The body must be a JSON object.") from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(
            f"The body is not valid JSON{_where(body, error)}.", code="invalid_json"
        ) from None


def _where(body: bytes, error: Exception) -> str:
    if not body.strip():
        return ": it is empty"
    if (found := _POSITION.search(str(error))) is not None:
        return f" (near byte {found[1]})"
    return f": it ends after {len(body)} bytes, before the JSON does" if "truncated" in str(error) else ""


def member(members: Members, name: str) -> Any:
    """The decoded value of a member; None when it is absent or null."""
    raw = members.get(name)
    if raw is None:
        return None
    try:
        return decode_any(raw)
    except RecursionError:
        raise InvalidRequest(f"{name}: nested too deeply.", param=name) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InvalidRequest(f"{name}: not valid JSON.", param=name, code="invalid_json") from None


def text_member(members: Members, name: str, *, longest: int, required: bool = False) -> str:
    value = member(members, name)
    if value is None:
        if required:
            raise InvalidRequest(
                f"{name}: missing; it is needed.", param=name, code="missing_required_parameter"
            )
        return ""
    if not isinstance(value, str):
        raise InvalidRequest(f"{name}: must be text.", param=name, code="invalid_type")
    if required and not value:
        raise InvalidRequest(f"{name}: must not be empty.", param=name)
    if len(value) > longest:
        raise InvalidRequest(f"{name}: longer than {longest} characters.", param=name)
    return value


def flag_member(members: Members, name: str) -> bool:
    value = member(members, name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name}: must be true or false.", param=name, code="invalid_type")
    return value


#: Tiers by the names under which they can be asked for. ``auto`` and the rest are priced as the default one.
_TIERS = {"flex": FLEX, "priority": PRIORITY, "fast": PRIORITY}
_STANDARD_TIERS = frozenset(("", "auto", "default", "standard", "scale"))


def tier_of(name: object) -> str:
    """The tier that ``service_tier`` asks for where its prices may be others than the standard ones; empty otherwise."""
    if not isinstance(name, str) or name in _STANDARD_TIERS:
        return ""
    return _TIERS.get(name, name[:16])


def tier_answered(name: str | None) -> str:
    """The tier that an answer names, as it is recorded: empty for the default one."""
    return "" if not name or name in ("default", "auto") else name[:16]


def count_member(members: Members, name: str, *, largest: int) -> int | None:
    """A whole number from 1 to ``largest``, or None."""
    value = member(members, name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRequest(f"{name}: must be a whole number.", param=name, code="invalid_type")
    if value < 1:
        raise InvalidRequest(f"{name}: must be at least 1, not {value}.", param=name)
    if value > largest:
        raise InvalidRequest(f"{name}: {value} is more than the {largest} that are possible.", param=name)
    return value


def with_defaults(members: Members, target: Target, *, parameters: bool = True) -> dict[str, Any]:
    """Members for a target: its own model name, its default parameters where the caller gave none."""
    sent: dict[str, Any] = dict(members)
    sent["model"] = target.entry.upstream_model
    if not parameters:
        return sent
    for name, value in target.entry.parameters.items():
        if name not in sent:
            sent[name] = value
    return sent


class _Head(msgspec.Struct):
    model: Any = ""
    usage: Raw = Raw()
    error: Raw = Raw()
    id: Any = ""
    service_tier: Any = ""


_decode_head = msgspec.json.Decoder(_Head).decode


def whole_of(body: bytes) -> Whole | None:
    """What the answers of every endpoint say. Raises ``ErrorInside``."""
    try:
        head = _decode_head(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return whole_from(head)


class Head(Protocol):
    model: Any
    usage: Raw
    error: Raw
    id: Any
    service_tier: Any


def whole_from(head: Head, *, error_inside: bool = True) -> Whole:
    """``error_inside``: an ``error`` stands in place of an answer. Raises ``ErrorInside``."""
    if error_inside and head.error and bytes(head.error) != NULL:
        raise ErrorInside(bytes(head.error))
    found = Whole(model=_text(head.model), usage=bytes(head.usage))
    found.id = _text(head.id)
    found.tier = _text(head.service_tier)
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_USAGE_TOKENS)]


class _Details(msgspec.Struct):
    cached_tokens: _Count | None = None
    cache_write_tokens: _Count | None = None
    reasoning_tokens: _Count | None = None
    audio_tokens: _Count | None = None
    image_tokens: _Count | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: Annotated[int, msgspec.Meta(ge=1, le=MAX_USAGE_TOKENS)]
    completion_tokens: _Count = 0
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


_decode_usage = msgspec.json.Decoder(_Usage).decode
_NO_DETAILS = _Details()


def believable_usage(raw: bytes | None) -> Tokens | None:
    """Tokens of OpenAI's ``usage`` member: whole numbers, not negative, not absurd, and never an input of nothing."""
    if not raw or raw == NULL:
        return None
    try:
        usage = _decode_usage(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    asked = usage.prompt_tokens_details or _NO_DETAILS
    answered = usage.completion_tokens_details or _NO_DETAILS
    cached, written = asked.cached_tokens or 0, asked.cache_write_tokens or 0
    reasoned = answered.reasoning_tokens or 0
    media = None
    if asked.audio_tokens or asked.image_tokens or answered.audio_tokens or answered.image_tokens:
        media = Media(
            audio_input=min(asked.audio_tokens or 0, usage.prompt_tokens),
            image_input=min(asked.image_tokens or 0, usage.prompt_tokens),
            audio_output=min(answered.audio_tokens or 0, usage.completion_tokens),
            image_output=min(answered.image_tokens or 0, usage.completion_tokens),
        )
    return Tokens(
        input=usage.prompt_tokens,
        cached=min(cached, usage.prompt_tokens),
        cache_write=min(written, max(0, usage.prompt_tokens - cached)),
        output=usage.completion_tokens,
        reasoning=min(reasoned, usage.completion_tokens),
        media=media,
    )
