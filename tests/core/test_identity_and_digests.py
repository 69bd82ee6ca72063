"""Identifiers sort by time, digests do not depend on how a value was spelled, secrets do not survive redaction."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.core import errors
from llmops.core.digests import canonical_json, digest, equal
from llmops.core.ids import time_of, uuid7, uuid7_text
from llmops.core.redaction import MASK, redact, redact_text

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


def test_identifiers_are_unique_and_ordered_across_threads() -> None:
    made: list[list] = [[] for _ in range(8)]

    def make(into: list) -> None:
        into.extend(uuid7() for _ in range(5_000))

    threads = [threading.Thread(target=make, args=(into,)) for into in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({item for into in made for item in into}) == 40_000
    assert all(into == sorted(into) for into in made)


def test_an_identifier_tells_its_time_and_version() -> None:
    identifier = uuid7()
    assert identifier.version == 7
    assert abs(time_of(identifier) - datetime.now(UTC)) < timedelta(seconds=10)


def test_an_identifier_as_text_is_the_same_kind() -> None:
    made = [uuid7() if number % 2 else uuid7_text() for number in range(10_000)]
    found = [UUID(str(one)) for one in made]
    assert [str(one) for one in found] == [str(one) for one in made]
    assert found == sorted(found)
    assert {(one.version, one.variant) for one in found} == {(7, "specified in RFC 4122")}
    # 62 random bits: of a million pairs, none may share even 48 of them.
    assert len({one.int & 0xFFFF_FFFF_FFFF for one in found}) == len(found)


_FORKS = """
import os
from llmops.core.ids import uuid7
uuid7()
for _ in range(4):
    if not os.fork():
        os.write(1, b"".join(b"%d\\n" % (uuid7().int & (1 << 62) - 1) for _ in range(3)))
        os._exit(0)
    os.wait()
os.write(1, b"%d\\n" % (uuid7().int & (1 << 62) - 1))
"""


def test_forked_processes_draw_their_own_random_bits() -> None:
    done = subprocess.run([sys.executable, "-c", _FORKS], capture_output=True, text=True, check=True)
    drawn = done.stdout.split()
    assert len(drawn) == len(set(drawn)) == 13


@given(json_values)
def test_a_digest_ignores_the_order_and_spelling_of_members(value: object) -> None:
    respelled = json.loads(json.dumps(value, indent=3))
    assert digest(respelled) == digest(value)
    assert json.loads(canonical_json(value)) == value


@given(json_values, json_values)
def test_different_values_have_different_digests(left: object, right: object) -> None:
    assert (digest(left) == digest(right)) == (canonical_json(left) == canonical_json(right))


def test_not_a_number_has_no_canonical_form() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"x": float("nan")})


def test_comparison_takes_text_and_bytes() -> None:
    assert equal("abc", b"abc")
    assert not equal("abc", "abd")


SECRETS = [
    "sk-proj-" + "aB3_" * 12,
    "sk-ant-api03-" + "x1Y2" * 10,
    "llmops_ab12cd34_" + "Zz09-_" * 8,
    "ghp_" + "a1B2" * 9,
    "AKIAIOSFODNN7EXAMPLE",
    "xoxb-1234567890-abcdefghij",
    "AIza" + "S" * 35,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlc2ln",
]


@pytest.mark.parametrize("secret", SECRETS)
@given(before=st.text(alphabet=" .,:;=\n\"'", max_size=5), after=st.text(alphabet=" .,;\n\"'", max_size=5))
def test_known_secret_shapes_are_masked_anywhere_in_text(secret: str, before: str, after: str) -> None:
    shown = redact_text(before + secret + after)
    assert secret not in shown
    assert MASK in shown


def test_redaction_goes_by_field_names_and_reaches_every_depth() -> None:
    shown = redact(
        {
            "api_key": "plain words",
            "nested": [{"Authorization": "Basic abc"}, "postgres://app:hunter2@db/console"],
            "max_output_tokens": 1024,
            "empty_secret": "",
            "plain": "kept",
        }
    )
    assert shown == {
        "api_key": MASK,
        "nested": [{"Authorization": MASK}, f"postgres://app:{MASK}@db/console"],
        "max_output_tokens": 1024,
        "empty_secret": "",
        "plain": "kept",
    }


def _family(cls: type[errors.ConsoleError]) -> list[type[errors.ConsoleError]]:
    return [cls, *(item for child in cls.__subclasses__() for item in _family(child))]


def test_every_error_has_a_status_a_code_and_a_type_that_sdks_know() -> None:
    family = _family(errors.ConsoleError)
    named_here = [item for item in family if item.__module__ == errors.__name__]
    assert len({(item.code, item.status) for item in named_here}) == len(named_here)
    # One code says which rule refused; the status, whether the request or its answer was refused.
    shared = [code for code, times in Counter(item.code for item in named_here).items() if times > 1]
    assert shared == ["policy_blocked"]
    assert (errors.PolicyBlocked.status, errors.AnswerBlocked.status) == (400, 422)
    for item in family:
        assert 400 <= item.status < 600
        assert item.openai_type in {"invalid_request_error", "requests", "insufficient_quota", "server_error"}
        assert item.retryable <= (item.status in {408, 409, 429} or item.status >= 500)
