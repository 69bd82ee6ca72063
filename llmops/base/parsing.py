"""JSON bodies of the API, read with care: bounded, and without text that no database can hold."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import IO, Any

from django.conf import settings
from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser

from llmops.core.errors import RequestTooLarge
from llmops.core.texts import size_words

#: NUL as json.dumps writes it; a backslash of the text itself is doubled.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


class StrictJSONParser(JSONParser):
    """Refuses bodies over ``settings.MAX_API_BYTES``, NaN, repeated members, NUL and halves of surrogate pairs."""

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        body = stream.read(settings.MAX_API_BYTES + 1)
        if len(body) > settings.MAX_API_BYTES:
            raise RequestTooLarge(
                f"The body is larger than {size_words(settings.MAX_API_BYTES)}. Send less in one request."
            )
        try:
            read = json.loads(body, object_pairs_hook=_object, parse_constant=_constant)
            written = json.dumps(read, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as failed:
            raise ParseError(f"The body is not JSON that can be stored: {_reason(failed)}.") from None
        if _NUL.search(written):
            raise ParseError("The body is not JSON that can be stored: it holds a NUL character.")
        return read


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object names a member twice")
    return found


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _reason(failed: Exception) -> str:
    if isinstance(failed, json.JSONDecodeError):
        return f"{failed.msg} at line {failed.lineno}, column {failed.colno}"
    if isinstance(failed, RecursionError):
        return "it is nested too deeply"
    if isinstance(failed, UnicodeError):
        return "it is not UTF-8, or holds half of a surrogate pair"
    return str(failed)
