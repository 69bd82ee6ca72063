"""Pages of OpenAI's organisation API, as ``GET /v1/organization/usage/completions`` (or embeddings, images ...; grouped by
model) and ``GET /v1/organization/costs`` (grouped by line item) answer: one after the other, as they came. Pure.

Shapes: a page holds ``data``, a list of buckets with ``start_time`` (Unix seconds) and ``results``; usage results have
``input_tokens``, ``input_cached_tokens``, ``output_tokens``, ``num_model_requests`` and ``model``, costs have
``amount: {value, currency}`` and ``line_item``. ``has_more`` of the last page is false.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

#: Columns of the CSV that a result becomes, in their order.
COLUMNS = (
    "start_time",
    "model",
    "num_model_requests",
    "input_tokens",
    "input_cached_tokens",
    "output_tokens",
    "amount_value",
    "amount_currency",
)


class BadPages(ValueError):
    """Not such pages; the text says why."""


def looks_like_pages(text: str) -> bool:
    return text.lstrip()[:1] == "{"


def rows(text: str) -> Iterator[list[str]]:
    """The results as rows under ``COLUMNS``; a bucket without results is a row of its day alone. Raises ``BadPages``."""
    more = False
    for number, page in enumerate(_pages(text), start=1):
        buckets = page.get("data")
        if not isinstance(buckets, list):
            raise BadPages(f"page {number} has no list of buckets (data)")
        more = bool(page.get("has_more"))
        for place, bucket in enumerate(buckets, start=1):
            if not isinstance(bucket, dict) or not isinstance(bucket.get("start_time"), int):
                raise BadPages(f"page {number}, bucket {place}: no start_time in Unix seconds")
            results = bucket.get("results") or []
            if not isinstance(results, list) or not all(isinstance(one, dict) for one in results):
                raise BadPages(f"page {number}, bucket {place}: results is not a list of objects")
            start = str(bucket["start_time"])
            if not results:
                yield [start, *[""] * (len(COLUMNS) - 1)]
            for result in results:
                yield [start, *_cells(result)]
    if more:
        raise BadPages(
            "the last page says that there are more (has_more): fetch them all, then import them together"
        )


def _pages(text: str) -> Iterator[dict[str, Any]]:
    decoder = json.JSONDecoder(parse_float=Decimal)
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        try:
            page, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as broken:
            raise BadPages(f"not JSON: {str(broken)[:100]}") from None
        if not isinstance(page, dict):
            raise BadPages("not a page of OpenAI's organisation API, which is a JSON object")
        yield page


def _cells(result: dict[str, Any]) -> list[str]:
    amount = result.get("amount")
    money = amount if isinstance(amount, dict) else {}
    given = (
        result.get("model") or result.get("line_item"),
        result.get("num_model_requests"),
        result.get("input_tokens"),
        result.get("input_cached_tokens"),
        result.get("output_tokens"),
        money.get("value"),
        money.get("currency"),
    )
    return ["" if value is None else str(value) for value in given]
