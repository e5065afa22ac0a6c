"""The codes of services in words: whatever their spelling, each with something to do."""

from __future__ import annotations

import re

import pytest

from langbatch import FailureCount, errors, explain, explanations
from langbatch.emulator import FAULTS
from langbatch.error_codes import Explanation

#: The wire reference's codes: validation (4), files and batches API (4), rows (5), HTTP (6).
DOCUMENTED = [
    "invalid_json_line",
    "too_many_tasks",
    "url_mismatch",
    "model_not_found",
    "model_mismatch",
    "duplicate_custom_id",
    "empty_file",
    "empty_batch",
    "invalid_request",
    "input_modified",
    "input_no_permissions",
    "token_limit_exceeded",
    "missing_required_parameter",
    "invalid_type",
    "batch_expired",
    "batch_cancelled",
    "conflict",
    "invalidPayload",
    "forbidden",
    "notFound",
    "unexpectedEntityState",
    "itemDoesAlreadyExist",
    "serviceUnavailable",
    "internalFailure",
    "quotaExceeded",
    "jsonlValidationFailed",
    "fileImportFailed",
    "tooManyRequests",
    "unauthorized",
    "contentFilter",
    "content_filter",
    "ResponsibleAIPolicyViolation",
    "context_length_exceeded",
    "rate_limit_exceeded",
    "DeploymentNotFound",
    "PermissionDenied",
    "401",
    "403",
    "404",
    "429",
    "http_400",
    "http_429",
    "http_0",
]


@pytest.mark.parametrize("code", DOCUMENTED)
def test_every_documented_code_is_explained(code: str) -> None:
    found = explain(code)
    assert found is not None
    assert found.meaning.endswith(".")
    assert found.remedy.endswith(".")


def test_codes_are_known_in_any_spelling() -> None:
    assert explain("ContentFilter") is explain("content_filter") is explain("CONTENT-FILTER")
    assert explain("invalid_thing_nobody_knows") is None
    assert explain("") is None


def test_no_two_codes_share_a_spelling() -> None:
    keys = [re.sub("[^a-z0-9]", "", one.code.lower()) for one in explanations()]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize(
    ("code", "retry"),
    [
        ("http_500", "worth it"),
        ("503", "worth it"),
        ("http_422", "useless"),
        ("http_302", "worth it"),
        ("http_429", "worth it"),
        ("http_403", "after mending"),
        ("http_404", "after mending"),
    ],
)
def test_http_statuses_without_an_entry_are_explained_by_their_class(code: str, retry: str) -> None:
    found = explain(code)
    assert isinstance(found, Explanation)
    assert found.retry == retry


def test_no_http_status_beyond_the_known_classes_is_explained() -> None:
    assert explain("http_999") is None
    assert explain("http_20") is None


def test_what_langbatch_does_by_itself_asks_nobody_to_act_at_once() -> None:
    for one in explanations():
        asks_nothing = one.remedy.startswith("Nothing")
        assert not asks_nothing or one.retry == "by itself", one.code


@pytest.mark.parametrize(
    "kind", [errors.AccessRefused, errors.Unreachable, errors.FateUnknown, errors.BadDownload]
)
def test_langbatchs_own_codes_for_trouble_are_explained(kind: type[errors.ProviderError]) -> None:
    assert explain(kind.code) is not None


def test_the_emulators_default_failures_are_explained() -> None:
    default = FAULTS["batch-fail"].default
    assert default is not None
    assert explain(default) is not None


def test_a_count_of_failures_carries_its_explanation_if_there_is_one() -> None:
    known = FailureCount("content_filter", "errored", 3).to_dict()
    assert known["requests"] == 3
    assert known["meaning"]
    assert FailureCount("strange", "errored", 3).to_dict()["meaning"] is None
