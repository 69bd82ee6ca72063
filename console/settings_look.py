"""How the console looks: the Unfold theme and the content security policies."""

from __future__ import annotations

UNFOLD: dict[str, object] = {
    "SITE_TITLE": "LLMOps Console",
    "SITE_HEADER": "LLMOps Console",
}
