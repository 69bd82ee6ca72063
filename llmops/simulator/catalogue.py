"""The models that the simulator offers: how fast they are, what they can hold, what the demo should say they cost."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Profile:
    """``latency`` in ms to the first byte, ``tps`` in tokens a second; prices in USD per million tokens (or characters,
    seconds, images), as text; empty for a class without one."""

    name: str
    kind: str
    context_window: int
    max_output_tokens: int
    latency: float
    tps: float
    input: str
    cached_input: str
    output: str
    dimensions: int = 0
    reasoning: int = 0
    #: prices of other classes
    more: tuple[tuple[str, str], ...] = ()

    @property
    def prices(self) -> dict[str, str]:
        own = {"input": self.input, "cached_input": self.cached_input, "output": self.output}
        return {name: price for name, price in own.items() if price} | dict(self.more)


PROFILES = (
    Profile("sim-small", "chat", 32_768, 4_096, 80, 120, "0.10", "0.05", "0.40"),
    Profile("sim-large", "chat", 200_000, 32_768, 500, 40, "5.00", "2.50", "20.00"),
    Profile("sim-tiny", "chat", 2_048, 512, 40, 150, "0.05", "0.025", "0.20"),
    Profile("sim-gpt-4o", "chat", 128_000, 16_384, 350, 60, "2.50", "1.25", "10.00"),
    Profile("sim-gpt-4o-mini", "chat", 128_000, 16_384, 200, 90, "0.15", "0.075", "0.60"),
    Profile("sim-reasoner", "chat", 200_000, 100_000, 700, 50, "2.00", "0.50", "8.00", reasoning=48),
    Profile("sim-embed-small", "embedding", 8_192, 0, 30, 0, "0.02", "0.02", "0", dimensions=1_536),
    Profile("sim-embed-large", "embedding", 8_192, 0, 50, 0, "0.13", "0.13", "0", dimensions=3_072),
    Profile("sim-moderation", "moderation", 32_768, 0, 40, 0, "0", "0", "0"),
    Profile(
        "sim-image", "images", 32_768, 0, 900, 400, "5.00", "1.25", "0",
        more=(("image_input", "10.00"), ("image_output", "40.00")),
    ),
    Profile("sim-image-flat", "images", 4_096, 0, 900, 0, "", "", "", more=(("images", "40000.00"),)),
    Profile("sim-tts", "speech", 4_096, 0, 150, 0, "", "", "", more=(("characters", "15.00"),)),
    Profile(
        "sim-gpt-tts", "speech", 4_096, 0, 150, 0, "0.60", "0.60", "0", more=(("audio_output", "12.00"),)
    ),
    Profile("sim-whisper", "transcription", 4_096, 0, 200, 100, "", "", "", more=(("seconds", "100.00"),)),
    Profile(
        "sim-transcribe", "transcription", 16_000, 0, 200, 100, "2.50", "2.50", "10.00",
        more=(("audio_input", "6.00"),),
    ),
    Profile("sim-rerank", "rerank", 32_768, 0, 40, 0, "0.05", "", ""),
)  # fmt: skip
_BY_LENGTH = sorted(PROFILES, key=lambda profile: -len(profile.name))
_DEFAULT = {
    "chat": PROFILES[0],
    "embedding": PROFILES[6],
    "moderation": PROFILES[8],
    "images": PROFILES[9],
    "speech": PROFILES[12],
    "transcription": PROFILES[14],
    "rerank": PROFILES[15],
}
CREATED = 1_700_000_000


@lru_cache(maxsize=1024)
def profile_of(base: str, kind: str, any_model: bool = False) -> Profile | None:
    """The profile of a model name: the listed model it is, or begins with (a dated snapshot of it).

    Any other name that begins with ``sim-`` is like the default of ``kind``; so is every name with ``any_model``.
    ``None``: there is no such model.
    """
    for profile in _BY_LENGTH:
        if base == profile.name or base.startswith(profile.name + "-"):
            return profile
    if base.startswith("sim-") or any_model:
        return _DEFAULT[kind]
    return None
