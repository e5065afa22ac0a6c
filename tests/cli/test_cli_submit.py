"""`submit`, `validate` and what follows, in processes of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from langbatch.emulator import EmulatorConfig, RunningServer, running_server
from running import CommandLine, pointing_at, request_line

SECRET = "wrong-key-AbCdEf0123456789"


@pytest.mark.parametrize(
    ("provider", "version"),
    [("azure", "2024-10-21"), ("azure", "2025-04-01-preview"), ("azure", "v1"), ("openai", None)],
)
def test_three_processes_bring_every_result_home(
    langbatch: CommandLine, requests_file: Path, provider: str, version: str | None
) -> None:
    versioned = ("--api-version", version) if version else ()
    job = langbatch("submit", requests_file, "--provider", provider, *versioned).job_id
    seen = langbatch("status", job, "--json")
    assert seen.code == 0
    assert seen.document["id"] == job
    assert seen.document["state"] == "completed"
    fetched = langbatch("fetch", job, "-o", "-")
    assert fetched.code == 0
    records = [json.loads(line) for line in fetched.out.splitlines()]
    assert [(r["custom_id"], r["outcome"], r["line"]) for r in records] == [
        ("one", "succeeded", 1),
        ("two", "succeeded", 2),
        ("three", "succeeded", 3),
    ]


def test_submit_puts_the_id_alone_on_standard_output(langbatch: CommandLine, requests_file: Path) -> None:
    ran = langbatch("submit", requests_file)
    assert ran.code == 0
    assert ran.job_id in ran.err


def test_the_same_file_again_is_the_same_job_and_paid_once(
    langbatch: CommandLine, requests_file: Path, service: RunningServer
) -> None:
    before = service.emulator.report()["counts"]["batches"]
    first = langbatch.here("submit", requests_file, "--deployment", "dear")
    again = langbatch.here("submit", requests_file, "--deployment", "dear")
    assert again.code == 0
    assert again.job_id == first.job_id
    assert "before" in again.err
    assert service.emulator.report()["counts"]["batches"] == before + 1


def test_new_sends_again(langbatch: CommandLine, requests_file: Path, service: RunningServer) -> None:
    before = service.emulator.report()["counts"]["batches"]
    first = langbatch.here("submit", requests_file, "--deployment", "again")
    again = langbatch.here("submit", requests_file, "--deployment", "again", "--new")
    assert again.job_id != first.job_id
    assert service.emulator.report()["counts"]["batches"] == before + 2


def test_submit_and_wait_tells_a_mixed_end_by_its_code(langbatch: CommandLine, mixed_file: Path) -> None:
    ran = langbatch.here("submit", mixed_file, "--wait", "--name", "mixture", "--json")
    assert ran.code == 4
    assert ran.document["name"] == "mixture"
    assert ran.document["counts"]["succeeded"] == 2
    assert ran.document["counts"]["errored"] == 1


def test_standard_input_is_called_so_where_it_is_validated(langbatch: CommandLine) -> None:
    ran = langbatch("validate", "-", stdin=request_line("from-a-pipe"))
    assert (ran.code, ran.err.splitlines()[0]) == (0, "standard input: valid")


def test_standard_input_becomes_a_job(langbatch: CommandLine) -> None:
    ran = langbatch("submit", "-", "--wait", stdin=request_line("from-a-pipe"))
    assert ran.code == 0
    fetched = langbatch("fetch", ran.job_id, "-o", "-")
    assert json.loads(fetched.out)["custom_id"] == "from-a-pipe"
    assert list((langbatch.home / "created").iterdir()) == []


def test_what_need_not_be_sent_is_told_before_at_and_after_the_submit(
    langbatch: CommandLine, tmp_path: Path, service: RunningServer
) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    first.write_text(request_line("a", "One?") + request_line("b", "Two?"))
    asked = ["Two?", "Three?", "Three?", "Two?", "Three?"]
    second.write_text("".join(request_line(f"c{n}", question) for n, question in enumerate(asked)))
    assert langbatch.here("submit", first, "--wait", "--deployment", "reused").code == 0
    wishes = ("submit", second, "--deployment", "reused", "--dedupe", "--cache")
    told = "1 is sent, 2 are copies of these, 2 were answered by earlier jobs"
    assert told in langbatch.here(*wishes, "--dry-run").err
    planned = langbatch.here(*wishes, "--dry-run", "--json").document
    assert planned["reuse"] == {"sent": 1, "copies": 2, "answered": 2}
    assert [shard["requests"] for shard in planned["shards"]] == [1]
    ran = langbatch.here(*wishes, "--wait")
    assert ran.code == 0
    assert f"Of its requests {told}." in ran.err
    status = langbatch.here("status", ran.job_id, "--json").document
    assert status["reuse"] == planned["reuse"]
    assert (status["total"], status["counts"]["succeeded"]) == (5, 5)
    assert told in langbatch.here("status", ran.job_id).err
    records = [json.loads(line) for line in langbatch.here("fetch", ran.job_id, "-o", "-").out.splitlines()]
    assert [(r["custom_id"], r["line"], r["attempt"]) for r in records] == [
        ("c0", 1, 0),
        ("c1", 2, 1),
        ("c2", 3, 1),
        ("c3", 4, 0),
        ("c4", 5, 1),
    ]
    assert langbatch.here("submit", first, "--deployment", "reused", "--json").document["reuse"] is None


def test_a_file_that_is_answered_completely_is_done_without_a_call(
    langbatch: CommandLine, requests_file: Path, tmp_path: Path, service: RunningServer
) -> None:
    options = ("--deployment", "answered", "--cache")
    assert langbatch.here("submit", requests_file, "--wait", *options).code == 0
    other = tmp_path / "other.jsonl"
    other.write_text("".join(reversed(requests_file.read_text().splitlines(keepends=True))))
    before = service.emulator.report()["calls"]
    planned = langbatch.here("submit", other, *options, "--dry-run").err
    assert [line.split() for line in planned.splitlines() if line.startswith(("  tokens", "  cost"))] == [
        ["tokens", "none"],
        ["cost", "nothing"],
    ]
    ran = langbatch.here("submit", other, *options)
    assert ran.code == 0
    assert "none is sent, 3 were answered by earlier jobs" in ran.err
    assert "langbatch fetch" in ran.err
    assert langbatch.here("fetch", ran.job_id, "-o", "-").out.count("succeeded") == 3
    assert service.emulator.report()["calls"] == before


def test_a_dry_run_sends_and_stores_nothing(
    langbatch: CommandLine, requests_file: Path, service: RunningServer
) -> None:
    before = service.emulator.report()["calls"]
    ran = langbatch.here("submit", requests_file, "--dry-run", "--json", "--max-requests-per-shard", "2")
    assert ran.code == 0
    assert ran.document["dry_run"] is True
    assert ran.document["total"] == 3
    assert ran.document["bytes"] == requests_file.stat().st_size
    assert ran.document["estimated_tokens"] > 0
    assert [shard["requests"] for shard in ran.document["shards"]] == [2, 1]
    assert service.emulator.report()["calls"] == before
    assert langbatch.here("status", "--json").document == {"jobs": []}


def test_a_closed_port_is_6_with_the_id_on_standard_output(
    langbatch: CommandLine, requests_file: Path, free_port: int
) -> None:
    nowhere = {"AZURE_API_BASE": f"http://127.0.0.1:{free_port}"}
    ran = langbatch("submit", requests_file, **nowhere)
    assert ran.code == 6
    assert "Error: " in ran.err
    assert "Try: " in ran.err
    as_json = langbatch("submit", requests_file, "--json", **nowhere)
    assert as_json.code == 6
    assert as_json.document["id"] == ran.job_id
    assert as_json.document["error"]["code"] == "unreachable"


def test_a_wrong_key_is_5_with_the_id_and_a_right_one_goes_on(tmp_path: Path, requests_file: Path) -> None:
    with running_server(config=EmulatorConfig.demo(speed=50.0, api_key="right-key")) as server:
        langbatch = CommandLine(tmp_path, pointing_at(server))
        refused = langbatch.here("submit", requests_file, AZURE_API_KEY=SECRET)
        assert refused.code == 5
        assert SECRET not in refused.err
        assert server.emulator.report()["counts"]["batches"] == 0
        once = langbatch.here("resume", refused.job_id, AZURE_API_KEY=SECRET)
        assert once.code == 5
        waited = langbatch.here("resume", refused.job_id, "--wait", "--json", AZURE_API_KEY="right-key")
        assert waited.code == 0
        assert waited.document["id"] == refused.job_id
        assert waited.document["counts"]["succeeded"] == 3
        assert server.emulator.report()["counts"]["batches"] == 1


def test_missing_credentials_are_5(langbatch: CommandLine, requests_file: Path) -> None:
    ran = langbatch.here("submit", requests_file, "--provider", "openai", "--json", OPENAI_API_KEY="")
    assert ran.code == 5
    assert ran.document["error"]["code"] == "setup"
    assert ran.document["error"]["hint"]


# ---------------------------------------------------------------- faulty input


@pytest.fixture
def faulty_file(tmp_path: Path) -> Path:
    path = tmp_path / "faulty.jsonl"
    path.write_text(request_line("good") + "{\n" + request_line("good") + request_line("fine"))
    return path


def test_validate_lists_every_problem_in_json(langbatch: CommandLine, faulty_file: Path) -> None:
    ran = langbatch("validate", faulty_file, "--json")
    assert ran.code == 3
    problems = ran.document["problems"]
    assert [problem["line"] for problem in problems] == [2, 3]
    assert problems[1]["code"] == "duplicate_custom_id"
    assert set(problems[0]) == {"line", "byte_offset", "custom_id", "code", "message"}
    assert ran.document["error"]["problems"] == problems
    assert ran.document["valid"] is False


def test_validate_tells_people_file_line_and_id(langbatch: CommandLine, faulty_file: Path) -> None:
    ran = langbatch.here("validate", faulty_file)
    assert ran.code == 3
    assert ran.out == ""
    assert "faulty.jsonl:2  invalid_json_line" in ran.err
    assert "faulty.jsonl:3  duplicate_custom_id  good" in ran.err


def test_validate_of_a_sound_file_tells_its_size(langbatch: CommandLine, requests_file: Path) -> None:
    ran = langbatch.here("validate", requests_file, "--json")
    assert ran.code == 0
    assert ran.document["valid"] is True
    assert ran.document["total"] == 3
    assert ran.document["problems"] == []


def test_a_file_that_is_not_there_is_3(langbatch: CommandLine) -> None:
    ran = langbatch.here("validate", "nowhere.jsonl", "--json")
    assert ran.code == 3
    assert ran.document["error"]["problems"] == ran.document["problems"]


def test_submit_refuses_faulty_input_and_stores_nothing(langbatch: CommandLine, faulty_file: Path) -> None:
    ran = langbatch.here("submit", faulty_file, "--json")
    assert ran.code == 3
    assert [problem["line"] for problem in ran.document["error"]["problems"]] == [2, 3]
    assert langbatch.here("status", "--json").document == {"jobs": []}


def test_skip_invalid_sends_the_rest(langbatch: CommandLine, faulty_file: Path) -> None:
    ran = langbatch.here("submit", faulty_file, "--skip-invalid", "--wait", "--json")
    assert ran.code == 0
    assert ran.document["total"] == 2
    assert ran.document["rejected"] == 2
    assert "2 lines refused, with the reasons in" in ran.err
