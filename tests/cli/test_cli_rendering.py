"""What people read, as values: no terminal, no process."""

from __future__ import annotations

from dataclasses import replace

import pytest

from langbatch import JobStatus, Problem, ShardStatus
from langbatch.status import Counts, RemoteCounts, UsageSums
from langbatch_cli.fetch import default_name
from langbatch_cli.job_text import job_lines, job_table, outcome_text
from langbatch_cli.render import (
    Line,
    cells,
    cut,
    error_lines,
    problem_lines,
    visible,
    wrapped,
)

NARROW = 60


def text(lines: list[Line]) -> list[str]:
    return ["".join(piece for piece, _ in line) for line in lines]


def a_shard(index: int = 0) -> ShardStatus:
    return ShardStatus(
        index=index,
        first_line=1 + index,
        requests=1,
        state="active",
        attempt=2,
        target="azure/x.openai.azure.com/gpt",
        attention=None,
        input_file_id="file-1",
        batch_id="batch_0a1b2c3d-0000-1111-2222-333344445555",
        batch_status="in_progress",
        batch_counts=RemoteCounts(1, 1, 0),
    )


def a_job(shards: int = 1) -> JobStatus:
    return JobStatus(
        id="job_01m7ycf717jjhctd8yhq9q5m31",
        name="my \x1b[31mname",
        state="running",
        status="in_progress",
        provider="azure",
        target="azure/x.openai.azure.com/gpt",
        input="requests.jsonl",
        total=1200,
        rejected=3,
        counts=Counts(1000, 2, 0, 0, 0, 0, 198),
        usage=UsageSums(12, 34, None, None),
        attention="waiting for token quota, which frees up as other batches of this deployment end",
        cancel_requested=False,
        created_at="2026-11-21T01:02:03Z",
        finished_at=None,
        shards=tuple(a_shard(index) for index in range(shards)),
    )


def test_a_job_is_readable_in_60_columns() -> None:
    told = text(job_lines(a_job(), NARROW)) + text(job_table([a_job(), a_job()], NARROW))
    assert max(map(len, told)) <= NARROW
    assert any("running (in_progress)" in line for line in told)
    assert any("1,000 succeeded, 2 errored, 198 pending" in line for line in told)


def test_a_file_or_pipe_gets_each_fact_on_one_line() -> None:
    told = text(job_lines(a_job(), None))
    assert sum("waiting for token quota" in line for line in told) == 1
    assert sum(line.startswith("  shard ") for line in told) == 1


def test_text_from_elsewhere_cannot_steer_the_terminal() -> None:
    told = "\n".join(text(job_lines(a_job(), None)))
    assert "\x1b" not in told
    assert visible("a\u202eb\x00c\nd\u00a0e") == "a b c d e"
    assert visible("x" * 1000, 10) == "x" * 9 + "…"


def test_many_shards_are_cut_for_a_terminal_only() -> None:
    cut = text(job_lines(a_job(shards=60), NARROW, limit=50))
    assert "10 more shards" in cut[-1]
    assert sum("batch_" in line for line in text(job_lines(a_job(shards=60), None))) == 60


def test_the_table_keeps_the_newest_jobs_when_cut() -> None:
    jobs = [replace(a_job(), id=f"job_{number:026}") for number in range(5)]
    told = text(job_table(jobs, NARROW, limit=2))
    assert "3 earlier jobs" in told[0]
    assert any(jobs[-1].id in line for line in told)
    assert not any(jobs[0].id in line for line in told)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_lists_and_jobs_fit_their_window(width: int) -> None:
    jobs = [a_job(), replace(a_job(shards=30), name="数据集" * 40, state="completed")]
    told = text(job_table(jobs, width)) + text(job_lines(jobs[1], width))
    assert max(map(cells, told)) <= width


def test_a_wide_terminal_gets_a_table_with_dates_where_they_fit() -> None:
    jobs = [a_job(), replace(a_job(), state="completed", attention=None)]
    table, wide = text(job_table(jobs, 80)), text(job_table(jobs, 120))
    assert table[0].split() == ["job", "state", "done", "failed", "name"]
    assert "created (UTC)" in wide[0]
    assert "2026-11-21 01:02" in wide[1]
    columns = {line.index("my [31mname") for line in table if line.startswith("job_")}
    assert len(columns) == 1
    assert "200" in table[-1]  # 1,000 of 1,200 succeeded


def test_a_pipe_gets_each_job_on_one_line() -> None:
    told = text(job_table([a_job(), a_job()], None))
    assert len(told) == 2
    assert all("198 pending (waiting for token quota" in line for line in told)


def test_finished_shards_are_counted_on_a_terminal_and_listed_in_a_pipe() -> None:
    shards = tuple(replace(a_shard(n), state="done" if n else "active") for n in range(20))
    job = replace(a_job(), shards=shards)
    told = text(job_lines(job, 120, limit=50))
    assert "  shards     1 active, 19 done" in told
    assert "  and 19 more shards (19 done); --json shows all" in told
    assert sum("batch_" in line for line in told) == 1
    assert sum("batch_" in line for line in text(job_lines(job, None))) == 20


def test_text_is_cut_by_the_columns_it_takes() -> None:
    assert text([cut((("数据", "bold"), ("abc", "")), 7)]) == ["数据abc"]
    assert text([cut((("数据", "bold"), ("abc", "")), 6)]) == ["数据a…"]
    assert text([cut((("数据", "bold"), ("abc", "")), 4)]) == ["数…"]
    assert cells("e\u0301") == 1


def test_no_jobs_point_at_the_demo() -> None:
    assert "langbatch demo" in text(job_table([], NARROW))[0]


def test_outcomes_that_did_not_happen_are_not_told() -> None:
    assert outcome_text(replace(a_job(), counts=Counts(0, 0, 0, 0, 0, 0, 0))) == "none"
    assert outcome_text(replace(a_job(), counts=Counts(0, 0, 0, 0, 1, 0, 0))) == "1 missing"


def some_problems(count: int) -> list[Problem]:
    return [
        Problem(n, 10 * n, f"id-{n}", "bad_json", "the line ends before its JSON does")
        for n in range(1, count + 1)
    ]


def test_problems_name_file_line_and_id() -> None:
    told = text(list(problem_lines(some_problems(1), None, file="in.jsonl")))
    assert told == ["  in.jsonl:1  bad_json  id-1", "    the line ends before its JSON does"]


def test_long_lists_of_problems_are_cut_with_a_count() -> None:
    told = text(list(problem_lines(some_problems(60), NARROW, limit=50)))
    assert "10 more" in told[-1]
    assert "--json" in told[-1]
    assert max(map(len, told)) <= NARROW + 10  # the last line is a sentence, cut by nobody
    assert len(list(problem_lines(some_problems(60), None))) == 120


def test_an_error_is_one_block_with_something_to_try() -> None:
    told = text(error_lines("it broke " * 12, "mend it", NARROW))
    assert told[0].startswith("Error: it broke")
    assert told[1].startswith("       it broke")
    assert told[-1] == "Try: mend it"
    assert max(map(len, told)) <= NARROW


def test_an_error_without_a_hint_suggests_nothing() -> None:
    assert text(error_lines("it broke", None, None)) == ["Error: it broke"]


def test_wrapping_leaves_no_line_empty() -> None:
    assert wrapped("", 40, 4) == ["    ".rstrip()]
    assert wrapped("a b", None, 4) == ["    a b"]


@pytest.mark.parametrize(
    ("name", "ending", "expected"),
    [
        ("requests.jsonl", "jsonl", "requests.results.jsonl"),
        ("requests.jsonl.gz", "csv", "requests.results.csv"),
        ("my.data.v2", "jsonl", "my.data.v2.results.jsonl"),
        ("../../etc/x.jsonl", "jsonl", "x.results.jsonl"),
        ("", "jsonl", "job.results.jsonl"),
    ],
)
def test_results_are_named_after_their_input(name: str, ending: str, expected: str) -> None:
    assert default_name(name, ending) == expected
