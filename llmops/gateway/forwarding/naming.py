"""What a request that is passed through names, wherever it may name it: ids of objects, and the model that is to work.

Nobody here knows the parameters of such a path, so every text that could be an id is one: of the query, of a JSON body (its
members' names too), of a form's fields. What a provider could read as something else than was read here is refused: a
member given twice, a form within a type that is none, JSON under the type of a file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from llmops.core.errors import InvalidRequest
from llmops.gateway.forms.multipart import Form
from llmops.gateway.kept.owners import MAX_ID

#: Texts that may be ids: at most so many are looked up for one request.
MAX_NAMED = 10_000
#: Ids of whatever provider: UUIDs, numbers, words with a prefix. What is letters alone is a word.
_ID_LIKE = re.compile(r"(?=[A-Za-z]*[0-9_.:@=+~-])[A-Za-z0-9._~:@=+-]{4,200}")
#: What ids stand within, and how long such a text is at most; prose names nothing.
_WITHIN, _SPACE, _BETWEEN = re.compile(r"[/?&,;{\[]"), re.compile(r"\s"), re.compile(r"[^A-Za-z0-9._~:@+-]+")
_ADDRESS = 2_048
#: A number of more digits has no use, and takes long to be read.
_MAX_DIGITS = 1_000
#: Bytes that tell an encoding, and so many blanks as begin no file.
_TELLING, _BLANK = 8, 4_096


class Names:
    """The ids that a request may name. Raises ``InvalidRequest`` beyond ``MAX_NAMED``."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    def add(self, texts: Iterable[str]) -> None:
        found = self.found
        for text in texts:
            if 4 <= len(text) <= MAX_ID and _ID_LIKE.fullmatch(text):
                found.add(text)
            elif len(text) <= _ADDRESS and _WITHIN.search(text) and not _SPACE.search(text):
                # An address, a list, or some JSON: what stands between its marks.
                found.update(one for one in _BETWEEN.split(text) if _ID_LIKE.fullmatch(one))
            if len(found) > MAX_NAMED:
                raise InvalidRequest(f"The request names more than {MAX_NAMED} objects.")

    def query(self, query: bytes) -> None:
        try:
            pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_NAMED)
        except ValueError:
            raise InvalidRequest(f"The query has more than {MAX_NAMED} parameters.") from None
        for pair in pairs:
            self.add(pair)

    def json(self, body: bytes) -> dict[str, Any]:
        """The object that a body is. Raises ``InvalidRequest`` also for a member that is given twice."""
        try:
            found = json.loads(
                body.decode("utf-8"), object_pairs_hook=_once, parse_int=_number, parse_constant=_no_number
            )
        except (ValueError, RecursionError):
            raise InvalidRequest("The body must be a JSON object.", code="invalid_json") from None
        if not isinstance(found, dict):
            raise InvalidRequest("The body must be a JSON object.", code="invalid_json")
        self.add(_texts(found))
        return found

    def form(self, form: Form) -> None:
        """The fields of a form, JSON within them too. Raises ``InvalidRequest`` for one that is too long to be read."""
        for part in form.parts:
            if part.file:
                continue
            if part.value is None:
                raise InvalidRequest(
                    f"{part.name[:100]}: this field is too long to be passed through; send it as a file, with a filename.",
                    param=part.name[:100],
                )
            text = part.value.decode("utf-8", "replace").strip()
            self.add((text,))
            if text[:1] in ("{", "["):
                try:
                    self.add(_texts(msgspec.json.decode(text)))
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    continue


def begins_as_json(begins: bytes) -> bool | None:
    """Whether what begins so may be JSON, in any encoding that a reader guesses (RFC 8259 knew three). None: too early to say."""
    if len(begins) < _TELLING:
        return None
    text = begins[:_BLANK].decode(json.detect_encoding(begins), "ignore").lstrip("\ufeff \t\r\n")
    if text:
        return text[0] in '{["'
    return True if len(begins) > _BLANK else None


def is_json(body: bytes) -> bool:
    """Whether any reader takes a body for JSON, be it a lenient one."""
    try:
        json.loads(body, parse_int=_number)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


def _texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value, and the names of its members."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
            if one[:1] in ("{", "[") and (inner := _inner(one)) is not None:
                waiting.append(inner)
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, dict):
            waiting += one.values()
            yield from one


def _inner(text: str) -> Any:
    """What a text says that is JSON itself; None when it is not."""
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, UnicodeEncodeError, RecursionError):
        return None
    return found if isinstance(found, list | dict) else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)[:100]
        raise InvalidRequest(f"{twice}: given twice in one object; give it once.", param=twice)
    return found


def _number(text: str) -> int:
    return int(text) if len(text) <= _MAX_DIGITS else 0


def _no_number(text: str) -> None:
    raise ValueError(text)
