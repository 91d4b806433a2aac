"""What an ID token must be before a person is believed: one promise for each step of the plan."""

from __future__ import annotations

import ast
import hmac
import inspect
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from ca.identity import id_token
from ca.identity.key_set import SigningKey, read_keys
from ca.identity.provider import Refused
from tests.ca.identity.provider import EC_KEY, ED_KEY, OTHER_RSA_KEY, RSA_KEY, Key, at_hash, b64, signed

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
ISSUER = "https://id.example.com"
NONCE = "a-nonce-of-this-sign-in"
ACCESS = "an-access-token"
RIGHT: dict[str, Any] = {
    "iss": ISSUER,
    "sub": "248289761001",
    "aud": "bartizan",
    "iat": int(NOW.timestamp()),
    "exp": int(NOW.timestamp()) + 300,
    "nonce": NONCE,
    "preferred_username": "alice",
}


def published(*keys: Key, **more: str) -> tuple[SigningKey, ...]:
    return read_keys({"keys": [{**key.as_dict(private=False), **more} for key in keys]})


KEYS = published(RSA_KEY, EC_KEY, ED_KEY)


def token(key: Key = RSA_KEY, *, header: Mapping[str, Any] | None = None, alg: str = "RS256", **claims: Any) -> str:
    """A right token, but for what is given. A claim or header that is None is left out."""
    head = {"alg": alg, "kid": key.kid, "typ": "JWT", **(header or {})}
    said = {name: value for name, value in (RIGHT | claims).items() if value is not None}
    return signed({name: value for name, value in head.items() if value is not None}, json.dumps(said), key)


def verified(text: str, **more: Any) -> Mapping[str, object]:
    expected: dict[str, Any] = {"keys": KEYS, "issuer": ISSUER, "client": "bartizan", "nonce": NONCE, "now": NOW}
    return id_token.verify(text, **(expected | more))


def refusal(text: str, **more: Any) -> str:
    with pytest.raises(Refused) as caught:
        verified(text, **more)
    assert text[:20] not in str(caught.value)
    assert text[-20:] not in str(caught.value)
    return caught.value.code


@pytest.mark.parametrize(
    ("key", "alg"),
    [(RSA_KEY, "RS256"), (RSA_KEY, "PS256"), (EC_KEY, "ES256"), (ED_KEY, "EdDSA"), (ED_KEY, "Ed25519")],
)
def test_a_right_token_gives_its_claims(key: Key, alg: str) -> None:
    digest = "sha512" if key is ED_KEY else "sha256"
    claims = verified(token(key, alg=alg, at_hash=at_hash(ACCESS, digest)), access_token=ACCESS)
    assert claims["preferred_username"] == "alice"


# --- 1. the text ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", "a", "a.b", "a.b.c", "a.b.c.d.e", "." * 70_000, "é.é.é", token() + "=", "..", "e30.e30.e30"]
)
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        verified(text)


def test_a_token_that_is_too_long_is_refused_before_it_is_read() -> None:
    assert refusal(token(padding="x" * id_token.LONGEST_TOKEN)) == "token_malformed"


def test_a_claim_that_stands_twice_is_refused() -> None:
    said = json.dumps(RIGHT)[:-1] + ', "sub": "another"}'
    assert refusal(signed({"alg": "RS256", "kid": "r1"}, said, RSA_KEY)) == "token_malformed"


@given(st.text())
def test_any_text_is_refused_and_nothing_else_happens(text: str) -> None:
    with pytest.raises(Refused):
        verified(text)


@given(st.lists(st.binary(), min_size=3, max_size=3))
def test_any_bytes_in_three_parts_are_refused_and_nothing_else_happens(parts: list[bytes]) -> None:
    with pytest.raises(Refused):
        verified(".".join(b64(part) for part in parts))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)
)


@given(st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "jwk"]), JSON))
def test_any_header_gives_claims_or_is_refused(header: dict[str, Any]) -> None:
    text = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(RIGHT).encode())}.{b64(b'x' * 64)}"
    with pytest.raises(Refused):
        verified(text)


@given(st.dictionaries(st.sampled_from([*RIGHT, "azp", "nbf", "at_hash"]), JSON, min_size=1))
def test_any_claims_that_are_signed_give_claims_or_are_refused(claims: dict[str, Any]) -> None:
    text = signed({"alg": "EdDSA", "kid": "o1"}, json.dumps(RIGHT | claims), ED_KEY)
    try:
        verified(text, access_token=ACCESS)
    except Refused:
        pass


GOOD = {key.kid: token(key, alg=alg) for key, alg in ((RSA_KEY, "RS256"), (EC_KEY, "ES256"), (ED_KEY, "EdDSA"))}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."


@given(st.data())
def test_a_token_with_any_one_character_changed_is_refused(data: st.DataObject) -> None:
    text = GOOD[data.draw(st.sampled_from(sorted(GOOD, key=str)))]
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from([letter for letter in LETTERS if letter != text[at]]))
    with pytest.raises(Refused):
        verified(text[:at] + other + text[at + 1 :])


# --- 2. and 3. the header -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        {"jwk": OTHER_RSA_KEY.as_dict(private=False)},
        {"jku": "https://evil.example/jwks"},
        {"x5u": "https://evil.example/chain"},
        {"x5c": ["MIIB"]},
        {"crit": ["exp"]},
        {"b64": False},
        {"b64": False, "crit": ["b64"]},
        {"typ": "at+jwt"},
        {"typ": "logout+jwt"},
        {"kid": 7},
        {"cty": "JWT"},
    ],
)
def test_a_header_with_more_than_a_name_for_the_key_is_refused(header: dict[str, Any]) -> None:
    """OIDC-02"""
    assert refusal(token(header=header)) == "token_header"


def test_a_token_signed_with_the_public_key_as_a_secret_is_refused() -> None:
    """OIDC-02"""
    head, body = (b64(json.dumps(part).encode()) for part in ({"alg": "HS256", "kid": "r1"}, RIGHT))
    signature = hmac.digest(RSA_KEY.as_pem(private=False), f"{head}.{body}".encode(), "sha256")
    forged = f"{head}.{body}.{b64(signature)}"
    assert refusal(forged) == "token_alg"


@pytest.mark.parametrize("alg", ["RS512", "PS384"])
def test_an_algorithm_that_is_not_in_the_list_is_refused(alg: str) -> None:
    """OIDC-02"""
    assert refusal(token(alg=alg)) == "token_alg"
    assert refusal(token(alg=alg), algorithms=[alg]) == "token_alg"


@pytest.mark.parametrize("alg", ["none", "None", "", None, 7, ["RS256"]])
def test_a_token_without_a_signature_is_refused(alg: object) -> None:
    """OIDC-02"""
    head, body = (b64(json.dumps(part).encode()) for part in ({"alg": alg, "kid": "r1"}, RIGHT))
    assert refusal(f"{head}.{body}.{b64(b'nothing')}") == "token_alg"


# --- 4., 5. and 6. the key ------------------------------------------------------------------------------------


def test_an_unknown_key_is_refused() -> None:
    assert refusal(token(OTHER_RSA_KEY)) == "token_key_unknown"


def test_without_a_name_the_key_must_be_the_only_one_that_fits() -> None:
    unnamed = token(header={"kid": None})
    assert verified(unnamed)["sub"] == RIGHT["sub"]
    assert refusal(unnamed, keys=published(RSA_KEY, OTHER_RSA_KEY)) == "token_key_unknown"


def test_two_keys_of_one_name_are_no_key() -> None:
    assert refusal(token(), keys=[*published(RSA_KEY), *published(OTHER_RSA_KEY, kid="r1")]) == "token_key_unknown"


def test_a_key_for_encryption_verifies_nothing() -> None:
    """OIDC-16"""
    assert refusal(token(), keys=published(RSA_KEY, use="enc")) == "token_key"


def test_a_key_of_another_type_verifies_nothing() -> None:
    """OIDC-16"""
    assert refusal(token(), keys=published(EC_KEY, kid="r1")) == "token_key"
    assert refusal(token(), keys=published(RSA_KEY, alg="PS256")) == "token_key"


def test_another_key_of_the_same_name_verifies_nothing() -> None:
    assert refusal(token(), keys=published(OTHER_RSA_KEY, kid="r1")) == "token_signature"


def test_secrets_short_keys_and_odd_curves_are_not_taken_as_keys() -> None:
    modulus = rsa.generate_private_key(65_537, 1024).public_key().public_numbers().n
    short = {"kty": "RSA", "n": b64(modulus.to_bytes(128)), "e": "AQAB"}
    odd = [{"kty": "oct", "k": "c2VjcmV0"}, {"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"}, {"kty": "AKP"}, {}]
    broken = [{"kty": "RSA", "n": "AA", "e": "AQAB"}, {"kty": "OKP", "crv": "Ed25519", "x": "AA"}]
    assert read_keys({"keys": [*odd, *broken, short]}) == ()


@given(JSON | st.lists(st.dictionaries(st.sampled_from(["kty", "kid", "use", "n", "e", "x", "y", "crv"]), JSON)))
def test_any_document_gives_keys_or_a_value_error(document: object) -> None:
    try:
        read_keys({"keys": document})
    except ValueError:
        pass


# --- 7. and 8. for whom, from whom ----------------------------------------------------------------------------


@pytest.mark.parametrize("issuer", [None, ISSUER + "/", "https://ID.example.com", "https://evil.example", 7, [ISSUER]])
def test_another_issuer_is_refused(issuer: object) -> None:
    """OIDC-03"""
    assert refusal(token(iss=issuer)) == "token_issuer"


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": None},
        {"aud": "other"},
        {"aud": []},
        {"aud": ["other"]},
        {"aud": ["bartizan", 7]},
        {"aud": ["bartizan", "other"]},
        {"aud": ["bartizan", "other"], "azp": "other"},
        {"azp": "other"},
        {"aud": {"bartizan": 1}},
    ],
)
def test_a_token_for_another_client_is_refused(claims: dict[str, Any]) -> None:
    assert refusal(token(**claims)) == "token_audience"


@pytest.mark.parametrize(
    "claims", [{"aud": ["bartizan"]}, {"azp": "bartizan"}, {"aud": ["x", "bartizan"], "azp": "bartizan"}]
)
def test_a_token_that_names_our_client_is_taken(claims: dict[str, Any]) -> None:
    assert verified(token(**claims))


# --- 9. when --------------------------------------------------------------------------------------------------


def at(seconds: float) -> float:
    return NOW.timestamp() + seconds


def test_a_token_that_ran_out_is_refused() -> None:
    """OIDC-06"""
    assert refusal(token(exp=at(-100))) == "token_expired"
    assert verified(token(exp=at(-29)))


def test_a_token_from_the_future_is_refused() -> None:
    """OIDC-06"""
    assert refusal(token(iat=at(120))) == "token_not_yet"
    assert refusal(token(nbf=at(120))) == "token_not_yet"
    assert verified(token(iat=at(29), nbf=at(29)))


def test_with_our_clock_five_minutes_behind_no_token_is_taken_and_the_clock_is_named() -> None:
    with pytest.raises(Refused, match=r"from 300 s in the future") as caught:
        verified(token(exp=at(3_600)), now=NOW - timedelta(minutes=5))
    assert caught.value.code == "token_not_yet"
    assert "clock" in (caught.value.hint or "")


def test_with_our_clock_five_minutes_ahead_tokens_of_a_short_life_are_refused_and_the_clock_is_named() -> None:
    assert verified(token(exp=at(3_600)), now=NOW + timedelta(minutes=5))
    with pytest.raises(Refused, match=r"ran out 180 s ago") as caught:
        verified(token(exp=at(120)), now=NOW + timedelta(minutes=5))
    assert caught.value.code == "token_expired"
    assert "clock" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize("value", ["soon", True, [1], -1, 1e12, {}])
def test_what_is_no_time_is_refused(name: str, value: object) -> None:
    assert refusal(token(**{name: value})) == "token_malformed"


@pytest.mark.parametrize("name", ["exp", "iat"])
def test_a_token_without_its_times_is_refused(name: str) -> None:
    assert refusal(token(**{name: None})) == "token_malformed"


# --- 10., 11. and 12. -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("nonce", [None, "", "of another sign-in", 7, [NONCE], "é"])
def test_a_token_of_another_sign_in_is_refused(nonce: object) -> None:
    """OIDC-05"""
    assert refusal(token(nonce=nonce)) == "token_nonce"


@pytest.mark.parametrize("nonce", [None, ""])
def test_our_code_never_asks_without_a_nonce(nonce: str | None) -> None:
    """OIDC-05"""
    with pytest.raises(ValueError, match="nonce"):
        verified(token(nonce=nonce), nonce=nonce)


def test_a_refreshed_token_needs_no_nonce() -> None:
    assert verified(token(nonce=None), nonce=None, refreshed=True)


@pytest.mark.parametrize("said", ["", "wrong", at_hash("another"), at_hash(ACCESS, "sha512"), 7, None])
def test_a_token_that_came_with_another_access_token_is_refused(said: object) -> None:
    """OIDC-07"""
    text = signed({"alg": "RS256", "kid": "r1"}, json.dumps({**RIGHT, "at_hash": said}), RSA_KEY)
    assert refusal(text, access_token=ACCESS) == "token_at_hash"


def test_the_hash_of_an_algorithm_that_is_not_in_the_list_does_not_count() -> None:
    """OIDC-07"""
    text = token(alg="RS384", at_hash=at_hash(ACCESS, "sha384"))
    assert refusal(text, access_token=ACCESS, algorithms=["RS384"]) == "token_alg"


@pytest.mark.parametrize("subject", [None, "", "x" * 256, 7, ["alice"], "a\x00b", "a\nb", "\u202eecila"])
def test_what_cannot_name_a_person_for_ever_is_refused(subject: object) -> None:
    assert refusal(token(sub=subject)) == "token_subject"


# --- the page -------------------------------------------------------------------------------------------------


def test_the_page_lists_the_codes_and_steps_that_the_code_has() -> None:
    page = (Path(__file__).parents[3] / "docs" / "reference" / "token-checks.md").read_text()
    table = page.partition("## ")[0]
    rows = re.findall(r"^\| (\d+) \|.*?\| ((?:`\w+`(?:, )?)+) \|", table, flags=re.MULTILINE)
    source = ast.parse(inspect.getsource(id_token))
    raised = {
        keyword.value.value
        for call in ast.walk(source)
        if isinstance(call, ast.Call)
        for keyword in call.keywords
        if keyword.arg == "code" and isinstance(keyword.value, ast.Constant)
    }
    assert {code for _, codes in rows for code in re.findall(r"`(\w+)`", codes)} == raised
    steps = re.findall(r"^(\d+)\. ", inspect.getdoc(id_token) or "", flags=re.MULTILINE)
    assert [number for number, _ in rows] == steps
