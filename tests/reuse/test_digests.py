"""When two requests are the same, and when they are not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from langbatch.records import Target
from langbatch.reuse.digests import DIGEST_BYTES, answerer, body_digest, question


def line(body: str, custom_id: str = "a", url: str = "/chat/completions") -> bytes:
    return f'{{"custom_id": "{custom_id}", "method": "POST", "url": "{url}", "body": {body}}}\n'.encode()


def digest(body: str, **of_line: str) -> bytes:
    return body_digest(line(body, **of_line))[0]


PLAIN = '{"model": "m", "messages": [{"role": "user", "content": "é \\" 1"}], "temperature": 0.5}'
TARGET = Target("azure", "res.openai.azure.com", "chat_completions", "dep")


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


def test_custom_ids_and_urls_do_not_count() -> None:
    assert digest(PLAIN) == digest(PLAIN, custom_id="b", url="/v1/chat/completions")


def test_the_model_is_told_beside_the_body() -> None:
    other = PLAIN.replace('"m"', '"n"')
    assert body_digest(line(other)) == (digest(PLAIN), "n")
    assert body_digest(line('{"input": "x"}'))[1] is None


def test_whole_and_broken_numbers_are_told_apart() -> None:
    assert digest('{"seed": 1}') != digest('{"seed": 1.0}')
    assert digest('{"seed": 1}') != digest('{"seed": true}')


def test_long_numbers_are_compared_to_the_last_digit() -> None:
    assert digest('{"seed": 123456789012345678901234567890}') != digest(
        '{"seed": 123456789012345678901234567891}'
    )


@pytest.mark.parametrize(
    "body", ['{"a": "\\ud800"}', '{"a": 1e999}', "[]", '{"a": 1', '{"a": ' + "9" * 5000 + "}"]
)
def test_what_cannot_be_read_is_equal_to_nothing_else(body: str) -> None:
    assert digest(body) == digest(body)
    assert digest(body) != digest(body, custom_id="b")


@pytest.mark.parametrize(
    "other",
    [
        replace(TARGET, kind="responses"),
        replace(TARGET, host="other.openai.azure.com"),
        replace(TARGET, model="dep2"),
        replace(TARGET, provider="openai"),
    ],
)
def test_who_is_asked_counts(other: Target) -> None:
    body = digest(PLAIN)
    assert question(body, answerer(other, "m")) != question(body, answerer(TARGET, "m"))


def test_how_the_same_deployment_is_reached_and_where_its_name_stands_do_not_count() -> None:
    same = answerer(TARGET, "m")
    assert answerer(replace(TARGET, settings={"api_version": "v1"}), "m") == same
    assert answerer(replace(TARGET, host="RES.openai.azure.com"), None) == same
    assert answerer(replace(TARGET, model=None), "dep") == same


def test_a_question_is_filed_with_its_body() -> None:
    body = digest(PLAIN)
    asked = question(body, answerer(TARGET, None))
    assert asked[0] == body[0]
    assert asked != body
    assert len(asked) == DIGEST_BYTES


def test_digests_stay_the_same_from_release_to_release() -> None:
    assert digest(PLAIN).hex() == "d1b16cababe1f20683c9847554346cd0"
    assert question(digest(PLAIN), answerer(TARGET, "m")).hex() == "d14e66a370693cdb3be58503c6cc540d"
