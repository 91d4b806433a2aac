"""ca/identity/totp.py: the codes of RFC 6238, each good once, and recovery codes that survive being typed."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, unquote, urlsplit

import pyotp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca.identity import totp
from ca.identity.totp import new_recovery_codes, new_secret, normalised, step_of, uri

SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
"""The secret of RFC 6238, appendix B, in base32."""
NOW = datetime(2026, 6, 1, 12, 0, 15, tzinfo=UTC)
HERE = int(NOW.timestamp()) // 30

steps = st.integers(min_value=2, max_value=1 << 32)


def code(step: int, secret: str = SECRET) -> str:
    return pyotp.TOTP(secret).generate_otp(step)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (59, "287082"),
        (1111111109, "081804"),
        (1111111111, "050471"),
        (1234567890, "005924"),
        (2000000000, "279037"),
        (20000000000, "353130"),
    ],
)
def test_the_codes_are_those_of_the_rfc(seconds: int, shown: str) -> None:
    """RFC 6238, appendix B: the last six of its eight digits."""
    now = datetime.fromtimestamp(seconds, UTC)
    assert step_of(SECRET, shown, now=now, after=0) == seconds // 30


@pytest.mark.parametrize(("off", "good"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
def test_a_clock_may_be_off_by_one_step_either_way(off: int, good: bool) -> None:
    assert step_of(SECRET, code(HERE + off), now=NOW, after=0) == (HERE + off if good else None)


@given(steps, st.integers(min_value=-1, max_value=1), st.integers(min_value=-3, max_value=3))
def test_no_code_is_taken_after_itself_or_a_later_one(present: int, off: int, behind: int) -> None:
    now = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=present * 30)
    step = present + off
    found = step_of(SECRET, code(step), now=now, after=step + behind)
    assert found is None or found > step + behind
    if found is not None:
        assert step_of(SECRET, code(step), now=now, after=found) is None


def test_a_code_that_fits_two_steps_is_the_later_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once in a million: were it the earlier one, the same code would be good again."""
    monkeypatch.setattr(pyotp.TOTP, "generate_otp", lambda self, step: "123456")
    assert step_of(SECRET, "123456", now=NOW, after=0) == HERE + 1
    assert step_of(SECRET, "123456", now=NOW, after=HERE + 1) is None


@pytest.mark.parametrize("wrong", ["", "12345", "1234567", "abcdef", "١٢٣٤٥٦", "12 34", "-123456x", "１２３４５６"])
def test_what_is_no_code_is_none(wrong: str) -> None:
    assert step_of(SECRET, wrong, now=NOW, after=0) is None


@given(st.text(max_size=20))
def test_no_text_can_break_the_check(text: str) -> None:
    assert step_of(SECRET, text, now=NOW, after=HERE + 2) is None


@pytest.mark.parametrize("shape", ["{0}{1}", "{0} {1}", " {0}-{1}\n", "{0}\u00a0{1}"])
def test_a_code_may_be_typed_in_two_halves(shape: str) -> None:
    shown = code(HERE)
    assert step_of(SECRET, shape.format(shown[:3], shown[3:]), now=NOW, after=0) == HERE


def test_a_secret_is_new_each_time_and_has_160_bits() -> None:
    assert len({new_secret() for _ in range(50)}) == 50
    assert len(pyotp.TOTP(new_secret()).byte_secret()) == 20


def test_an_app_reads_secret_person_and_cluster() -> None:
    parts = urlsplit(uri(SECRET, user="alice@example.org", cluster="my bastion"))
    assert (parts.scheme, parts.netloc) == ("otpauth", "totp")
    assert unquote(parts.path) == "/my bastion:alice@example.org"
    assert parse_qs(parts.query) == {"secret": [SECRET], "issuer": ["my bastion"]}
    assert pyotp.parse_uri(parts.geturl()).secret == SECRET  # what others make of it


def test_recovery_codes_are_ten_without_vowels() -> None:
    codes = new_recovery_codes()
    assert len(set(codes)) == totp.RECOVERY_CODES == 10
    for one in codes:
        assert re.fullmatch(r"[b-df-hjkmnp-tv-z2-9]{5}(-[b-df-hjkmnp-tv-z2-9]{5}){2}", one), one
    assert len(totp._ALPHABET) ** 15 > 1 << 60


@given(st.integers(min_value=0, max_value=9), st.text(" -\t\u2013\u00a0", max_size=4), st.booleans())
def test_case_blanks_and_hyphens_make_no_difference(at: int, between: str, loud: bool) -> None:
    made = CODES[at]
    typed = between.join(made.replace("-", ""))
    assert normalised(typed.upper() if loud else typed) == normalised(made)


CODES = new_recovery_codes()
