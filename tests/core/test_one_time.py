"""One-time passwords against the vectors of RFC 4226 and RFC 6238; each is taken once; recovery codes however they are typed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.core import one_time

SEED = b"12345678901234567890"


@pytest.mark.parametrize(
    ("counter", "code"),
    list(enumerate(["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"])),
)  # fmt: skip
def test_codes_of_rfc_4226(counter, code):
    assert one_time.code_at(SEED, counter) == code


@pytest.mark.parametrize(
    ("now", "code"),
    [(59, "94287082"), (1111111109, "07081804"), (1111111111, "14050471"), (1234567890, "89005924"), (2000000000, "69279037"),
     (20000000000, "65353130")],
)  # fmt: skip
def test_codes_of_rfc_6238(now, code):
    assert one_time.code_at(SEED, now // 30, digits=8) == code


@given(now=st.integers(10**6, 2 * 10**9), off=st.integers(-100, 100))
def test_codes_around_now_are_taken(now, off):
    code = one_time.code_at(SEED, (now + off) // 30)
    taken = one_time.step_of(SEED, code, now)
    if abs((now + off) // 30 - now // 30) <= one_time.WINDOW:
        assert taken is not None
        assert one_time.step_of(SEED, code, now, after=taken) is None, "once"
    else:
        assert taken is None or one_time.code_at(SEED, taken) == code


@given(st.text(max_size=30))
def test_whatever_is_typed_is_no_error(text):
    one_time.step_of(SEED, text, 10**9)
    one_time.recovery_hash(text)


def test_recovery_codes_are_known_however_they_are_typed():
    codes = one_time.new_recovery_codes()
    assert len({*codes}) == one_time.RECOVERY_CODES
    for code in codes:
        known = one_time.recovery_hash(code)
        assert known
        for typed in (code.upper(), code.replace("-", ""), f" {code} ", code.replace("-", " ")):
            assert one_time.recovery_hash(typed) == known


def test_what_an_app_scans():
    uri = one_time.provisioning_uri(SEED, issuer="LLMOps Console", account="eve&x")
    assert uri.startswith(
        "otpauth://totp/LLMOps%20Console%3Aeve%26x?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=LLMOps%20Console"
    )
    assert one_time.shown_seed(SEED).startswith("GEZD GNBV ")
