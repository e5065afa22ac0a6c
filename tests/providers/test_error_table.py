from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from langbatch.errors import (
    AccessRefused,
    FateUnknown,
    ProviderError,
    QuotaFull,
    Refused,
    RemoteNotFound,
    Throttled,
)
from langbatch.providers.error_table import MAKING_VERBS, Verb, error_for

VERBS: tuple[Verb, ...] = get_args(Verb)


def judge(
    verb: Verb,
    status: int,
    body: bytes | dict[str, Any] = b"",
    headers: dict[str, str] | None = None,
    known: tuple[str, ...] = (),
) -> ProviderError:
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    return error_for(verb, status, headers or {}, payload, now=0.0, known_secrets=known)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("status", "family"),
    [
        (401, AccessRefused),
        (403, AccessRefused),
        (404, RemoteNotFound),
        (429, Throttled),
        (400, Refused),
        (413, Refused),
        (422, Refused),
        (408, FateUnknown),
        (302, FateUnknown),
        (307, FateUnknown),
        (500, FateUnknown),
        (503, FateUnknown),
        (599, FateUnknown),
    ],
)
def test_a_status_means_the_same_for_every_verb(verb: Verb, status: int, family: type[ProviderError]) -> None:
    error = judge(verb, status)
    assert type(error) is family
    assert error.status == status


@pytest.mark.parametrize("verb", VERBS)
def test_a_conflict_leaves_the_fate_open_only_where_something_is_made(verb: Verb) -> None:
    family = FateUnknown if verb in MAKING_VERBS else Refused
    assert type(judge(verb, 409, {"error": {"code": "conflict", "message": "m"}})) is family


@pytest.mark.parametrize("code", ["token_limit_exceeded", "quotaExceeded"])
def test_a_full_quota_is_not_a_refusal(code: str) -> None:
    error = judge("create_batch", 400, {"error": {"code": code, "message": "full"}})
    assert isinstance(error, QuotaFull)
    assert error.code == code


def test_a_quota_code_in_the_inner_error_counts() -> None:
    body = {"error": {"code": "400", "message": "m", "innererror": {"code": "token_limit_exceeded"}}}
    assert isinstance(judge("create_batch", 400, body), QuotaFull)


def test_a_429_is_about_quota_only_on_create() -> None:
    body = {"error": {"code": "token_limit_exceeded", "message": "m"}}
    assert isinstance(judge("create_batch", 429, body), QuotaFull)
    assert isinstance(judge("get_batch", 429, body), Throttled)


def test_a_throttled_call_carries_the_services_advice() -> None:
    by_header = judge("get_batch", 429, b"", {"retry-after": "3600"})
    by_text = judge("get_batch", 429, {"error": {"code": "429", "message": "Please retry after 21 seconds."}})
    assert isinstance(by_header, Throttled)
    assert isinstance(by_text, Throttled)
    assert by_header.retry_after_seconds == 3600.0
    assert by_text.retry_after_seconds == 21.0
    busy = judge("get_batch", 503, b"<html>", {"retry-after": "5"})
    assert isinstance(busy, FateUnknown)
    assert busy.retry_after_seconds == 5.0


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"error": {"code": "404", "message": "Resource not found"}}, "404"),
        ({"error": {"code": "unknown_url", "message": "Unknown request URL"}}, "404"),
        (b"<html>nginx</html>", "404"),
        (b"", "404"),
        ({"error": {"code": "notFound", "message": "gone"}}, "notFound"),
        ({"error": {"code": None, "message": "No such File object: file-1", "param": "id"}}, "notFound"),
        ({"error": {"code": "DeploymentNotFound", "message": "m"}}, "DeploymentNotFound"),
    ],
)
def test_a_missing_path_is_told_from_a_missing_object(body: bytes | dict[str, Any], code: str) -> None:
    assert judge("get_batch", 404, body).code == code


@pytest.mark.parametrize(
    ("body", "code", "hint"),
    [
        (
            {
                "statusCode": 401,
                "message": "Unauthorized. Access token is missing, invalid, audience is incorrect "
                "(https://cognitiveservices.azure.com), or have expired.",
            },
            "401",
            "AZURE_SCOPE",
        ),
        (
            {
                "error": {
                    "code": "401",
                    "message": "Access denied due to invalid subscription key or wrong API endpoint.",
                }
            },
            "401",
            "AZURE_API_KEY",
        ),
        (
            {
                "error": {
                    "code": "PermissionDenied",
                    "message": "Principal does not have access to API/Operation.",
                }
            },
            "PermissionDenied",
            "Cognitive Services OpenAI User",
        ),
        ({"error": "invalid_client", "error_description": "no such app"}, "invalid_client", "key or token"),
    ],
)
def test_each_kind_of_401_says_how_to_mend_it(body: dict[str, Any], code: str, hint: str) -> None:
    error = judge("get_batch", 401, body)
    assert error.code == code
    assert hint in (error.hint or "")


def test_a_message_names_status_code_text_and_request() -> None:
    error = judge(
        "create_batch",
        400,
        {"error": {"code": "invalidPayload", "message": "Invalid value for purpose."}},
        {"apim-request-id": "11-22"},
    )
    assert error.message == "HTTP 400 invalidPayload: Invalid value for purpose. (request 11-22)"


def test_a_page_is_described_and_never_quoted() -> None:
    error = judge("get_batch", 502, b"<!DOCTYPE html><html>secret prompt</html>")
    assert "HTML" in error.message
    assert "prompt" not in error.message


def test_an_echoed_key_does_not_reach_the_message() -> None:
    error = judge(
        "get_batch",
        401,
        {"error": {"code": "my-own-key", "message": "bad key my-own-key \x1b[2J"}},
        {"x-request-id": "\x1b]0;x"},
        known=("my-own-key",),
    )
    assert "my-own-key" not in f"{error.message} {error.code}"
    assert "\x1b" not in error.message


@pytest.mark.parametrize(
    "body", [b"null", b"[]", b'"x"', b'{"error": 5}', b'{"error": {"code": {}}}', b"\xff"]
)
def test_any_error_body_is_survived(body: bytes) -> None:
    assert isinstance(judge("get_file", 400, body), Refused)
