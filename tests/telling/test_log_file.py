"""The event log: whole lines, each event once, whatever dies, whoever else writes, wherever the file goes."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from langbatch.emulator import EmulatorConfig, running_server
from running import CommandLine, pointing_at, request_line
from support import SECRET_KEY, SECRET_PROMPT, World, requests_file, world


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "events.jsonl"
    monkeypatch.setenv("LANGBATCH_EVENT_LOG", str(path))
    return path


def run_a_job(here: World, folder: Path, name: str) -> str:
    with here.manager() as manager:
        job = manager.submit(requests_file(folder / f"{name}.jsonl", [name]), **here.azure)
        manager.wait(job.id)
        return job.id


def documents(log: Path) -> list[dict[str, Any]]:
    text = log.read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def logged(here: World) -> list[dict[str, Any]]:
    with here.manager() as manager:
        return [event.to_dict() for event in manager.events()]


def test_every_event_becomes_a_line_of_a_private_file(here: World, tmp_path: Path, log: Path) -> None:
    run_a_job(here, tmp_path, "a")
    run_a_job(here, tmp_path, "b")
    assert documents(log) == logged(here)
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert SECRET_KEY not in log.read_text()
    assert SECRET_PROMPT not in log.read_text()


def test_it_begins_where_it_was_first_asked_for(
    here: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run_a_job(here, tmp_path, "a")
    log = tmp_path / "events.jsonl"
    monkeypatch.setenv("LANGBATCH_EVENT_LOG", str(log))
    with here.manager() as manager:
        manager.advance()
    assert not log.exists()
    run_a_job(here, tmp_path, "b")
    assert documents(log) == [event for event in logged(here) if event["job"] != before]


def test_what_happened_without_it_is_appended_later(
    here: World, tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_a_job(here, tmp_path, "a")
    monkeypatch.delenv("LANGBATCH_EVENT_LOG")
    run_a_job(here, tmp_path, "b")
    monkeypatch.setenv("LANGBATCH_EVENT_LOG", str(log))
    run_a_job(here, tmp_path, "c")
    assert documents(log) == logged(here)


def test_looking_without_asking_the_service_appends_nothing(
    here: World, tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_a_job(here, tmp_path, "a")
    size = log.stat().st_size
    monkeypatch.delenv("LANGBATCH_EVENT_LOG")
    job_id = run_a_job(here, tmp_path, "b")
    monkeypatch.setenv("LANGBATCH_EVENT_LOG", str(log))
    with here.manager() as manager:
        manager.status(job_id, offline=True)
        assert list(manager.events(job_id))
    assert log.stat().st_size == size


def test_a_file_that_was_moved_away_is_followed_by_a_new_one(here: World, tmp_path: Path, log: Path) -> None:
    run_a_job(here, tmp_path, "a")
    moved = log.rename(tmp_path / "events.1")
    run_a_job(here, tmp_path, "b")
    assert documents(moved) + documents(log) == logged(here)


def test_a_line_that_a_dead_process_left_torn_is_written_whole(
    here: World, tmp_path: Path, log: Path
) -> None:
    run_a_job(here, tmp_path, "a")
    with log.open("ab") as file:
        file.write(b'{"type": "shard_moved", "store": "')
    run_a_job(here, tmp_path, "b")
    assert documents(log) == logged(here)


def test_what_somebody_else_wrote_is_kept(here: World, tmp_path: Path, log: Path) -> None:
    log.write_text('{"by": "another program"}\nno JSON, and no end of line')
    run_a_job(here, tmp_path, "a")
    first, second, *ours = log.read_text().splitlines()
    assert (first, second) == ('{"by": "another program"}', "no JSON, and no end of line")
    assert [json.loads(line) for line in ours] == logged(here)


def test_two_stores_may_share_a_file(here: World, tmp_path: Path, log: Path) -> None:
    other = World(tmp_path / "other home", here.clock, here.emulator)
    for name in ("a", "b"):
        run_a_job(here, tmp_path, name)
        run_a_job(other, tmp_path, f"{name}-other")
    told = documents(log)
    for one in (here, other):
        theirs = logged(one)
        assert [event for event in told if event["store"] == theirs[0]["store"]] == theirs
    assert len(told) == len(logged(here)) + len(logged(other))


def test_a_log_that_cannot_be_written_breaks_no_job_and_is_reported_once(
    here: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LANGBATCH_EVENT_LOG", "/dev/full")
    with here.manager() as manager:
        job = manager.submit(requests_file(tmp_path / "in.jsonl", ["a"]), **here.azure)
        assert manager.wait(job.id).all_succeeded
    (record,) = [record for record in caplog.records if record.name == "langbatch"]
    assert record.message == "the event log /dev/full does not work: No space left on device"


def test_a_file_that_a_frozen_process_holds_is_left_to_it(here: World, tmp_path: Path, log: Path) -> None:
    run_a_job(here, tmp_path, "a")
    size = log.stat().st_size
    with log.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        run_a_job(here, tmp_path, "b")
        assert log.stat().st_size == size
    run_a_job(here, tmp_path, "c")
    assert documents(log) == logged(here)


_KILLED_AFTER_AN_APPEND = """
import os, signal, sys
from langbatch import JobManager, failpoints

log, sizes = sys.argv[2], [0]

def on_point(name):
    # The lines are on disk, that they are is not yet in the store.
    if name == "commit.before" and os.path.exists(log) and os.path.getsize(log) > 0:
        os.kill(os.getpid(), signal.SIGKILL)

with failpoints.listening(on_point):
    JobManager(sys.argv[1]).advance()
"""


def test_a_kill_between_the_append_and_its_commit_doubles_no_line(
    here: World, tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with here.manager() as manager:
        manager.advance()  # the log is known from here on
    monkeypatch.delenv("LANGBATCH_EVENT_LOG")
    run_a_job(here, tmp_path, "a")
    monkeypatch.setenv("LANGBATCH_EVENT_LOG", str(log))
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED_AFTER_AN_APPEND, str(here.home), str(log)],
        env=dict(os.environ),
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert documents(log) == logged(here)
    run_a_job(here, tmp_path, "b")
    assert documents(log) == logged(here)


def test_processes_at_once_lose_tear_and_double_no_line(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    with running_server(config=EmulatorConfig.instant()) as server:
        langbatch = CommandLine(tmp_path, {**pointing_at(server), "LANGBATCH_EVENT_LOG": str(log)})
        for name in ("a", "b", "c", "d"):
            lines = "".join(request_line(f"{name}-{n}") for n in range(4))
            (tmp_path / f"{name}.jsonl").write_text(lines)
            submitted = langbatch.here(
                "submit", f"{name}.jsonl", "--provider", "azure", "--max-requests-per-shard", "1"
            )
            assert submitted.code == 0, submitted.err
        with (
            langbatch.started("resume", "--wait") as first,
            langbatch.started("resume", "--wait") as second,
            langbatch.started("resume", "--wait") as third,
        ):
            for process in (first, second, third):
                assert process.wait() == 0, process.communicate()
        told = langbatch.here("events", "--json").document["events"]
    assert len(told) > 4 * 4 * 6
    assert documents(log) == told
