"""What a moderation model says about texts, for policies that ask one: a call of its own, within what the call that it is about may
cost, counted against the same limits and budgets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from llmops.core.errors import ConsoleError
from llmops.core.verdicts import AFTER, ALLOW, Finding, Verdict
from llmops.gateway.endpoints.base import decode_any, encode
from llmops.gateway.money import bounds
from llmops.policies.checks.base import Remote
from llmops.policies.decisions import Rule
from llmops.usage.records import judged_id

if TYPE_CHECKING:
    from llmops.core.asgi import Message
    from llmops.gateway.call import Call

#: In the scope of a call that the console itself makes for a policy: no policy looks at that one.
INNER = "llmops.inner"
_MODERATIONS = "/v1/moderations"


async def opinion(call: Call, rule: Rule, texts: Sequence[str]) -> Verdict | None:
    """Ask a moderation model, as the same service key: that call has a budget, a price and a record of its own."""
    check = rule.check
    assert isinstance(check, Remote)
    texts = [one for one in texts if one.strip()]
    if not texts:
        return None
    settings = check.settings
    try:
        async with asyncio.timeout(settings.timeout_s):
            said = await _ask(call, {"model": settings.model, "input": texts})
        findings = check.judge_opinion(said)
    except (TimeoutError, ValueError) as problem:
        if isinstance(problem, TooDear) and call.spare is None:
            # Nothing was asked for yet: the caller can be told.
            raise bounds.judging_exceeded(bounds.left(call), settings.model) from None
        unknown = [Finding("no opinion")]
        why = f"{settings.model} did not answer{f' ({problem})' if isinstance(problem, NoAnswer) else ''}"
        if settings.on_failure == "open":
            return rule.verdict(ALLOW, unknown, f"{why}: let through")
        return rule.verdict(check.action, unknown, why)
    return rule.verdict(check.action, findings) if findings else None


class NoAnswer(ValueError):
    """An error in place of an opinion: its code."""


class TooDear(NoAnswer):
    """What is left of what the caller lets the call cost does not reach for it."""


def put_aside(call: Call, output: int) -> int:
    """What moderation models may cost that will be asked about an answer of ``output`` tokens. As tokens of their own, which are as many
    for models that count alike; where they are more, the bound holds all the same, and the answer counts as one without an opinion."""
    assert call.resolution is not None and call.key is not None
    guard = call.resolution.guard
    if call.policing is None or guard is None:
        return 0
    total, now = 0, time.time()
    for rule in guard.remote(AFTER):
        try:
            models = call.view.resolve(call.key, rule.check.settings.model).everything()
        except ConsoleError:
            # It will not be asked either.
            continue
        known = [prices for model in models if (prices := model.prices.at(now)) is not None]
        total += max((prices.worst_cost(output, 0) for prices in known), default=0)
    return total


_PASSED_ON = (
    b"authorization",
    b"x-llmops-for-key",
    b"x-llmops-feature",
    b"x-llmops-user",
    b"x-llmops-session",
    b"x-llmops-tags",
    b"x-llmops-priority",
)


async def _ask(call: Call, asked: dict[str, Any]) -> Any:
    """The data plane's own road, from inside. Raises ``ValueError`` for any answer but a good one."""
    body = encode(asked)
    inbox = [{"type": "http.request", "body": body, "more_body": False}]
    told: list[Message] = []
    headers = [(name, call.headers[name]) for name in _PASSED_ON if name in call.headers]
    if call.user and b"x-llmops-user" not in call.headers and _header(call.user):
        # Whom a member of the body names; budgets of end users hold for this as well.
        headers.append((b"x-llmops-user", call.user.encode()))
    headers.append((b"x-request-id", judged_id(call.request_id).encode()))
    bounded = bounds.HEADER in call.headers
    if bounded:
        left = bounds.left(call) if call.spare is None else call.spare
        headers.append((bounds.HEADER, b"%d" % max(0, left)))
    headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]

    async def receive() -> Message:
        if inbox:
            return inbox.pop()
        # Nobody hangs up; whoever has waited long enough cancels.
        return await asyncio.get_running_loop().create_future()

    async def send(message: Message) -> None:
        told.append(message)

    def cost(nano: int) -> None:
        call.aside += nano
        if call.spare is not None:
            call.spare -= nano

    scope = {"type": "http", "method": "POST", "path": _MODERATIONS, "headers": headers, INNER: call.id}
    # A task of its own: who hangs up is noticed by the task.
    await asyncio.ensure_future(call.plane.moderate(scope, receive, send, cost))
    said = b"".join(message.get("body", b"") for message in told[1:])
    if not told or told[0].get("status") != 200:
        code = _code(said)
        raise (TooDear if bounded and code == "cost_bound_exceeded" else NoAnswer)(code)
    return decode_any(said)


def _code(said: bytes) -> str:
    """The code of an error body, one of ours or of those that are known here."""
    try:
        code = decode_any(said)["error"]["code"]
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
        return "no answer"
    return code if isinstance(code, str) and code.isidentifier() and len(code) <= 60 else "an error"


def _header(text: str) -> bool:
    """Whether a header can say it as it is."""
    return text == text.strip() and text.isprintable()
