"""`fetch`: where results go, and what stands in the way."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from langbatch.emulator import RunningServer
from running import CommandLine, pointing_at, request_line


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, service: RunningServer) -> tuple[CommandLine, str]:
    """A finished job with one failure, and the command line whose store it is in."""
    langbatch = CommandLine(tmp_path_factory.mktemp("mixed"), pointing_at(service))
    path = langbatch.folder / "mixed.jsonl"
    path.write_text("".join(request_line(name) for name in ("one", "bad-two", "three")))
    ran = langbatch.here("submit", path, "--wait")
    assert ran.code == 4
    return langbatch, ran.job_id


def test_fetch_writes_beside_the_caller_and_prints_the_path(mixed: tuple[CommandLine, str]) -> None:
    langbatch, job = mixed
    ran = langbatch("fetch", job)
    assert ran.code == 4
    path = langbatch.folder / ran.out.strip()
    assert path.name == "mixed.results.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["outcome"] for record in records] == ["succeeded", "errored", "succeeded"]
    assert records[1]["error"]["code"] == "InternalServerError"
    assert path.stat().st_mode & 0o777 == 0o600


def test_fetch_leaves_an_existing_file_alone(mixed: tuple[CommandLine, str]) -> None:
    langbatch, job = mixed
    taken = langbatch.folder / "taken.jsonl"
    taken.write_text("mine")
    refused = langbatch.here("fetch", job, "-o", taken)
    assert refused.code == 2
    assert "--force" in refused.err
    assert taken.read_text() == "mine"
    forced = langbatch.here("fetch", job, "-o", taken, "--force")
    assert forced.code == 4
    assert len(taken.read_text().splitlines()) == 3


def test_fetch_to_standard_output_with_requests(mixed: tuple[CommandLine, str]) -> None:
    langbatch, job = mixed
    ran = langbatch.here("fetch", job, "-o", "-", "--with-request")
    first = json.loads(ran.out.splitlines()[0])
    assert first["request"]["messages"][0]["content"] == "What is it?"
    assert "response" in first


def test_fetch_as_csv_has_the_promised_columns(mixed: tuple[CommandLine, str]) -> None:
    langbatch, job = mixed
    ran = langbatch.here("fetch", job, "-o", "-", "--format", "csv")
    header, *rows = csv.reader(ran.out.splitlines())
    assert ",".join(header) == (
        "custom_id,outcome,line,text,status_code,error_code,error_message,input_tokens,output_tokens"
    )
    assert rows[0][:4] == ["one", "succeeded", "1", "the answer to one"]


def test_fetch_json_tells_the_path_and_the_job(mixed: tuple[CommandLine, str]) -> None:
    langbatch, job = mixed
    ran = langbatch.here("fetch", job[:20], "-o", "told.jsonl", "--json")
    assert ran.code == 4
    assert ran.document["id"] == job
    assert ran.document["path"] == "told.jsonl"
    assert ran.document["written"] == 3


def test_standard_output_cannot_carry_results_and_a_document(mixed: tuple[CommandLine, str]) -> None:
    langbatch, job = mixed
    ran = langbatch.here("fetch", job, "-o", "-", "--json")
    assert ran.code == 2
    assert ran.document["error"]["code"] == "usage"


def test_a_folder_that_is_not_there_is_a_usage_error(mixed: tuple[CommandLine, str]) -> None:
    langbatch, job = mixed
    assert langbatch.here("fetch", job, "-o", "nowhere/results.jsonl").code == 2


def test_a_reader_who_leaves_early_sees_no_complaint(mixed: tuple[CommandLine, str]) -> None:
    langbatch, job = mixed
    with langbatch.started("fetch", job, "-o", "-") as fetch:
        assert fetch.stdout is not None
        assert fetch.stderr is not None
        fetch.stdout.close()
        assert b"Traceback" not in fetch.stderr.read()
        assert fetch.wait() != 0


def test_an_unfinished_job_is_7_and_nothing_is_written(
    tmp_path: Path, slow_service: RunningServer, requests_file: Path
) -> None:
    langbatch = CommandLine(tmp_path, pointing_at(slow_service))
    job = langbatch.here("submit", requests_file).job_id
    early = langbatch.here("fetch", job, "-o", "early.jsonl")
    assert early.code == 7
    assert not (tmp_path / "early.jsonl").exists()
    partial = langbatch.here("fetch", job, "-o", "early.jsonl", "--partial")
    assert partial.code == 7
    assert (tmp_path / "early.jsonl").read_bytes() == b""
