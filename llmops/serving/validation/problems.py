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
