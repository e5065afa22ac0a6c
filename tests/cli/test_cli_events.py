"""`langbatch events`: the log for people, as one document, and as it grows."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from running import CommandLine


@pytest.fixture
def job(langbatch: CommandLine, requests_file: Path) -> str:
    ran = langbatch.here("submit", str(requests_file), "--provider", "azure", "--wait")
    assert ran.code == 0, ran.err
    return ran.job_id


def test_people_read_what_happened_line_by_line(langbatch: CommandLine, job: str) -> None:
    ran = langbatch.here("events", job)
    assert (ran.code, ran.out) == (0, "")
    lines = ran.err.splitlines()
    assert lines[0].endswith("submitted  3 requests")
    assert any("shard 0 attempt 1 create answered: creating → active  batch_" in line for line in lines)
    assert "job moved: running → completed  succeeded=3" in lines[-1]
    assert f" {job} " not in ran.err
    assert f" {job} job moved" in langbatch.here("events").err


def test_programs_get_one_document(langbatch: CommandLine, job: str) -> None:
    told = langbatch.here("events", job, "--json").document["events"]
    assert [told[0]["type"], told[-1]["type"]] == ["job_submitted", "job_finished"]
    assert told[-1]["counts"]["succeeded"] == 3
    assert langbatch.here("events", "--json").document["events"] == told


def test_following_a_job_ends_with_it(langbatch: CommandLine, requests_file: Path) -> None:
    job = langbatch.here("submit", str(requests_file), "--provider", "azure").job_id
    with langbatch.started("events", job[:12], "--follow", "--json") as following:
        assert langbatch("resume", "--wait").code == 0
        out, err = following.communicate(timeout=120)
    assert following.returncode == 0, err
    told = [json.loads(line) for line in out.splitlines()]
    assert told == langbatch.here("events", job, "--json").document["events"]


def test_following_all_jobs_goes_on_until_it_is_stopped(langbatch: CommandLine, job: str) -> None:
    with langbatch.started("events", "--follow") as following:
        assert following.stderr is not None
        while b"completed" not in following.stderr.readline():
            pass
        following.send_signal(signal.SIGINT)
        assert following.wait(timeout=120) == 130


def test_it_asks_no_service(langbatch: CommandLine, job: str) -> None:
    assert langbatch.here("events", job, AZURE_API_BASE="http://127.0.0.1:1").code == 0


def test_an_unknown_job_is_a_usage_error(langbatch: CommandLine) -> None:
    assert langbatch.here("events", "job_unknown").code == 2
