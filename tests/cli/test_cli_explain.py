"""`explain`, and the table of reasons under a job: codes in words, with the command that gets on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from langbatch import FailureCount
from langbatch_cli.app import main
from langbatch_cli.job_text import failure_lines
from running import CommandLine


def test_a_code_is_explained_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "Model_Not_Found"]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "model_not_found" in told.err
    assert "--deployment NAME" in told.err


def test_a_code_is_a_document_where_json_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "token_limit_exceeded", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"code", "about", "meaning", "remedy", "retry"}
    assert document["retry"] == "by itself"


def test_all_codes_are_listed_by_what_they_are_about(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == 0
    told = capsys.readouterr().err
    places = [told.index(head) for head in ("About one request:", "About a whole batch:", "About a call")]
    assert places == sorted(places)
    assert told.index("content_filter") < places[1] < told.index("model_mismatch")
    assert main(["explain", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["codes"]) >= 20


def test_an_unknown_code_is_a_usage_error_that_points_to_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "no-such-code"]) == 2
    assert "Try: langbatch explain" in capsys.readouterr().err


def test_fetch_and_status_say_why_requests_have_no_answer(langbatch: CommandLine, mixed_file: Path) -> None:
    job = langbatch.here("submit", mixed_file, "--wait").job_id
    for command in (["fetch", job], ["status", job], ["watch", job]):
        told = langbatch.here(*command).err
        assert "InternalServerError  1 request: The service failed at this request." in told
        assert f"langbatch retry {job}" in told
    fetched = langbatch.here("fetch", job, "--json", "--force").document
    assert [(f["code"], f["outcome"], f["requests"]) for f in fetched["failures"]] == [
        ("InternalServerError", "errored", 1)
    ]
    assert "failed" in fetched["failures"][0]["meaning"]


def test_a_job_without_failures_has_no_table_of_them(langbatch: CommandLine, requests_file: Path) -> None:
    job = langbatch.here("submit", requests_file, "--wait").job_id
    assert "Without success" not in langbatch.here("fetch", job).err


def failures(count: int) -> list[FailureCount]:
    return [FailureCount("content_filter", "errored", 1000), *(FailureCount(f"odd\x1b{n}", "errored", 1) for n in range(count))]  # fmt: skip


def test_reasons_are_readable_in_60_columns_and_cut_after_a_few() -> None:
    told = ["".join(text for text, _ in line) for line in failure_lines(failures(20), 60, limit=3)]
    assert max(map(len, told)) <= 60
    assert told[0] == "  content_filter  1,000 requests"
    assert any("Nothing is known of this code" in line for line in told)
    assert told[-1] == "  and 18 more codes (18 requests)"
    assert "\x1b" not in "".join(told)


def test_in_a_pipe_each_reason_is_one_line() -> None:
    told = ["".join(text for text, _ in line) for line in failure_lines(failures(1), None)]
    assert len(told) == 2
