"""Catalogue rows 41, 42, 47 and 52 with a SIGKILL before the fault and one after it: one paid batch each."""

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


def killed(langbatch: CommandLine, server: RunningServer, verb: str, *command: str) -> None:
    """Run a command and kill it while the service is answering its first call of `verb`."""
    server.emulator.add_faults(f"{verb}-delay=600@1")
    with langbatch.started(*command) as process:
        until(lambda: bool(server.emulator.report()["calls"].get(verb)), process)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    server.emulator.remove_faults(f"{verb}-delay")


def finish(langbatch: CommandLine, server: RunningServer) -> None:
    resumed = langbatch("resume", "--wait", "--json")
    assert resumed.code == 0, resumed.err
    (job,) = resumed.document["jobs"]
    assert job["counts"]["succeeded"] == len(IDS)
    assert server.emulator.payments().max_paid == 1
    assert server.emulator.report()["counts"]["batches"] == 1


SUBMIT = ("submit", "in.jsonl", "--provider", "azure", "--wait")
#: Killed while it waits for the file, so that the fault meets the next process; or killed while it looks
#: for what the fault has left open.
MOMENTS = ["get-file", "list"]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("fault", ["create-committed-drop", "create-committed-500"])
def test_bad_41_a_lost_answer_to_a_create_with_a_kill_before_or_after_is_one_batch(
    fault: str, moment: str, langbatch: CommandLine, server: RunningServer
) -> None:
    server.emulator.add_faults(f"{fault}@1")
    killed(langbatch, server, moment, *SUBMIT)
    finish(langbatch, server)
    assert server.emulator.faults_fired()[fault] == 1


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("fault", ["create-committed-html", "create-committed-other-file"])
def test_bad_42_a_garbled_answer_to_a_create_with_a_kill_before_or_after_is_one_batch(
    fault: str, moment: str, langbatch: CommandLine, server: RunningServer
) -> None:
    server.emulator.add_faults(f"{fault}@1")
    killed(langbatch, server, moment, *SUBMIT)
    finish(langbatch, server)
    assert server.emulator.faults_fired()[fault] == 1


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("fault", ["list-truncated-json", "list-as-value"])
def test_bad_47_a_list_that_fails_with_a_kill_before_or_after_is_one_batch(
    fault: str, moment: str, langbatch: CommandLine, server: RunningServer
) -> None:
    server.emulator.add_faults("create-committed-drop@1", f"{fault}*2")
    killed(langbatch, server, moment, *SUBMIT)
    finish(langbatch, server)
    assert server.emulator.faults_fired()[fault] >= 1


@pytest.mark.parametrize("moment", ["poll", "list"])
def test_bad_52_a_404_for_a_known_batch_with_a_kill_before_or_after_is_one_batch(
    moment: str, langbatch: CommandLine, server: RunningServer
) -> None:
    server.emulator.add_faults("poll-404*2")
    killed(langbatch, server, moment, *SUBMIT)
    finish(langbatch, server)
    assert server.emulator.faults_fired()["poll-404"] >= 1
