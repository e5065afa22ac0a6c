from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langbatch.redaction import clean_text, mask_secrets, safe_text

AZURE_KEY = "A1b2C3d4" * 10 + "Zz9Y"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Incorrect API key provided: sk-proj-abcDEF123456.", "sk-proj-abcDEF123456"),
        ("Incorrect API key provided: sk-ab*******wxyz.", "wxyz"),
        ("Authorization: Bearer abcdefghijklmnop", "abcdefghijklmnop"),
        ("token eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJ4In0.c2ln is bad", "eyJhbGciOiJSUzI1NiJ9"),
        ("GET https://a.blob/x?sv=1&sig=abc%2Fdef123&se=2", "abc%2Fdef123"),
        ("the key 0123456789abcdef0123456789abcdef is wrong", "0123456789abcdef0123456789abcdef"),
        (f"the key {AZURE_KEY} is wrong", AZURE_KEY),
        ('{"client_secret": "hunter2hunter2"}', "hunter2hunter2"),
        ("postgresql://me:pw-of-mine@db/x", "pw-of-mine"),
        ("api-key: A1b2C3d4E5", "A1b2C3d4E5"),
    ],
)
def test_what_looks_like_a_credential_is_masked(text: str, secret: str) -> None:
    assert secret not in mask_secrets(text)
    assert "***" in mask_secrets(text)


@pytest.mark.parametrize(
    "text",
    [
        "No such File object: file-0123456789abcdef0123456789abcdef",
        "batch_0123456789abcdef0123456789abcdef is gone",
        "Access token is missing, invalid, audience is incorrect (https://cognitiveservices.azure.com)",
        "bearer token missing",
        "The API deployment for this resource does not exist.",
    ],
)
def test_ids_and_plain_words_stay_readable(text: str) -> None:
    assert mask_secrets(text) == text


def test_known_secrets_are_masked_wherever_they_stand() -> None:
    assert mask_secrets("got my-odd-secret!", ["my-odd-secret"]) == "got ***!"


def test_a_short_known_secret_does_not_riddle_the_text() -> None:
    assert mask_secrets("a cat sat", ["a"]) == "a cat sat"
    assert mask_secrets("key bad, badly", ["bad"]) == "key ***, badly"


def test_an_escape_inside_a_key_does_not_hide_it() -> None:
    assert "abcDEF123456" not in safe_text("sk-\x1babcDEF123456")


def test_a_key_across_the_cut_is_masked_before_cutting() -> None:
    text = "x" * 490 + " sk-abcDEF1234567890"
    assert "abcDEF" not in safe_text(text, limit=500)


def test_control_bidi_and_line_breaks_do_not_reach_a_terminal() -> None:
    assert clean_text("a\x1b[31m\u202eb\u2028c\r\nd\x00\ud800") == "a[31mb c d"


@given(st.text(max_size=2000), st.integers(1, 600))
def test_cleaned_text_is_one_short_printable_line(text: str, limit: int) -> None:
    cleaned = clean_text(text, limit)
    assert len(cleaned) <= limit
    assert len(cleaned.splitlines()) <= 1
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in cleaned)
    cleaned.encode()  # a lone surrogate would raise
