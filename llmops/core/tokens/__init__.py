"""Tokens: bounded for free, counted exactly when it matters. Works without a network: the ranks are vendored."""

from llmops.core.tokens.chat import count_chat
from llmops.core.tokens.counting import count_text, truncate_text, upper_bound
from llmops.core.tokens.media import media_upper_bound
from llmops.core.tokens.models import EncodingChoice, encoding_for
from llmops.core.tokens.ranks import TokenDataUnusable, cache_dir, prepare, use_cache_dir

__all__ = [
    "EncodingChoice",
    "TokenDataUnusable",
    "cache_dir",
    "count_chat",
    "count_text",
    "encoding_for",
    "media_upper_bound",
    "prepare",
    "truncate_text",
    "upper_bound",
    "use_cache_dir",
]
