"""`on_event` is told everything that is committed, in order, and cannot harm a job."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from langbatch import JobManager
from langbatch.events import Event, JobFinished
from support import World, requests_file, world


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def run_a_job(manager: JobManager, here: World, folder: Path, *ids: str) -> str:
    job = manager.submit(requests_file(folder / f"{ids[0]}.jsonl", ids), **here.azure)
    manager.wait(job.id)
    return job.id


def logged(here: World) -> list[Event]:
    with here.manager() as manager:
        return list(manager.events())


def test_a_listener_is_told_what_is_in_the_log_in_its_order(here: World, tmp_path: Path) -> None:
    told: list[Event] = []
    with JobManager(here.home, clock=here.clock, on_event=told.append) as manager:
        run_a_job(manager, here, tmp_path, "a", "b")
        # Told by the time the method returns, not only when the manager is closed.
        assert told == list(manager.events())
    assert isinstance(told[-1], JobFinished)


def test_an_event_can_be_seen_in_the_store_when_it_is_told(here: World, tmp_path: Path) -> None:
    unseen: list[Event] = []

    def on_event(event: Event) -> None:
        with here.manager() as other:
            if event not in list(other.events(event.job, after=event.n - 1)):
                unseen.append(event)

    with JobManager(here.home, clock=here.clock, on_event=on_event) as manager:
        run_a_job(manager, here, tmp_path, "a")
    assert unseen == []


def test_a_listener_is_told_of_what_other_managers_do_from_then_on(here: World, tmp_path: Path) -> None:
    with here.manager() as other:
        run_a_job(other, here, tmp_path, "before")
    told: list[Event] = []
    with JobManager(here.home, clock=here.clock, on_event=told.append) as manager:
        manager.advance()
        assert told == []
        with here.manager() as other:
            job_id = run_a_job(other, here, tmp_path, "during")
        manager.advance()
        assert told == list(manager.events(job_id))


def test_a_listener_that_raises_breaks_no_job_and_is_reported_once(
    here: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Event] = []

    def on_event(event: Event) -> None:
        told.append(event)
        raise ValueError("a bug in it")

    with JobManager(here.home, clock=here.clock, on_event=on_event) as manager:
        job_id = run_a_job(manager, here, tmp_path, "a")
        assert manager.status(job_id, offline=True).all_succeeded
    assert told == logged(here)
    assert [record.message for record in caplog.records if record.name == "langbatch"] == [
        "on_event raised; the jobs go on"
    ]


def test_a_listener_may_use_its_manager(here: World, tmp_path: Path) -> None:
    states: list[str] = []

    def on_event(event: Event) -> None:
        if isinstance(event, JobFinished):
            states.append(manager.status(event.job).state)

    with JobManager(here.home, clock=here.clock, on_event=on_event) as manager:
        run_a_job(manager, here, tmp_path, "a")
    assert states == ["completed"]


def test_a_consumer_with_a_name_is_told_each_event_once_over_restarts(here: World, tmp_path: Path) -> None:
    told: list[Event] = []

    def manager_named(name: str) -> JobManager:
        return JobManager(here.home, clock=here.clock, on_event=told.append, consumer=name)

    with manager_named("bills") as manager:
        job = manager.submit(requests_file(tmp_path / "in.jsonl", ["a"]), **here.azure)
    with here.manager() as manager:  # nobody listens
        manager.wait(job.id)
    with manager_named("bills") as manager:
        manager.advance()
        assert told == list(manager.events())
    with manager_named("others") as manager:  # knows nothing of before
        manager.advance()
    assert told == logged(here)


def test_a_consumer_with_a_name_is_told_again_what_it_raised_for(
    here: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Event] = []
    down = [True]

    def on_event(event: Event) -> None:
        if isinstance(event, JobFinished) and down[0]:
            raise OSError("its database is down")
        told.append(event)

    with JobManager(here.home, clock=here.clock, on_event=on_event, consumer="bills") as manager:
        run_a_job(manager, here, tmp_path, "a")
        assert told == logged(here)[:-1]
        down[0] = False
    assert told == logged(here)
    assert len([record for record in caplog.records if record.name == "langbatch"]) == 1


def test_two_managers_of_one_name_tell_each_event_once(here: World, tmp_path: Path) -> None:
    told: list[int] = []
    managers = [
        JobManager(here.home, clock=here.clock, on_event=lambda e: told.append(e.n), consumer="bills")
        for _ in range(3)
    ]
    for manager in managers:
        manager.advance()  # known from here on
    with here.manager() as other:
        for name in ("a", "b", "c", "d"):
            run_a_job(other, here, tmp_path, name)
    threads = [threading.Thread(target=manager.advance) for manager in managers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for manager in managers:
        manager.close()
    assert told == [event.n for event in logged(here)]


_KILLED_WHILE_TOLD = """
import os, signal, sys
from langbatch import JobManager

def on_event(event):
    if event.n == 2:
        os.kill(os.getpid(), signal.SIGKILL)

JobManager(sys.argv[1], on_event=on_event, consumer="bills").advance()
"""


def test_what_a_killed_process_was_telling_is_told_again_at_once(here: World, tmp_path: Path) -> None:
    told: list[int] = []
    listening = JobManager(here.home, clock=here.clock, on_event=lambda e: told.append(e.n), consumer="bills")
    listening.advance()
    with here.manager() as other:
        job = other.submit(requests_file(tmp_path / "in.jsonl", ["a"]), start=False, **here.azure)
        other.cancel(job.id)
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED_WHILE_TOLD, str(here.home)], env=dict(os.environ), check=False
    )
    assert killed.returncode == -signal.SIGKILL
    listening.advance()
    listening.close()
    # Event 1 was told by the one that died, event 2 by both.
    assert told == [event.n for event in logged(here)][1:]


def test_a_name_without_a_listener_is_refused(here: World) -> None:
    with pytest.raises(TypeError, match="consumer"):
        JobManager(here.home, consumer="bills")


def test_without_anybody_to_tell_nothing_is_asked_or_stored(
    here: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import sqlalchemy as sa

    statements: list[str] = []
    with here.manager() as manager:
        sa.event.listen(
            manager._store._connections.engine,
            "before_cursor_execute",
            lambda *given: statements.append(given[2]),
        )
        with caplog.at_level(logging.DEBUG):
            run_a_job(manager, here, tmp_path, "a")
    assert statements
    assert not any("consumers" in text or "deliveries" in text for text in statements)
