"""What a question about routes is, and what is answered. Pure.

Calls are expected numbers: a share of a whole is not rounded, so that what is added up stays the whole. Amounts are nanodollars,
times seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from llmops.serving.snapshot import RevisionDocument

#: What may happen to a model or a whole provider.
NOTHING, DOWN, RATE_LIMITED, ERRORS, SLOW = "none", "down", "rate_limit", "errors", "slow"
FAILURES = [
    (NOTHING, "Nothing fails"),
    (DOWN, "It cannot be reached at all"),
    (RATE_LIMITED, "It refuses a share of calls: rate limit (429)"),
    (ERRORS, "It fails a share of calls: error (503)"),
    (SLOW, "It answers more slowly"),
]
MODEL, PROVIDER = "model", "provider"

#: Sums of the classes that prices are applied to, as rollups name them.
CLASSES = (
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
)
#: Of these an answer is made; the others are asked.
MADE = frozenset(
    (
        "output_tokens",
        "reasoning_tokens",
        "audio_output_tokens",
        "image_output_tokens",
        "characters",
        "images",
    )
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """``failure`` happens to the ``kind`` (``model`` or ``provider``) ``name``; ``percent`` of its calls are refused or fail,
    ``factor`` is how many times longer its answers take."""

    failure: str = NOTHING
    kind: str = MODEL
    name: str = ""
    percent: int = 100
    factor: float = 2.0


@dataclass(frozen=True, slots=True)
class Kind:
    """Calls that are alike in what a model must be able to do for them.

    ``needs`` are capabilities, ``purpose`` what of an endpoint of its own (``embeddings``, ``images``, ... or empty for text);
    ``tokens`` is what each of them takes of a context window at most; ``used`` are sums by ``CLASSES``.
    """

    calls: float
    purpose: str = ""
    needs: frozenset[str] = frozenset()
    tokens: int = 0
    used: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Named:
    """The calls of a route, or of a model by its own name, that reached a provider (or would have)."""

    name: str
    kinds: tuple[Kind, ...]
    cost_nano: int = 0
    #: which model answered, as it was recorded
    answered: Mapping[str, int] = field(default_factory=dict)
    streamed: int = 0
    #: (microseconds, calls) of whole calls, by model
    times: Mapping[str, Sequence[tuple[float, int]]] = field(default_factory=dict)

    @property
    def calls(self) -> float:
        return sum(kind.calls for kind in self.kinds)


@dataclass(frozen=True, slots=True)
class Traffic:
    """``seconds`` long; ``sampled`` calls were looked at one by one to tell kinds apart, of ``calls``."""

    seconds: float
    names: tuple[Named, ...]
    sampled: int = 0

    @property
    def calls(self) -> float:
        return sum(named.calls for named in self.names)


@dataclass(frozen=True, slots=True)
class Standing:
    """What of now matters beside the document: switches, how many credentials a provider has in use, and the moment (Unix
    seconds) whose prices hold."""

    now: float
    credentials: Mapping[str, int]
    paused_routes: Mapping[str, str] = field(default_factory=dict)
    degraded_routes: Mapping[str, str] = field(default_factory=dict)
    paused_providers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Outcome:
    """What becomes of the calls of one name. ``answered`` and ``cost`` are by model; ``failed`` by why, in words."""

    name: str
    calls: float = 0.0
    answered: dict[str, float] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    attempts: float = 0.0
    failed: dict[str, float] = field(default_factory=dict)
    #: answered by the route's last resort, or with a shortened input
    last_resort: float = 0.0
    shortened: float = 0.0
    #: attempts whose bill nobody knows: time-outs after the request was sent
    unknown_bills: float = 0.0
    #: seconds of all calls together
    waited: float = 0.0
    #: models whose breaker would open, and those that have no price
    opened: tuple[str, ...] = ()
    unpriced: tuple[str, ...] = ()

    @property
    def failures(self) -> float:
        return sum(self.failed.values())

    @property
    def cost_nano(self) -> int:
        return round(sum(self.cost.values()))


@dataclass(frozen=True, slots=True)
class Asked:
    """One question: these calls, by this document, in this scenario."""

    document: RevisionDocument
    traffic: Traffic
    standing: Standing
    scenario: Scenario = Scenario()
