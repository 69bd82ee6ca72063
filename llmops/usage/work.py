"""Which calls a model works for, and which only read, list or change what a provider keeps. Pure."""

from __future__ import annotations

#: Endpoints whose calls are answered by a model, as calls are recorded under them. A call of any other one is an errand, unless a
#: model was named and priced for it (a path that is passed through).
MODEL_WORK = frozenset(
    {
        "chat.completions", "responses", "responses.compact", "responses.input_tokens", "embeddings", "moderations",
        "images.generations", "images.edits", "images.variations",
        "audio.speech", "audio.transcriptions", "audio.translations",
    }
)  # fmt: skip


def is_model_work(endpoint: str, model: str) -> bool:
    """Whether a call says something about how models answer: how many do, how fast, how often in vain."""
    return bool(model) or endpoint in MODEL_WORK
