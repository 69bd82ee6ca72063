"""Loads what tests ask for sooner or later in every process of a run, before these are forked: once in place of seven times.

It is what the product and the SDK load when they are first asked: ranks that tokens are counted with, templates, and the parts
of the SDK that its clients load one by one. Whoever tests that something is loaded lets go of it first.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from pathlib import Path

from django.template import engines

_ROOT = Path(__file__).resolve().parent.parent
_SDK = (
    "httpcore2",
    "openai.lib.streaming.chat",
    "openai.lib.streaming.responses",
    "openai.resources.audio",
    "openai.resources.chat",
    "openai.resources.embeddings",
    "openai.resources.images",
    "openai.resources.responses",
)


def load_ahead() -> None:
    for name in _SDK:
        importlib.import_module(name)
    _load_ranks()
    _load_templates()


def _load_ranks() -> None:
    from llmops.core.tokens import ranks

    with tempfile.TemporaryDirectory() as unpacked:
        ranks.use_cache_dir(unpacked)
        for name in ranks.RANK_FILES:
            ranks.encoding(name)
    ranks.use_cache_dir(None)
    # It names a directory that is gone.
    del os.environ["TIKTOKEN_CACHE_DIR"]


def _load_templates() -> None:
    """Those of the product; what they extend and include is loaded when they are first shown."""
    for directory in (_ROOT / "templates", *_ROOT.glob("llmops/*/templates")):
        for path in directory.rglob("*.html"):
            engines["django"].get_template(path.relative_to(directory).as_posix())  # type: ignore[attr-defined]
