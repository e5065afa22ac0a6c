"""`build`, and the way from a table through a job to a table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars
import pytest

from langbatch.emulator import EmulatorConfig, running_server
from running import CommandLine, pointing_at

ROWS = 'id,text\nr1,"good, very"\nr2,bad\n'
CLASSIFY = ("--prompt", "Classify: {text}", "--model", "gpt-test")


@pytest.fixture
def offline(tmp_path: Path) -> CommandLine:
    (tmp_path / "rows.csv").write_text(ROWS)
    return CommandLine(tmp_path)


def contents(path: Path) -> list[str]:
    requests = [json.loads(line) for line in path.read_text().splitlines()]
    return [request["body"]["messages"][-1]["content"] for request in requests]


def test_build_writes_requests_beside_the_caller_and_prints_the_path(offline: CommandLine) -> None:
    ran = offline("build", "rows.csv", *CLASSIFY, "--id-column", "id")
    assert (ran.code, ran.out) == (0, "rows.requests.jsonl\n")
    assert "langbatch submit rows.requests.jsonl" in ran.err
    assert contents(offline.folder / "rows.requests.jsonl") == ["Classify: good, very", "Classify: bad"]
    assert offline.here("validate", "rows.requests.jsonl").code == 0


def test_every_option_ends_in_the_body(offline: CommandLine) -> None:
    schema = {"type": "object", "properties": {"label": {"type": "string"}}}
    (offline.folder / "label.schema.json").write_text(json.dumps(schema))
    (offline.folder / "prompt.txt").write_text("Read {text}")
    ran = offline.here(
        "build", "rows.csv", "--prompt-file", "prompt.txt", "--system", "Be short", "--url", "/v1/responses",
        "--schema", "label.schema.json", "--max-tokens", "9", "--set", "temperature=0", "--set", "user=me", "-o", "-",
    )  # fmt: skip
    first = json.loads(ran.out.splitlines()[0])
    assert first["url"] == "/v1/responses"
    body = first["body"]
    assert body["text"]["format"]["name"] == "label"
    assert body["text"]["format"]["schema"]["required"] == ["label"]
    del body["text"]
    assert body == {
        "instructions": "Be short",
        "input": "Read good, very",
        "max_output_tokens": 9,
        "temperature": 0,
        "user": "me",
    }


def test_an_embedding_job_needs_no_prompt(offline: CommandLine) -> None:
    ran = offline.here("build", "rows.csv", "--embed-column", "text", "--model", "m", "-o", "-")
    assert [json.loads(line)["body"]["input"] for line in ran.out.splitlines()] == ["good, very", "bad"]


def test_standard_input_is_csv_unless_told_otherwise(offline: CommandLine) -> None:
    ran = offline("build", "-", *CLASSIFY, "-o", "-", stdin=ROWS)
    assert len(ran.out.splitlines()) == 2
    ran = offline("build", "-", *CLASSIFY, "--format", "jsonl", stdin='{"text": "x"}\n')
    assert contents(offline.folder / "rows.requests.jsonl") == ["Classify: x"]


def test_faulty_rows_are_3_and_nothing_is_written(offline: CommandLine) -> None:
    (offline.folder / "rows.csv").write_text("id,text\nr1,a\nr1,b\nr2\n")
    ran = offline.here("build", "rows.csv", *CLASSIFY, "--id-column", "id")
    assert (ran.code, ran.out) == (3, "")
    assert "rows.csv:3  duplicate_custom_id" in ran.err
    assert "rows.csv:4  cells" in ran.err
    assert not (offline.folder / "rows.requests.jsonl").exists()
    told = offline.here("build", "rows.csv", *CLASSIFY, "--id-column", "id", "--json").document["error"]
    assert [(problem["line"], problem["code"]) for problem in told["problems"]] == [
        (3, "duplicate_custom_id"),
        (4, "cells"),
    ]


def test_skip_invalid_builds_the_rest_and_tells_what_was_left_out(offline: CommandLine) -> None:
    (offline.folder / "rows.csv").write_text("id,text\nr1,a\nr2\n")
    ran = offline.here("build", "rows.csv", *CLASSIFY, "--skip-invalid", "--json")
    assert ran.code == 0
    document = ran.document
    assert (document["requests"], document["rejected"]) == (1, 1)
    assert document["path"] == "rows.requests.jsonl"


def test_a_column_that_is_not_there_is_told_with_those_that_are(offline: CommandLine) -> None:
    ran = offline.here("build", "rows.csv", "--prompt", "{Text}")
    assert ran.code == 3
    assert "there is no column 'Text'" in ran.err
    assert "the columns are: id, text" in ran.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--prompt", "x", "--prompt-file", "rows.csv"),
        (*CLASSIFY, "-o", "-", "--json"),
        (*CLASSIFY, "--set", "temperature"),
        (*CLASSIFY, "--set", "system=short"),
        (*CLASSIFY, "--prompt-file", "nowhere.txt"),
        (*CLASSIFY, "--schema", "rows.csv"),
        (*CLASSIFY, "-o", "rows.csv"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(offline: CommandLine, arguments: tuple[str, ...]) -> None:
    assert offline.here("build", "rows.csv", *arguments).code == 2
    assert (offline.folder / "rows.csv").read_text() == ROWS


def test_a_file_that_is_not_there_is_told_by_its_name(offline: CommandLine) -> None:
    ran = offline.here("build", "nowhere.csv", *CLASSIFY)
    assert ran.code == 3
    assert "there is no file 'nowhere.csv' in " in ran.err


def test_a_setting_reaches_every_body_under_its_own_name(offline: CommandLine) -> None:
    ran = offline.here(
        "build", "rows.csv", "--prompt", "{text}", "--set", "model=dep", "--set", "max_tokens=50",
        "--set", 'response_format={"type":"json_object"}', "--set", "rows=1", "--set", "top_p=NaN", "-o", "-",
    )  # fmt: skip
    for line in ran.out.splitlines():
        body = json.loads(line)["body"]
        del body["messages"]
        assert body == {
            "model": "dep",
            "max_tokens": 50,
            "response_format": {"type": "json_object"},
            "rows": 1,
            "top_p": "NaN",
        }


@pytest.mark.parametrize(
    "arguments",
    [
        ("--set", "messages=[]"),
        ("--model", "a", "--set", "model=b"),
        ("--max-tokens", "9", "--set", "max_tokens=8"),
        ("--max-tokens", "9", "--set", "max_completion_tokens=8"),
    ],
)
def test_a_setting_that_something_else_makes_is_refused(
    offline: CommandLine, arguments: tuple[str, ...]
) -> None:
    ran = offline.here("build", "rows.csv", *CLASSIFY, *arguments, "-o", "-")
    assert (ran.code, ran.out) == (3, "")
    assert "given twice" in ran.err or "made from each row" in ran.err


def test_a_table_of_a_header_alone_leads_nowhere(offline: CommandLine) -> None:
    (offline.folder / "rows.csv").write_text("id,text\n")
    ran = offline.here("build", "rows.csv", *CLASSIFY)
    assert ran.code == 0
    assert "0 requests" in ran.err
    assert "Next:" not in ran.err


@pytest.fixture(scope="module")
def labelling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    """A finished job whose answers are JSON, in a store of its own."""

    def answer(body: dict[str, Any], custom_id: str) -> str:
        return json.dumps({"label": body["messages"][-1]["content"].split()[-1], "score": len(custom_id)})

    folder = tmp_path_factory.mktemp("labelling")
    (folder / "rows.csv").write_text(ROWS)
    with running_server(config=EmulatorConfig.instant(answer=answer)) as server:
        langbatch = CommandLine(folder, pointing_at(server))
        assert langbatch.here("build", "rows.csv", *CLASSIFY, "--id-column", "id").code == 0
        ran = langbatch.here("submit", "rows.requests.jsonl", "--wait")
        assert ran.code == 0
        (folder / "job").write_text(ran.job_id)
        yield langbatch


def test_own_rows_become_a_table_of_parsed_answers(labelling: CommandLine) -> None:
    job = (labelling.folder / "job").read_text()
    ran = labelling("fetch", job, "--flatten", "-o", "labels.parquet")
    assert (ran.code, ran.out) == (0, "labels.parquet\n")
    labels = polars.read_parquet(labelling.folder / "labels.parquet")
    assert labels.select("custom_id", "label", "score").rows() == [("r1", "very", 2), ("r2", "bad", 2)]


def test_flat_csv_goes_into_a_pipe_clean(labelling: CommandLine) -> None:
    job = (labelling.folder / "job").read_text()
    ran = labelling("fetch", job, "--flatten", "--format", "csv", "-o", "-")
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    assert [row["label"] for row in rows] == ["very", "bad"]
    assert "\x1b" not in ran.out + ran.err


def test_without_a_name_the_file_ends_as_its_format(labelling: CommandLine) -> None:
    job = (labelling.folder / "job").read_text()
    ran = labelling.here("fetch", job, "--format", "parquet", "--with-request", "--force")
    assert ran.out == "rows.requests.results.parquet\n"
    table = polars.read_parquet(labelling.folder / ran.out.strip())
    assert json.loads(table["request"][0])["messages"][0]["content"] == "Classify: good, very"
    told = labelling.here("fetch", job, "-o", "told.csv", "--json").document
    assert told["format"] == "csv"
