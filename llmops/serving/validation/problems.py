"""What a problem is, and the facts that a document does not say. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmops.serving.snapshot import ModelEntry

ERROR, WARNING = "error", "warning"
#: Capabilities of models that answer one endpoint alone.
_SINGLE_PURPOSE = ("embeddings", "images", "speech", "transcription")


@dataclass(frozen=True, slots=True)
class Problem:
    """``kind`` is provider, model, route, policy, prompt or project; ``slug`` names the object; ``code`` is stable."""

    level: str
    code: str
    kind: str
    slug: str
    message: str

    def __str__(self) -> str:
        return self.message

    @property
    def field(self) -> str:
        """The member of the object's own form that puts it right; empty where there is none."""
        return _FIELDS.get((self.kind, self.code), "")


#: (kind, code) -> the member of the object that is wrong.
_FIELDS = {
    **{("provider", name): name for name in ("base_url", "passthrough", "shared_objects")},
    ("model", "provider_gone"): "provider",
    ("model", "context_window"): "max_output_tokens",
    ("model", "no_output"): "max_output_tokens",
    ("model", "no_default_output"): "default_max_output_tokens",
    **dict.fromkeys(
        (
            ("route", code)
            for code in (
                "no_targets",
                "no_weight",
                "model_gone",
                "model_archived",
                "model_versionless",
                "mixed_kinds",
            )
        ),
        "targets",
    ),
    ("route", "name_taken"): "slug",
    ("route", "class_unknown"): "fallbacks_for",
    **dict.fromkeys(
        (("route", code) for code in ("repeated", "smaller_fallback", "nothing_left")), "fallbacks"
    ),
    **dict.fromkeys((("route", code) for code in ("strategy_unknown", "no_turns")), "context_strategy"),
    **dict.fromkeys(
        (("route", code) for code in ("no_larger_model", "larger_model_small", "larger_model_unused")),
        "larger_model",
    ),
    **dict.fromkeys(
        (("route", code) for code in ("no_summary_model", "summary_model_mute", "summary_model_unused")),
        "summary_model",
    ),
    ("route", "last_resort_unknown"): "last_resort",
    **dict.fromkeys(
        (("route", code) for code in ("no_static_answer", "static_answer_unused", "static_not_text")),
        "static_answer",
    ),
    **dict.fromkeys((("route", code) for code in ("cache_off", "cache_tools_off")), "cache_ttl_s"),
    ("route", "queue_outlasts"): "queue_timeout_ms",
    ("route", "no_larger_fallback"): "fallbacks_for",
    ("route", "fallbacks_unreached"): "attempts",
    ("policy", "check"): "checks",
    ("policy", "asked_model_gone"): "checks",
    ("policy", "idle"): "everywhere",
    ("prompt", "route_gone"): "route",
    ("prompt", "not_text"): "route",
    ("prompt", "over_ceiling"): "token_ceiling",
    ("prompt", "snapshot"): "samples",
    ("project", "default_route_gone"): "default_route",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the document does not say. ``now`` is Unix seconds; pauses map a slug to the reason."""

    now: float
    archived_models: frozenset[str] = frozenset()
    archived_providers: frozenset[str] = frozenset()
    versionless_models: frozenset[str] = frozenset()
    archived_policies: frozenset[str] = frozenset()
    #: neither named by a route nor holding everywhere, and so not in the document
    idle_policies: frozenset[str] = frozenset()
    paused_routes: dict[str, str] = field(default_factory=dict)
    degraded_routes: dict[str, str] = field(default_factory=dict)
    paused_providers: dict[str, str] = field(default_factory=dict)
    providers_with_keys: frozenset[str] = frozenset()
    hard_budgets: bool = False
    #: (name, number) of versions of prompts whose samples are not rendered as when they were made -> why
    unproved_prompts: dict[tuple[str, int], str] = field(default_factory=dict)
    #: (name, number) of versions with a token ceiling -> the ceiling, and the most tokens of a sample by encoding
    ceilings: dict[tuple[str, int], tuple[int, dict[str, int]]] = field(default_factory=dict)
    #: project -> the route that answers requests which name no model
    default_routes: dict[str, str] = field(default_factory=dict)


def purpose_of(model: ModelEntry) -> str:
    """What a model is for, where it answers one endpoint alone; empty for text and for what says nothing."""
    if "chat" in model.capabilities:
        return ""
    return next((name for name in _SINGLE_PURPOSE if name in model.capabilities), "")
