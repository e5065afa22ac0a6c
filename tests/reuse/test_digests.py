"""When two requests are the same, and when they are not."""

from __future__ import annotations

import pytest

from langbatch.records import EndpointKind
from langbatch.reuse.digests import DIGEST_BYTES, body_digest


def digest(
    body: str, *, kind: EndpointKind = "chat_completions", model: str | None = "gpt-4o", custom_id: str = "a"
) -> bytes:
    line = f'{{"custom_id": "{custom_id}", "method": "POST", "url": "/chat/completions", "body": {body}}}\n'
    return body_digest(line.encode(), kind, model)


PLAIN = '{"model": "m", "messages": [{"role": "user", "content": "é \\" 1"}], "temperature": 0.5}'


@pytest.mark.parametrize(
    "other",
    [
        '{"model":"m","messages":[{"role":"user","content":"é \\" 1"}],"temperature":0.5}',
        '{"temperature": 0.5, "messages": [{"role": "user", "content": "é \\" 1"}], "model": "m"}',
        '{"model": "m", "messages": [{"role": "user", "content": "\\u00e9 \\u0022 1"}], "temperature": 5e-1}',
    ],
)
def test_space_escapes_and_the_order_of_parameters_do_not_count(other: str) -> None:
    assert digest(other) == digest(PLAIN)


@pytest.mark.parametrize(
    "other",
    [
        '{"model": "m", "messages": [{"role": "user", "content": "é \\" 1 "}], "temperature": 0.5}',
        '{"model": "m", "messages": [{"role": "user", "content": "é \\" 1"}], "temperature": 0.50001}',
        '{"model": "m", "messages": [{"role": "user", "content": "é \\" 1"}]}',
        '{"model": "m", "messages": [{"role": "user", "content": "é \\" 1"}], "temperature": 0.5, "seed": null}',
        '{"model": "m", "messages": [{"role": "user", "content": "e\\u0301 \\" 1"}], "temperature": 0.5}',
    ],
)
def test_anything_said_otherwise_counts(other: str) -> None:
    assert digest(other) != digest(PLAIN)


def test_the_order_within_a_schema_counts_since_answers_follow_it() -> None:
    one = '{"response_format": {"properties": {"a": {}, "b": {}}}}'
    two = '{"response_format": {"properties": {"b": {}, "a": {}}}}'
    assert digest(one) != digest(two)


def test_custom_ids_do_not_count() -> None:
    assert digest(PLAIN, custom_id="a") == digest(PLAIN, custom_id="b")


def test_the_model_that_answers_counts_and_not_the_one_in_the_line() -> None:
    other = PLAIN.replace('"m"', '"n"')
    assert digest(other) == digest(PLAIN)
    assert digest(PLAIN, model="gpt-4o-mini") != digest(PLAIN)


def test_without_a_model_given_the_lines_own_counts() -> None:
    other = PLAIN.replace('"m"', '"n"')
    assert digest(PLAIN, model=None) == digest(PLAIN, model=None)
    assert digest(other, model=None) != digest(PLAIN, model=None)


def test_the_endpoint_counts() -> None:
    assert digest(PLAIN, kind="responses") != digest(PLAIN)


def test_whole_and_broken_numbers_are_told_apart() -> None:
    assert digest('{"seed": 1}') != digest('{"seed": 1.0}')
    assert digest('{"seed": 1}') != digest('{"seed": true}')


def test_long_numbers_are_compared_to_the_last_digit() -> None:
    assert digest('{"seed": 123456789012345678901234567890}') != digest(
        '{"seed": 123456789012345678901234567891}'
    )


@pytest.mark.parametrize("body", ['{"a": "\\ud800"}', '{"a": 1e999}', "[]", '{"a": 1'])
def test_an_unsound_line_has_no_digest(body: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        digest(body)


def test_digests_stay_the_same_from_release_to_release() -> None:
    assert len(digest(PLAIN)) == DIGEST_BYTES
    assert digest(PLAIN).hex() == "e883d3bf0600ce68a8c9151029f14f93"
