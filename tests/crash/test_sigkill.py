"""Real SIGKILLs of the real command line, at the moments that cost money when they go wrong."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from langbatch.emulator import EmulatorConfig, RunningServer, running_server
from running import CommandLine, pointing_at, request_line

IDS = [f"task-{n}" for n in range(5)]


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with running_server(config=EmulatorConfig.instant()) as running:
        yield running


@pytest.fixture
def langbatch(tmp_path: Path, server: RunningServer) -> CommandLine:
    (tmp_path / "in.jsonl").write_text("".join(map(request_line, IDS)))
    return CommandLine(tmp_path, {**pointing_at(server), "LANGBATCH_GRACE_SECONDS": "1"})


def until(happened: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Watch the service from outside until it has seen what the test waits for, however long that takes."""
    while not happened():
        assert process.poll() is None, f"it never happened: {process.communicate()}"
        time.sleep(0.01)


def counts(server: RunningServer) -> dict[str, int]:
    found: dict[str, int] = server.emulator.report()["counts"]
    return found


def finish(langbatch: CommandLine, server: RunningServer) -> dict[str, int]:
    """`resume --wait` ends the job; the service's counts when every request has its one result."""
    resumed = langbatch("resume", "--wait", "--json")
    assert resumed.code == 0, resumed.err
    job = langbatch("status", "--json", "--offline").document["jobs"][0]
    assert job["state"] == "completed"
    assert job["counts"]["succeeded"] == len(IDS)
    fetched = langbatch("fetch", job["id"], "-o", "-")
    assert [line.split('"')[3] for line in fetched.out.splitlines()] == IDS
    assert server.emulator.payments().max_paid == 1
    return counts(server)


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        pytest.param("upload-delay=600@1", "uploads", id="upload-committed-reply-not-yet-read"),
        pytest.param("get-file-delay=600@1", "get-file", id="between-upload-and-create"),
        pytest.param("create-delay=600@1", "batches", id="batch-created-id-not-yet-stored"),
        pytest.param("poll-delay=600@1", "poll", id="while-polling"),
        pytest.param("download-delay=600@1", "download", id="while-downloading"),
    ],
)
def test_a_killed_process_leaves_a_job_that_resume_finishes_with_one_batch(
    fault: str, seen: str, langbatch: CommandLine, server: RunningServer
) -> None:
    server.emulator.add_faults(fault)
    with langbatch.started("submit", "in.jsonl", "--provider", "azure", "--wait") as process:
        until(lambda: bool(counts(server).get(seen) or server.emulator.report()["calls"].get(seen)), process)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    after = finish(langbatch, server)
    assert (after["uploads"], after["batches"]) == (1, 1)


def test_two_processes_that_resume_one_job_make_one_batch(
    langbatch: CommandLine, server: RunningServer
) -> None:
    server.emulator.add_faults("upload-delay=2@1")
    with langbatch.started("submit", "in.jsonl", "--provider", "azure", "--wait") as first:
        until(lambda: counts(server)["uploads"] == 1, first)
        with langbatch.started("resume", "--wait") as second:
            assert second.wait() == 0
        assert first.wait() == 0
    after = finish(langbatch, server)
    assert (after["uploads"], after["batches"]) == (1, 1)
