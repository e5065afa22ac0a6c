from __future__ import annotations

import json
from typing import Any

import pytest

from emulator.calls import Caller, Start, request_line, request_lines
from langbatch.emulator.config import RowError


def _run(caller: Caller, content: bytes) -> tuple[dict[str, Any], bytes, bytes]:
    """The batch and its two files as bytes."""
    batch = caller.run(content)
    assert batch["status"] == "completed"
    files = [caller.content(batch[key]) if batch[key] else b"" for key in ("output_file_id", "error_file_id")]
    return batch, files[0], files[1]


def _ids(content: bytes) -> list[str]:
    return [json.loads(line)["custom_id"] for line in content.split(b"\n") if line]


def test_rows_are_shuffled_by_the_seed(start: Start) -> None:
    """Item 12."""
    orders = [_ids(_run(start("azure", seed=seed), request_lines(50))[1]) for seed in (1, 1, 2)]
    expected = [f"t-{n}" for n in range(50)]
    assert all(sorted(order) == sorted(expected) for order in orders)
    assert orders[0] == orders[1] != expected
    assert orders[2] != orders[0]


def test_clean_azure_job_has_a_zero_byte_error_file(start: Start) -> None:
    """Item 13."""
    caller = start("azure")
    batch, _, error = _run(caller, request_lines(3))
    assert batch["error_file_id"]
    assert error == b""
    assert caller.call("GET", f"/files/{batch['error_file_id']}").json()["bytes"] == 0


def test_clean_openai_job_has_no_error_file(start: Start) -> None:
    """Item 13."""
    assert _run(start("openai"), request_lines(3))[0]["error_file_id"] is None


@pytest.mark.parametrize(("family", "missing"), [("azure", ""), ("azure-v1", None), ("openai", None)])
def test_all_failed_job_is_completed_without_output_file(
    start: Start, family: str, missing: str | None
) -> None:
    """Item 14."""
    caller = start(family, outcome="all_fail")
    batch, _, error = _run(caller, request_lines(3))
    assert batch["output_file_id"] == missing
    assert batch["request_counts"] == {"total": 3, "completed": 0, "failed": 3}
    assert len(_ids(error)) == 3


def test_mixed_job_is_split_over_both_files_with_error_null(start: Start) -> None:
    """Item 15."""
    content = request_line("good") + request_line("bad emulator-fail-429")
    batch, output, error = _run(start("azure"), content)
    assert (_ids(output), _ids(error)) == (["good"], ["bad emulator-fail-429"])
    failed = json.loads(error)
    assert failed["error"] is None
    assert failed["response"]["status_code"] == 429
    assert failed["response"]["body"]["error"]["code"] == "rate_limit_exceeded"
    assert batch["request_counts"] == {"total": 2, "completed": 1, "failed": 1}


def test_failure_rate_fails_about_that_share_and_the_same_rows_each_time(start: Start) -> None:
    """Item 15."""
    failed = [sorted(_ids(_run(start("openai", failure_rate=0.3), request_lines(200))[2])) for _ in range(2)]
    assert failed[0] == failed[1]
    assert 30 < len(failed[0]) < 90


def test_u2028_stands_raw_inside_an_answer(start: Start) -> None:
    """Item 24."""
    _, output, _ = _run(start("azure"), request_line("t emulator-u2028"))
    assert output.count(b"\n") == 1
    assert "\u2028".encode() in output
    assert len(output.decode().splitlines()) > 1
    assert "\u2028" in json.loads(output)["response"]["body"]["choices"][0]["message"]["content"]


def test_filtered_prompt_is_a_400_in_the_error_file(start: Start) -> None:
    """Item 24."""
    _, output, error = _run(start("azure"), request_line("t emulator-filtered"))
    row = json.loads(error)
    fault = row["response"]["body"]["error"]
    assert output == b""
    assert (row["response"]["status_code"], row["error"], fault["code"]) == (400, None, "content_filter")
    assert fault["innererror"]["code"] == "ResponsibleAIPolicyViolation"
    assert (fault["param"], fault["type"], fault["status"]) == ("prompt", None, 400)


def test_filtered_answer_is_a_success_with_its_finish_reason(start: Start) -> None:
    """Item 24."""
    _, output, error = _run(start("azure"), request_line("t emulator-filtered-answer"))
    assert json.loads(output)["response"]["body"]["choices"][0]["finish_reason"] == "content_filter"
    assert error == b""


def test_status_0_row_is_counted_as_completed(start: Start) -> None:
    """Item 24."""
    batch, output, _ = _run(start("azure"), request_line("t emulator-status-0"))
    assert json.loads(output)["response"]["status_code"] == 0
    assert batch["request_counts"]["completed"] == 1


def test_row_can_come_twice_or_for_an_id_nobody_sent(start: Start) -> None:
    """Item 24."""
    content = request_line("a emulator-duplicate") + request_line("b emulator-unknown-id")
    ids = _ids(_run(start("azure"), content)[1])
    assert ids.count("a emulator-duplicate") == 2
    assert ids.count("b emulator-unknown-id") == 1
    assert len(ids) == 4
    assert any(row.startswith("nobody-sent-") for row in ids)


def test_files_can_end_without_a_newline(start: Start) -> None:
    """Item 24."""
    content = request_lines(3) + request_line("bad emulator-fail-500")
    _, output, error = _run(start("azure", faults=("rows-no-final-newline",)), content)
    assert not output.endswith(b"\n")
    assert not error.endswith(b"\n")
    assert len(_ids(output)) == 3


def test_malformed_row_is_no_json(start: Start) -> None:
    """Item 24."""
    _, output, _ = _run(start("azure"), request_line("t emulator-malformed"))
    with pytest.raises(json.JSONDecodeError):
        json.loads(output)


def test_missing_and_expired_rows(start: Start) -> None:
    """Item 24."""
    content = request_line("a emulator-missing") + request_line("b emulator-expire") + request_line("c")
    batch, output, error = _run(start("openai"), content)
    assert _ids(output) == ["c"]
    row = json.loads(error)
    assert (row["response"], row["error"]["code"]) == (None, "batch_expired")
    assert batch["request_counts"] == {"total": 3, "completed": 1, "failed": 0}


def test_row_can_be_in_both_files(start: Start) -> None:
    """Item 24."""
    _, output, error = _run(start("azure"), request_line("t emulator-in-both-files"))
    assert _ids(output) == _ids(error)


def test_mark_can_stand_in_the_body_s_user(start: Start) -> None:
    _, output, error = _run(start("azure"), request_line("plain", user="emulator-fail-503"))
    assert output == b""
    assert json.loads(error)["response"]["status_code"] == 503


def test_ordinary_words_are_no_marks(start: Start) -> None:
    content = request_line("missing-expire-filtered") + request_line("emulator-filteredish")
    assert len(_ids(_run(start("azure"), content)[1])) == 2


@pytest.mark.parametrize("fault", ["rows-lost=2", "rows-malformed=2", "rows-fail=2", "rows-expire=2"])
def test_row_faults_take_as_many_rows_as_they_say(start: Start, fault: str) -> None:
    _, output, _ = _run(start("azure", faults=(fault,)), request_lines(6))
    good = 0
    for line in output.split(b"\n"):
        try:
            good += bool(line and json.loads(line))
        except ValueError:
            continue
    assert good == 4


def test_lost_rows_are_counted_as_completed(start: Start) -> None:
    batch, output, _ = _run(start("azure", faults=("rows-lost=2",)), request_lines(6))
    assert (batch["request_counts"]["completed"], len(_ids(output))) == (6, 4)


def test_azure_chat_body_has_filters_and_the_base_model(start: Start) -> None:
    _, output, _ = _run(start("azure"), request_line("t", model="my-deployment"))
    row = json.loads(output)
    body = row["response"]["body"]
    assert set(row) == {"custom_id", "response", "error"}
    assert body["model"] != "my-deployment"
    assert body["prompt_filter_results"][0]["prompt_index"] == 0
    assert "hate" in body["choices"][0]["content_filter_results"]
    assert body["usage"]["total_tokens"] > 0


def test_openai_row_has_ids_and_no_filters(start: Start) -> None:
    row = json.loads(_run(start("openai"), request_line("t", model="gpt-x"))[1])
    assert row["id"].startswith("batch_req_")
    assert row["response"]["request_id"].startswith("req_")
    assert row["response"]["body"]["model"] == "gpt-x"
    assert "prompt_filter_results" not in row["response"]["body"]


@pytest.mark.parametrize(
    ("url", "asked", "kind"),
    [
        ("/v1/responses", {"messages": None, "input": "hello"}, "response"),
        ("/v1/embeddings", {"input": ["a", "b"]}, "list"),
        ("/v1/completions", {"messages": None, "prompt": "hello"}, "text_completion"),
    ],
)
def test_other_endpoints_answer_in_their_own_shape(
    start: Start, url: str, asked: dict[str, Any], kind: str
) -> None:
    caller = start("openai")
    batch = caller.run(request_line("t", url=url, **asked), endpoint=url)
    body = caller.rows(batch["output_file_id"])[0]["response"]["body"]
    assert body["object"] == kind
    assert body["usage"]["total_tokens"] > 0
    if kind == "response":
        assert "hello" in body["output"][0]["content"][0]["text"]
    elif kind == "list":
        assert [entry["index"] for entry in body["data"]] == [0, 1]
    else:
        assert "hello" in body["choices"][0]["text"]


def test_structured_answers_fit_the_schema_that_was_asked_for(start: Start) -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "sizes": {"type": "array", "items": {"$ref": "#/$defs/size"}},
            "mood": {"enum": ["good", "bad"]},
            "note": {"anyOf": [{"type": "null"}, {"type": "string"}]},
        },
        "$defs": {"size": {"type": "integer", "minimum": 3}},
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    _, output, _ = _run(start("openai"), request_line("t", response_format=wanted))
    text = json.loads(output)["response"]["body"]["choices"][0]["message"]["content"]
    assert json.loads(text) == {"name": "example", "sizes": [3], "mood": "good", "note": None}


def test_answers_come_from_the_user_s_function(start: Start) -> None:
    def answer(body: dict[str, Any], custom_id: str) -> dict[str, Any] | str | RowError:
        if custom_id == "text":
            return f"asked {body['messages'][0]['content']}"
        if custom_id == "whole":
            return {"my": "body", "usage": {"prompt_tokens": 3, "completion_tokens": 4}}
        if custom_id == "fails":
            return RowError(418, "teapot", "short and stout")
        raise RuntimeError("a bug in the user's function")

    caller = start("openai", answer=answer)
    content = b"".join(request_line(name) for name in ("text", "whole", "fails", "raises"))
    batch, output, error = _run(caller, content)
    good = {row["custom_id"]: row["response"]["body"] for row in map(json.loads, output.splitlines())}
    bad = {row["custom_id"]: row["response"] for row in map(json.loads, error.splitlines())}
    assert good["text"]["choices"][0]["message"]["content"] == "asked about text"
    assert good["whole"]["my"] == "body"
    assert (bad["fails"]["status_code"], bad["fails"]["body"]["error"]["code"]) == (418, "teapot")
    assert bad["raises"]["status_code"] == 500
    assert batch["request_counts"] == {"total": 4, "completed": 2, "failed": 2}


@pytest.mark.parametrize("said", [None, 7, {"a": object()}, "\ud83d"])
def test_what_an_answer_function_returns_and_nobody_can_send_fails_its_row(start: Start, said: Any) -> None:
    batch, _, error = _run(start("openai", answer=lambda body, custom_id: said), request_line("t"))
    assert json.loads(error)["response"]["body"]["error"]["code"] == "answer_function"
    assert batch["status"] == "completed"


def test_answers_are_the_same_bytes_every_time(start: Start) -> None:
    rows = []
    for _ in range(2):
        row = json.loads(_run(start("azure"), request_line("t"))[1])
        row["response"]["body"].pop("created")
        rows.append(row)
    assert rows[0] == rows[1]
