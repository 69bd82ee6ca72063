"""A line in the log for each call, for those who collect logs and not records."""

from __future__ import annotations

import logging

from llmops.usage.records import Origin, Outcome

log = logging.getLogger("llmops.calls")


def log_call(origin: Origin, outcome: Outcome) -> None:
    """One line for a call: the ids under which it is found elsewhere, how it went, what it took. Nothing of its content."""
    log.info(
        "call",
        extra={
            "request_id": origin.request,
            "call_id": origin.call,
            "provider_request_id": outcome.provider_request,
            "project_id": origin.project,
            "key_id": origin.key,
            "endpoint": origin.endpoint,
            "route": origin.route,
            "model": outcome.model,
            "provider": outcome.provider,
            "status": outcome.status,
            "http_status": outcome.http,
            "code": outcome.code,
            "attempts": len(outcome.attempts),
            "cache": outcome.cache,
            "input_tokens": outcome.tokens.input,
            "output_tokens": outcome.tokens.output,
            "cost_nano": outcome.cost,
            "total_us": outcome.total_us,
            "ttft_us": outcome.ttft_us,
        },
    )
