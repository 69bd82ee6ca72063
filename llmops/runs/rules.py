"""What a run may be asked for, what it may cost, and what is tried again. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from llmops.core.digests import canonical_json
from llmops.core.errors import InvalidRequest
from llmops.core.texts import text_problem
from llmops.policies.checks.schema_effort import PATTERN_BYTES, Effort, why_refused

MOST_ASKED_BYTES = 2 * 1024 * 1024
MOST_SCHEMA_BYTES = 64 * 1024
MOST_TURNS, MOST_SECONDS, MOST_TOOLS, MOST_CALLS = 50, 3_600, 64, 32
#: What a model is shown of a tool's result, in bytes of text.
MOST_SHOWN_BYTES = 32 * 1024
#: A call that fails for a reason that passes is made again so often, with so much time between (seconds).
TRIES, BACK_OFF_S, LONGEST_BACK_OFF_S = 6, 1.0, 30.0

SYNC, STREAM, QUEUED = "sync", "stream", "queued"
MODES = (SYNC, STREAM, QUEUED)

Text = Annotated[str, Meta(max_length=1_000_000)]
Name = Annotated[str, Meta(min_length=1, max_length=200)]


class Prompt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A prompt by its name, as the data plane takes it; ``version`` is a number or a label."""

    id: Name
    version: Annotated[str, Meta(max_length=63)] | int | None = None
    variables: dict[str, Any] = {}


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A turn that was before the run. ``content`` is text, or the parts that the OpenAI API knows."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=64)]


class Bounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``turns`` of the model, ``seconds`` of work (waiting for people does not count), ``cost_nano`` nanodollars."""

    turns: Annotated[int, Meta(ge=1, le=MOST_TURNS)] = 10
    seconds: Annotated[int, Meta(ge=1, le=MOST_SECONDS)] = 300
    cost_nano: Annotated[int, Meta(ge=1, le=10**15)] | None = None


class Webhook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the end of the run is told. Without a ``secret`` (``whsec_<base64>``) one is made and given in the answer."""

    url: Annotated[str, Meta(min_length=1, max_length=1000)]
    secret: Annotated[str, Meta(max_length=200)] = ""


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Members of the request to the model that a run may set."""

    temperature: Annotated[float, Meta(ge=0, le=2)] | UnsetType = UNSET
    top_p: Annotated[float, Meta(ge=0, le=1)] | UnsetType = UNSET
    max_completion_tokens: Annotated[int, Meta(ge=1, le=1_000_000)] | UnsetType = UNSET
    seed: int | UnsetType = UNSET
    reasoning_effort: Annotated[str, Meta(max_length=20)] | UnsetType = UNSET


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a run is asked for. ``output`` is the JSON Schema that the answer has to follow."""

    prompt: Prompt | None = None
    messages: Annotated[list[Message], Meta(max_length=1_000)] = []
    model: Annotated[str, Meta(max_length=200)] = ""
    tools: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=63)]], Meta(max_length=MOST_TOOLS)
    ] = []
    output: dict[str, Any] | None = None
    bounds: Bounds = Bounds()
    parameters: Parameters = Parameters()
    mode: Literal["sync", "stream", "queued"] = "sync"
    webhook: Webhook | None = None
    feature: Annotated[str, Meta(max_length=100)] = ""
    user: Annotated[str, Meta(max_length=256)] = ""
    on_behalf_of: Annotated[str, Meta(max_length=150)] = ""


def read_asked(value: Any) -> Asked:
    """What ``value`` asks for. Raises ``InvalidRequest`` that names the member."""
    if not isinstance(value, Mapping):
        raise InvalidRequest("request: give an object as JSON.")
    try:
        size = len(canonical_json(dict(value)))
    except (ValueError, TypeError, RecursionError):
        raise InvalidRequest("request: this cannot be written as JSON.") from None
    if size > MOST_ASKED_BYTES:
        raise InvalidRequest(f"request: at most {MOST_ASKED_BYTES} bytes.")
    try:
        found = msgspec.convert(dict(value), Asked)
    except msgspec.ValidationError as wrong:
        message, _, path = str(wrong).partition(" - at `")
        place = path.removesuffix("`").removeprefix("$").lstrip(".")
        if "unknown field" in message:
            place = f"{place}.{message.split('`')[1]}".lstrip(".")
            message = "There is no such member"
        raise InvalidRequest(f"{place or 'request'}: {message}.", param=place or None) from None
    if not found.messages and found.prompt is None:
        raise InvalidRequest("messages: give messages, or name a prompt.", param="messages")
    if found.prompt is None and not any(one.role == "user" for one in found.messages):
        raise InvalidRequest("messages: at least one of them is the user's.", param="messages")
    if len(set(found.tools)) != len(found.tools):
        raise InvalidRequest("tools: each is named once.", param="tools")
    for name in ("model", "tools", "feature", "user", "on_behalf_of"):
        if problem := text_problem(getattr(found, name)):
            raise InvalidRequest(f"{name}: {problem}.", param=name)
    for name in ("feature", "user"):
        if not getattr(found, name).isprintable():
            raise InvalidRequest(f"{name}: characters that cannot be seen are refused.", param=name)
    if found.output is not None:
        check_output_schema(found.output)
    return found


def check_output_schema(schema: dict[str, Any]) -> Any:
    """A compiled JSON Schema of an answer, which is an object. Raises ``InvalidRequest``."""
    if len(canonical_json(schema)) > MOST_SCHEMA_BYTES:
        raise InvalidRequest(f"output: at most {MOST_SCHEMA_BYTES} bytes.", param="output")
    if schema.get("type") != "object":
        raise InvalidRequest('output: an answer is an object; write "type": "object".', param="output")
    import jsonschema_rs

    try:
        return jsonschema_rs.validator_for(
            schema,
            offline=True,
            pattern_options=jsonschema_rs.RegexOptions(size_limit=PATTERN_BYTES, dfa_size_limit=2_000_000),
        )
    except jsonschema_rs.ValidationError as wrong:
        raise InvalidRequest(
            f"output: not a JSON Schema: {why_refused(wrong.message)}.", param="output"
        ) from None
    except jsonschema_rs.ReferencingError:
        raise InvalidRequest("output: it refers to something that is not there.", param="output") from None
    except (ValueError, RecursionError) as wrong:
        raise InvalidRequest(f"output: it cannot be used: {str(wrong)[:200]}.", param="output") from None


def output_of(schema: dict[str, Any], text: str) -> tuple[Any, str]:
    """The answer that ``text`` is, and what is wrong with it (empty: nothing)."""
    import jsonschema_rs

    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None, "It is not JSON."
    if not Effort(schema, canonical_json(schema)).allows(found, len(text)):
        return None, "It has too many parts that the schema's references, choices or patterns multiply."
    try:
        check_output_schema(schema).validate(found)
    except jsonschema_rs.ValidationError as wrong:
        place = ".".join(map(str, wrong.instance_path)) or "the whole"
        return None, f"{place}: {wrong.message[:300]}"
    return found, ""


#: Codes of the data plane after which the same request, under the same key, may go well.
_PASSING = frozenset((
    "rate_limit_exceeded", "tokens_limit_exceeded", "concurrency_limit_exceeded", "queue_full", "queue_timeout",
    "bodies_full", "idempotency_in_progress", "idempotency_unavailable", "circuit_open", "service_unavailable", "budget_unavailable",
    "upstream_error", "upstream_timeout", "stream_interrupted", "gateway_unreachable", "gateway_cut",
))  # fmt: skip
#: What was asked may have been paid for, and the answer is gone: only another key asks again.
SPENT = frozenset(("idempotency_outcome_unknown", "idempotency_answer_not_kept"))


def passes(status: int, code: str) -> bool:
    """Whether what the data plane refused may go well a little later. A budget that is used up does not come back soon."""
    return code in _PASSING or (
        code not in SPENT and status in (408, 429, 500, 502, 503, 504) and code != "insufficient_quota"
    )


def back_off(tries: int, asked: float | None) -> float:
    """Seconds before try number ``tries`` (from 1): what was asked for, else twice as long each time."""
    return min(max(asked or 0.0, BACK_OFF_S * 2 ** max(0, tries - 1)), LONGEST_BACK_OFF_S)
