"""Usage as OpenAI states it, at its listed prices, against costs that were worked out by hand.

Prices are those of the shipped list, USD per million tokens; amounts nanodollars.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmops.gateway.endpoints.base import believable_usage, tier_answered
from llmops.gateway.endpoints.making import media_usage
from llmops.gateway.endpoints.responses import usage_of
from llmops.providers import catalogue
from llmops.providers.pricing import PriceBook, Prices
from llmops.serving.snapshot import PriceRow
from llmops.usage.records import Media, Tokens


def prices_of(model: str) -> Prices:
    rows = [PriceRow(one.token_class, 0, one.nano_per_million) for one in catalogue.shipped().of(model)]
    found = PriceBook(rows).at(1)
    assert found is not None
    return found


CHAT: dict[str, tuple[str, str, dict[str, Any], int]] = {
    # 1,000 in at 2.50 and 500 out at 10.00: 2,500,000 + 5,000,000
    "chat": ("gpt-4o-2024-08-06", "default", {"prompt_tokens": 1000, "completion_tokens": 500}, 7_500_000),
    # 952 in at 2.50, 1,048 cached at 1.25, 300 out at 10.00: 2,380,000 + 1,310,000 + 3,000,000
    "chat, cached": (
        "gpt-4o-2024-08-06", "default",
        {"prompt_tokens": 2000, "completion_tokens": 300, "prompt_tokens_details": {"cached_tokens": 1048}},
        6_690_000,
    ),
    # 100 in at 1.10; 900 out at 4.40 of which 640 were reasoning, which has no price of its own: 110,000 + 3,960,000
    "chat, reasoning": (
        "o4-mini-2025-04-16", "default",
        {"prompt_tokens": 100, "completion_tokens": 900, "completion_tokens_details": {"reasoning_tokens": 640}},
        4_070_000,
    ),
    # The flex tier of o4-mini: 1,000 in at 0.55 of which 400 cached at 0.138, 200 out at 2.20: 330,000 + 55,200 + 440,000
    "chat, flex": (
        "o4-mini-2025-04-16", "flex",
        {"prompt_tokens": 1000, "completion_tokens": 200, "prompt_tokens_details": {"cached_tokens": 400}},
        825_200,
    ),
    # The priority tier of gpt-5: 1,000 in at 2.50 of which 800 cached at 0.25, 100 out at 20.00: 500,000 + 200,000 + 2,000,000
    "chat, priority": (
        "gpt-5-2025-08-07", "priority",
        {"prompt_tokens": 1000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 800}},
        2_700_000,
    ),
    # 150 of text at 2.50 and 1,000 of audio at 32.00 in; 50 of text at 10.00 and 400 of audio at 64.00 out:
    # 375,000 + 32,000,000 + 500,000 + 25,600,000
    "chat, audio": (
        "gpt-audio", "default",
        {
            "prompt_tokens": 1150, "completion_tokens": 450,
            "prompt_tokens_details": {"audio_tokens": 1000}, "completion_tokens_details": {"audio_tokens": 400},
        },
        58_475_000,
    ),
    # One token in and one out at 0.05 and 0.40: 50 + 400 nanodollars
    "chat, the smallest": ("gpt-5-nano-2025-08-07", "default", {"prompt_tokens": 1, "completion_tokens": 1}, 450),
    # 3 cached tokens at 0.005 are 15 nanodollars: nothing is rounded away
    "chat, cached alone": (
        "gpt-5-nano-2025-08-07", "default",
        {"prompt_tokens": 3, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 3}},
        15,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHAT)
def test_chat(name: str) -> None:
    model, tier, usage, cost = CHAT[name]
    tokens = believable_usage(json.dumps(usage).encode())
    assert tokens is not None
    assert prices_of(model).of_tier(tier_answered(tier)).cost(tokens) == cost


RESPONSES: dict[str, tuple[str, dict[str, Any], int]] = {
    # 75 in at 1.25 and 1,186 out at 10.00, 1,024 of them reasoning: 93,750 + 11,860,000
    "responses": (
        "gpt-5-2025-08-07",
        {"input_tokens": 75, "output_tokens": 1186, "output_tokens_details": {"reasoning_tokens": 1024}},
        11_953_750,
    ),
    # 4,096 in: 2,048 cached at 0.05, 1,024 written to the cache at 1.25, 1,024 at 1.00; 512 out at 5.00:
    # 102,400 + 1,280,000 + 1,024,000 + 2,560,000
    "responses, written to the cache": (
        "gpt-6.1-terra",
        {
            "input_tokens": 4096, "output_tokens": 512,
            "input_tokens_details": {"cached_tokens": 2048, "cache_write_tokens": 1024},
        },
        4_966_400,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RESPONSES)
def test_responses(name: str) -> None:
    model, usage, cost = RESPONSES[name]
    tokens = usage_of(json.dumps(usage).encode())
    assert tokens is not None
    assert prices_of(model).cost(tokens) == cost


def test_batch() -> None:
    """A batch of gpt-4o: 10,000 in at 1.25 and 4,000 out at 5.00: 12,500,000 + 20,000,000."""
    assert (
        prices_of("gpt-4o-2024-08-06").of_tier("batch").cost(Tokens(input=10_000, output=4_000)) == 32_500_000
    )


def test_embeddings() -> None:
    """8 tokens at 0.02: 160 nanodollars."""
    assert prices_of("text-embedding-3-small").cost(Tokens(input=8)) == 160


def test_an_image() -> None:
    """50 of text at 5.00, 194 of an image at 10.00, 1,056 drawn at 40.00: 250,000 + 1,940,000 + 42,240,000."""
    stated = {
        "input_tokens": 244, "output_tokens": 1056, "input_tokens_details": {"text_tokens": 50, "image_tokens": 194},
    }  # fmt: skip
    tokens = media_usage(json.dumps(stated).encode(), output="image")
    assert tokens is not None
    assert prices_of("gpt-image-1").cost(tokens) == 44_430_000


def test_a_minute_of_whisper_and_a_page_read_aloud() -> None:
    """60 s at 0.006 USD a minute, and 1,500 characters at 15 USD a million."""
    assert prices_of("whisper-1").cost(Tokens(media=Media(seconds=60))) == 6_000_000
    assert prices_of("tts-1").cost(Tokens(media=Media(characters=1_500))) == 22_500_000
