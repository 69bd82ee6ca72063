"""From journal records to the row of a call. Pure.

Texts are cut to their columns and freed of NUL, numbers are kept within theirs: what a caller sent must not stop a
journal. Ids and amounts are not bent: a record whose ids or amounts make no sense is a ``BadRecord``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from llmops.core.digests import sha256_hex
from llmops.core.verdicts import MAX_VERDICTS
from llmops.usage.journal import Position
from llmops.usage.records import MAX_TOOL_NAME, MAX_TOOLS, Attempt, Ended, Held, Kept, Media, Origin, Outcome
from llmops.usage.signals import counts_of, signals_of
from llmops.usage.work import is_model_work

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INT, _SMALL, _BIG = 2**31 - 1, 2**15 - 1, 2**63 - 1
_DIGEST = re.compile(r"[0-9a-f]{0,16}")
_CANONICAL = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NO_MEDIA = (0,) * 7
_NOT_TIMED = (0,) * 4
_NO_SIGNALS = counts_of(0)
_EMPTY_LIST = "[]"
_encoder = msgspec.json.Encoder()
UNKNOWN = "unknown"
UNKNOWN_CODE = "outcome_unknown"
#: Statuses of calls that failed: of the provider's or of our own fault.
FAILED = frozenset(("error", "interrupted", UNKNOWN))
#: Who waits for less finds a place free; the rest is what it takes to ask for one. Microseconds.
WAITED = 1_000
#: An answer came out of the response cache.
CACHED = frozenset({"hit", "joined", "stale"})
STATUSES = frozenset({"ok", "error", "refused", "client_closed", "interrupted", UNKNOWN})

#: Columns of ``usage_call`` in the order of ``CallRow.values``. Ids and the moment among the first five are texts there, as
#: ``str`` writes UUIDs and times in UTC: making objects of them and texts again would cost more than all the others.
COLUMNS = (
    "id",
    "started_at",
    "journal_id",
    "project_id",
    "key_id",
    "endpoint",
    "route",
    "model",
    "model_version",
    "provider",
    "upstream_model",
    "revision",
    "status",
    "http_status",
    "error_code",
    "error_message",
    "streamed",
    "finish_reason",
    "tools",
    "attempts",
    "verdicts",
    "signals",
    "attempt_count",
    "retry_count",
    "fallback_count",
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "audio_input_tokens",
    "image_input_tokens",
    "audio_output_tokens",
    "image_output_tokens",
    "characters",
    "seconds",
    "images",
    "service_tier",
    "usage_estimated",
    "output_cap",
    "output_clamped",
    "cost_nano",
    "held_nano",
    "overrun_nano",
    "cache",
    "saved_nano",
    "charges",
    "total_us",
    "ttft_us",
    "upstream_us",
    "queue_us",
    "provider_us",
    "provider_request_id",
    "request_id",
    "feature",
    "user_digest",
    "session",
    "tags",
    "prompt_digest",
    "prompt_name",
    "prompt_version",
    "request_bytes",
    "response_bytes",
)


class BadRecord(Exception):
    """A record that decodes but cannot be booked; the text says why."""


class Identity(NamedTuple):
    """What a call's origin says of whose it is, found to make sense; ``call`` and ``started`` as they are stored."""

    call: str
    started: str
    project: UUID
    key: UUID


@dataclass(slots=True)
class OpenCall:
    """A call whose end has not been read. Amounts nanodollars; ``charges`` is window -> [held, cost, overrun]."""

    first: Position
    origin: Origin
    identity: Identity
    holds: dict[int, Held] = field(default_factory=dict)
    attempts: int = 0
    cost: int = 0
    held: int = 0
    overrun: int = 0
    charges: dict[int, list[int]] = field(default_factory=dict)
    soft: dict[str, int] = field(default_factory=dict)

    def end(self, ended: Ended) -> None:
        """Add what an attempt held and cost; its hold is over."""
        if ended.attempt:
            self.holds.pop(ended.attempt)
            self.attempts = max(self.attempts, ended.attempt)
        self.cost += ended.cost
        held = overrun = 0
        for charge in ended.charges:
            amounts = self.charges.setdefault(charge.window, [0, 0, 0])
            amounts[0] += charge.held
            amounts[1] += charge.cost
            amounts[2] += charge.overrun
            held, overrun = max(held, charge.held), max(overrun, charge.overrun)
        self.held += held
        self.overrun += overrun
        for budget in ended.soft:
            self.soft[budget] = self.soft.get(budget, 0) + ended.cost


#: Where these stand in ``Facts.sums``.
AT_INPUT, AT_OUTPUT, AT_COST, AT_SAVED = 5, 8, 17, 20
#: From here on they are counts of ``usage.signals``.
AT_SIGNALS = 27


@dataclass(slots=True)
class Facts:
    """What rollups need of a call. Durations are None where they say nothing about speed."""

    minute: int
    dimensions: tuple[UUID, UUID, str, str, str, str, str, str]
    sums: tuple[int, ...]
    total_us: int | None
    ttft_us: int | None
    overhead_us: int | None
    #: digest of the end user, empty when the call names none
    user: str = ""
    tags: tuple[str, ...] = ()
    #: name and version of the prompt that the call names, if it names one
    prompt: tuple[str, int] | None = None


@dataclass(slots=True)
class CallRow:
    values: tuple[Any, ...]
    facts: Facts


def identity(origin: Origin) -> Identity:
    """Raises ``BadRecord`` for ids that are none, and for times that no calendar has."""
    return Identity(
        call_id(origin.call),
        moment_text(origin.started),
        identifier(origin.project, "project"),
        identifier(origin.key, "key"),
    )


def call_row(call: OpenCall, outcome: Outcome, journal_id: str) -> CallRow:
    """The row of a call that has ended, and what rollups need of it."""
    origin, tokens = call.origin, outcome.tokens
    call_text, started, project, key = call.identity
    endpoint, route, model = text(origin.endpoint, 40), text(origin.route, 63), text(outcome.model, 63)
    feature, code, status = text(origin.feature, 100), text(outcome.code, 60), outcome.status
    attempts = outcome.attempts
    attempt_count = within(max(call.attempts, len(attempts)), _SMALL)
    total_us = within(outcome.total_us, _BIG)
    ttft_us, upstream_us = optional(outcome.ttft_us, _BIG), optional(outcome.upstream_us, _BIG)
    counts = (
        *bounded(
            (tokens.input, tokens.cached, tokens.cache_write, tokens.output, tokens.reasoning),
            _INT,
        ),
        *(_NO_MEDIA if tokens.media is None else _media(tokens.media)),
    )
    saved = within(outcome.saved, _BIG)
    retries, fallbacks = within(outcome.retries, _SMALL), within(outcome.fallbacks, _SMALL)
    queue_us = within(outcome.queue_us, _BIG)
    verdicts = outcome.verdicts[:MAX_VERDICTS]
    signals = signals_of(
        status=status, finish=outcome.finish, code=code, verdicts=verdicts, capped=outcome.capped
    )
    prompt, version = text(origin.prompt_name, 63), within(origin.prompt_version, _INT)
    user, tags = digested(origin.user), [text(tag, 200) for tag in origin.tags]
    values = (
        call_text,
        started,
        journal_id,
        _as_text(project),
        _as_text(key),
        endpoint,
        route,
        model,
        optional(outcome.model_version, _INT),
        text(outcome.provider, 63),
        text(outcome.upstream_model, 120),
        within(origin.revision, _INT),
        status,
        within(outcome.http, _SMALL),
        code,
        text(outcome.message, 500),
        origin.streamed,
        text(outcome.finish, 30),
        json_text([text(name, MAX_TOOL_NAME) for name in outcome.tools[:MAX_TOOLS]])
        if outcome.tools
        else _EMPTY_LIST,
        json_text(attempts) if attempts else _EMPTY_LIST,
        json_text(verdicts) if verdicts else _EMPTY_LIST,
        signals,
        attempt_count,
        retries,
        fallbacks,
        *counts,
        text(tokens.tier, 16),
        tokens.estimated,
        optional(outcome.cap, _INT),
        outcome.clamped,
        call.cost,
        call.held,
        call.overrun,
        text(outcome.cache, 8),
        saved,
        _charges(call) if call.charges or call.soft else _EMPTY_LIST,
        total_us,
        ttft_us,
        upstream_us,
        queue_us,
        optional(outcome.provider_us, _BIG),
        text(outcome.provider_request, 120),
        text(origin.request, 80),
        feature,
        user,
        text(origin.session, 100),
        json_text(tags) if tags else _EMPTY_LIST,
        digested(origin.prompt),
        prompt,
        version or None,
        within(origin.bytes_in, _INT),
        within(outcome.bytes_out, _INT),
    )
    worked = is_model_work(endpoint, model)
    answered = status == "ok" and attempt_count > 0 and worked
    timed = answered and upstream_us is not None
    facts = Facts(
        minute=origin.started // 60_000_000_000 * 60,
        dimensions=(project, key, endpoint, route, model, feature, status, code),
        sums=(
            1,
            int(origin.streamed),
            attempt_count,
            retries,
            int(fallbacks > 0),
            *counts,
            call.cost,
            call.overrun,
            int(outcome.cache in CACHED),
            saved,
            total_us if worked else 0,
            *((1, total_us, upstream_us or 0, queue_us) if timed else _NOT_TIMED),
            int(worked and queue_us >= WAITED),
            *(counts_of(signals) if worked else _NO_SIGNALS),
        ),
        total_us=total_us if answered else None,
        ttft_us=ttft_us if worked and status != UNKNOWN else None,
        overhead_us=max(0, total_us - (upstream_us or 0)) if timed else None,
        user=user,
        tags=tuple(dict.fromkeys(filter(None, tags))) if tags else (),
        prompt=(prompt, version) if prompt else None,
    )
    return CallRow(values, facts)


def _media(media: Media) -> tuple[int, ...]:
    return bounded(
        (
            media.audio_input,
            media.image_input,
            media.audio_output,
            media.image_output,
            media.characters,
            media.seconds,
            media.images,
        ),
        _INT,
    )


#: Columns of ``usage_kept_object`` that are written when an object is made, in the order of ``KeptRow.values``.
KEPT_COLUMNS = (
    "object_id",
    "provider",
    "kind",
    "project_id",
    "key_id",
    "credential",
    "model",
    "made_at",
    "gone_at",
    "details",
    "due_at",
)


@dataclass(slots=True)
class KeptRow:
    values: tuple[Any, ...]
    gone_at: datetime | None = None

    def columns(self) -> tuple[Any, ...]:
        at = KEPT_COLUMNS.index("gone_at")
        return (*self.values[:at], self.gone_at, *self.values[at:])


def kept_row(kept: Kept) -> KeptRow:
    """The row of an object that a provider keeps. Raises ``BadRecord``."""
    return KeptRow(
        (
            text(kept.object, 200),
            text(kept.provider, 63),
            text(kept.kind, 40),
            identifier(kept.project, "project"),
            identifier(kept.key, "key"),
            text(kept.credential, 36),
            text(kept.model, 63),
            moment(kept.at),
            json_text(kept.details),
            moment(kept.due) if kept.due else None,
        )
    )


def abandoned(call: OpenCall) -> Outcome:
    """The outcome of a call whose process died. Its open holds are ended at their full amount, as ``Ended`` records."""
    last = call.holds[max(call.holds)] if call.holds else None
    return Outcome(
        status=UNKNOWN,
        http=0,
        model=last.model if last else "",
        model_version=last.model_version if last else None,
        provider=last.provider if last else "",
        code=UNKNOWN_CODE,
        message="The process died before the outcome was written down; "
        + ("the attempt under way is charged at its full hold." if last else "no attempt was under way."),
        attempts=[
            Attempt(n=held.attempt, model=held.model, provider=held.provider, code=UNKNOWN_CODE)
            for held in call.holds.values()
        ],
        cap=last.cap if last else None,
    )


@lru_cache(maxsize=4096)
def _known_identifier(value: str) -> UUID:
    return UUID(value)


def identifier(value: str, what: str) -> UUID:
    try:
        return _known_identifier(value)
    except ValueError:
        raise _no_uuid(value, what) from None


def call_id(value: str) -> str:
    """The id of a call as text, in the one form in which it is stored."""
    if _CANONICAL.fullmatch(value):
        return value
    try:
        return str(UUID(value))
    except ValueError:
        raise _no_uuid(value, "call") from None


def _no_uuid(value: str, what: str) -> BadRecord:
    return BadRecord(f"names as its {what} {value[:80]!r}, which is not a UUID")


@lru_cache(maxsize=4096)
def _as_text(value: UUID) -> str:
    return str(value)


def moment(nanoseconds: int) -> datetime:
    try:
        return _EPOCH + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        raise _no_time(nanoseconds) from None


def moment_text(nanoseconds: int) -> str:
    """``str`` of ``moment``."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    microseconds = rest // 1000
    try:
        whole = _second_text(seconds)
    except OverflowError:
        raise _no_time(nanoseconds) from None
    return f"{whole}.{microseconds:06d}+00:00" if microseconds else f"{whole}+00:00"


@lru_cache(maxsize=4096)
def _second_text(seconds: int) -> str:
    return str((_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None))


def _no_time(nanoseconds: int) -> BadRecord:
    return BadRecord(f"tells the time {nanoseconds} ns, which no calendar has")


def text(value: str, width: int) -> str:
    if "\0" in value:
        value = value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return value[:width]


def within(value: int, most: int) -> int:
    return 0 if value < 0 else value if value <= most else most


def bounded(values: tuple[int, ...], most: int) -> tuple[int, ...]:
    """``within`` of each of them, which nearly always are within."""
    if min(values) >= 0 and max(values) <= most:
        return values
    return tuple(within(value, most) for value in values)


def optional(value: int | None, most: int) -> int | None:
    return None if value is None else within(value, most)


def digested(value: str) -> str:
    return value if not value or _DIGEST.fullmatch(value) else sha256_hex(value.encode())[:16]


def json_text(value: Any) -> str:
    found = _encoder.encode(value).decode()
    # PostgreSQL's jsonb takes every character but NUL.
    return found.replace("\\u0000", "\\ufffd") if "\\u0000" in found else found


def _charges(call: OpenCall) -> str:
    parts = [
        f'{{"window":{window},"held":{held},"cost":{cost},"overrun":{overrun}}}'
        for window, (held, cost, overrun) in call.charges.items()
    ]
    parts += [f'{{"budget":{json_text(budget)},"cost":{cost}}}' for budget, cost in call.soft.items()]
    return f"[{','.join(parts)}]"
