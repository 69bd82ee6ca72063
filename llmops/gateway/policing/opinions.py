"""What a moderation model says about texts, for policies that ask one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llmops.core.verdicts import ALLOW, Finding, Verdict
from llmops.gateway.endpoints.base import decode_any, encode
from llmops.policies.checks.base import Remote
from llmops.policies.decisions import Rule

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
    except (TimeoutError, ValueError):
        unknown = [Finding("no opinion")]
        if settings.on_failure == "open":
            return rule.verdict(ALLOW, unknown, f"{settings.model} did not answer: let through")
        return rule.verdict(check.action, unknown, f"{settings.model} did not answer")
    return rule.verdict(check.action, findings) if findings else None


_PASSED_ON = (
    b"authorization",
    b"x-llmops-for-key",
    b"x-llmops-feature",
    b"x-llmops-user",
    b"x-llmops-session",
    b"x-llmops-tags",
)


async def _ask(call: Call, asked: dict[str, Any]) -> Any:
    """The data plane's own road, from inside. Raises ``ValueError`` for any answer but a good one."""
    body = encode(asked)
    inbox = [{"type": "http.request", "body": body, "more_body": False}]
    told: list[Message] = []
    headers = [(name, call.headers[name]) for name in _PASSED_ON if name in call.headers]
    headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]

    async def receive() -> Message:
        if inbox:
            return inbox.pop()
        # Nobody hangs up; whoever has waited long enough cancels.
        return await asyncio.get_running_loop().create_future()

    async def send(message: Message) -> None:
        told.append(message)

    scope = {"type": "http", "method": "POST", "path": _MODERATIONS, "headers": headers, INNER: call.id}
    # A task of its own: who hangs up is noticed by the task.
    await asyncio.ensure_future(call.plane.moderate(scope, receive, send))
    if not told or told[0].get("status") != 200:
        raise ValueError("no good answer")
    return decode_any(b"".join(message.get("body", b"") for message in told[1:]))
