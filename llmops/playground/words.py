"""What a person is told beside the data plane's own words: what to do next, and where. Pure."""

from __future__ import annotations

#: code -> what to do next, the address (a name of Django's) it is done at, and what the link says
NEXT: dict[str, tuple[str, str, str]] = {
    "insufficient_quota": (
        "Choose a cheaper model or a lower output limit, or ask for a raise of the budget.",
        "admin:budgets_budget_changelist",
        "Budgets",
    ),
    "budget_unavailable": ("Try again in a moment.", "admin:budgets_budget_changelist", "Budgets"),
    "permission_denied": (
        "Choose another route or model, or allow this one on the playground's key.",
        "admin:access_servicekey_changelist",
        "Service keys",
    ),
    "invalid_api_key": (
        "The playground's key is not known to the data plane: it was revoked, or the data plane uses another database.",
        "admin:access_servicekey_changelist",
        "Service keys",
    ),
    "model_not_found": (
        "Choose one of the list; what is new is there once it is published.",
        "admin:serving_revision_changelist",
        "Revisions",
    ),
    "model_not_priced": ("Give the model a price.", "admin:providers_price_changelist", "Prices"),
    "prompt_not_found": (
        "Data planes do not know this version yet. Wait a second, or publish.",
        "admin:serving_revision_changelist",
        "Revisions",
    ),
    "policy_blocked": (
        "Change what is asked, or look at what the policy looks for.",
        "admin:policies_policy_changelist",
        "Policies",
    ),
    "approval_required": ("Change what is asked.", "admin:policies_policy_changelist", "Policies"),
    "route_paused": (
        "Choose another route, or resume this one.",
        "admin:providers_route_changelist",
        "Routes",
    ),
    "route_degraded": ("Choose another route.", "admin:providers_route_changelist", "Routes"),
    "provider_paused": (
        "Choose another model, or resume the provider.",
        "admin:providers_provider_changelist",
        "Providers",
    ),
    "circuit_open": (
        "The target failed too often and is left alone for a moment. Try again soon, or choose another.",
        "dashboards:overview",
        "Overview",
    ),
    "upstream_auth": (
        "The provider refused our key. Probe or rotate it.",
        "admin:providers_credential_changelist",
        "Credentials",
    ),
    "upstream_connect": (
        "Look at the provider's address and whether it answers.",
        "admin:providers_provider_changelist",
        "Providers",
    ),
    "upstream_rate_limited": ("Wait a moment, or choose a model of another provider.", "", ""),
    "rate_limit_exceeded": ("Wait a moment, then run again.", "", ""),
    "upstream_timeout": ("Ask for a shorter answer, or choose a faster model.", "", ""),
    "context_length_exceeded": ("Shorten the input, or choose a model with a larger window.", "", ""),
    "stream_interrupted": (
        "The provider broke off. What came is above, and is paid. Run again if you need all of it.",
        "",
        "",
    ),
}

CANCELLED = {
    "person": "Cancelled. The provider was told to stop; what it had written by then is paid.",
    "unwatched": "Stopped, because no page had shown it for a while. What came by then is above, and is paid.",
    "long": "Stopped after a quarter of an hour, the longest that a run may take.",
    "large": "Stopped: the answer is longer than the playground shows.",
}
LOST = (
    "The console's process that read this answer ended. The call was not made again. What came by then is above; Calls "
    "tells what became of it and what it cost."
)

FINISHED = {
    "stop": "complete",
    "length": "cut off at the output limit",
    "tool_calls": "the model wants to call a tool",
    "function_call": "the model wants to call a function",
    "content_filter": "stopped by the provider's content filter",
}


def next_step(code: str) -> tuple[str, str, str]:
    return NEXT.get(code, ("", "", ""))
