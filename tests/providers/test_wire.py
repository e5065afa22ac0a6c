from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langbatch.providers.wire import (
    Garbled,
    advice_in_text,
    batch_page,
    file_page,
    json_object,
    remote_batch,
    remote_file,
    retry_after_seconds,
)
from langbatch.records import BatchCounts, BatchFault, Usage

NOW = 1_700_000_000.0
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"  # NOW


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "3600"}, 3600.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"x-ms-retry-after-ms": "250"}, 0.25),
        ({"retry-after": "86400"}, 86400.0),
        ({"retry-after": "999999999"}, 86400.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:14:20 GMT"}, 60.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:12:20 GMT"}, None),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "1e400"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "9" * 5000}, None),
        ({"retry-after": "1_0"}, None),
        ({"retry-after": "١٢"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_every_spelling(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(headers, NOW) == seconds


def test_a_retry_date_is_measured_on_the_services_clock() -> None:
    headers = {"retry-after": "Tue, 14 Nov 2023 22:14:20 GMT", "date": DATE}
    assert retry_after_seconds(headers, NOW + 5000) == 60.0


def test_advice_is_found_in_azures_text() -> None:
    assert advice_in_text("rate limit. Please retry after 17 seconds. Contact us") == 17.0
    assert advice_in_text("please try again") is None


def test_a_batch_as_openai_sends_it() -> None:
    batch = remote_batch(
        {
            "id": "batch_1",
            "status": "failed",
            "endpoint": "/v1/chat/completions",
            "input_file_id": "file-1",
            "output_file_id": None,
            "error_file_id": "file-3",
            "created_at": 1711471533,
            "expires_at": 1711557933,
            "request_counts": {"total": 100, "completed": 95, "failed": 5},
            "errors": {
                "object": "list",
                "data": [{"code": "invalid_json_line", "message": "m", "param": None, "line": 3}],
            },
            "metadata": {"a": "b"},
            "usage": {
                "input_tokens": 5,
                "input_tokens_details": {"cached_tokens": 1},
                "output_tokens": 7,
                "output_tokens_details": {"reasoning_tokens": 2},
                "total_tokens": 12,
            },
        }
    )
    assert batch.counts == BatchCounts(100, 95, 5)
    assert batch.faults == (BatchFault("invalid_json_line", "m", 3),)
    assert batch.usage == Usage(5, 7, 1, 2)
    assert (batch.output_file_id, batch.error_file_id) == (None, "file-3")
    assert batch.created_at == 1711471533.0


def test_an_old_azure_preview_is_read_leniently() -> None:
    batch = remote_batch(
        {
            "id": "batch_2",
            "status": "Validating",
            "endpoint": None,
            "input_file_id": "file-1",
            "output_file_id": "",
            "error_file_id": "",
            "created_at": "2024-07-19T17:13:57.2491382+00:00",
            "expires_at": "2024-07-20T17:13:57.1918498Z",
            "request_counts": {"total": None, "completed": None, "failed": 0},
            "errors": {"data": [{"code": "token_limit_exceeded", "message": "full", "line": "12"}, {}]},
            "metadata": {"n": 3, "tag": "x"},
        }
    )
    assert batch.status == "validating"
    assert batch.output_file_id is None
    assert batch.error_file_id is None
    assert batch.created_at == pytest.approx(1721409237.249138)
    assert batch.counts == BatchCounts()
    assert batch.faults == (BatchFault("token_limit_exceeded", "full", 12), BatchFault("unknown", "", None))
    assert batch.metadata == {"tag": "x"}
    assert batch.usage is None


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("canceled", "cancelled"),
        ("Completed", "completed"),
        ("InProgress", "in_progress"),
        ("melting", "melting"),
        (None, "unknown"),
        (7, "unknown"),
    ],
)
def test_status_words_are_folded_and_unknown_ones_pass(sent: object, read: str) -> None:
    assert remote_batch({"id": "b", "status": sent}).status == read


def test_a_services_fault_message_is_masked_and_cut() -> None:
    batch = remote_batch(
        {"id": "b", "errors": {"data": [{"code": "c", "message": "\x1b" + "sk-abcdefghij " + "x" * 9000}]}}
    )
    assert len(batch.faults[0].message) <= 500
    assert "abcdefghij" not in batch.faults[0].message


def test_a_file_still_pending_has_no_size() -> None:
    file = remote_file({"id": "file-1", "status": "Pending", "bytes": None, "filename": "a.jsonl"})
    assert (file.status, file.bytes, file.filename) == ("pending", None, "a.jsonl")


@pytest.mark.parametrize("identity", [None, "", 5, {}])
def test_an_object_without_an_id_is_no_object(identity: object) -> None:
    with pytest.raises(Garbled):
        remote_batch({"id": identity, "status": "validating"})
    with pytest.raises(Garbled):
        remote_file({"id": identity})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>busy</html>",
        b'{"id": "batch_1", "sta',
        b"null",
        b'["x"]',
        b"[" * 100_000,
        b"\xff\xfe\x00",
    ],
)
def test_a_body_that_is_no_object_is_garbled(body: bytes) -> None:
    with pytest.raises(Garbled):
        json_object(body)


@pytest.mark.parametrize(
    ("more", "read"),
    [
        ({"has_more": True}, True),
        ({"has_more": False}, False),
        ({}, None),
        ({"has_more": None}, None),
        ({"has_more": "false"}, None),
        ({"nextLink": "https://x"}, True),
        ({"nextLink": None}, None),
    ],
)
@pytest.mark.parametrize("name", ["data", "value"])
def test_a_page_says_more_only_where_the_service_did(
    name: str, more: dict[str, Any], read: bool | None
) -> None:
    body = json.dumps({name: [{"id": "b1"}, {"id": "b2"}], **more}).encode()
    page = batch_page(body, {"date": DATE})
    assert [batch.id for batch in page.batches] == ["b1", "b2"]
    assert page.has_more is read
    assert page.server_time == NOW
    assert [file.id for file in file_page(body, {}).files] == ["b1", "b2"]


@pytest.mark.parametrize(
    "document",
    [{}, {"data": None}, {"data": {}}, {"data": [{"id": "b1"}, {"id": ""}]}, {"data": [{"id": "b1"}, "b2"]}],
)
def test_a_page_with_an_unreadable_entry_is_no_page(document: dict[str, Any]) -> None:
    """Skipping the entry could hide the batch that is looked for, and pay for it twice."""
    with pytest.raises(Garbled):
        batch_page(json.dumps(document).encode(), {})


_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_FIELDS = [
    "status",
    "input_file_id",
    "output_file_id",
    "error_file_id",
    "created_at",
    "expires_at",
    "request_counts",
    "errors",
    "metadata",
    "usage",
    "endpoint",
    "bytes",
    "filename",
    "status_details",
]


@given(st.dictionaries(st.sampled_from(_FIELDS), _JSON))
def test_no_field_of_any_shape_breaks_the_reading(fields: dict[str, Any]) -> None:
    batch = remote_batch({"id": "b", **fields})
    assert batch.id == "b"
    assert batch.status == batch.status.casefold()
    assert batch.output_file_id != ""
    assert remote_file({"id": "f", **fields}).id == "f"
