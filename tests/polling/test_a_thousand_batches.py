"""A thousand running batches in forty jobs: few calls a cycle, and nobody is seen later than others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from langbatch import JobManager, JobStatus
from langbatch.running.observing import LEAST_SINGLE_LOOKS
from polling.ground import Ground, ground
from support import VirtualClock

JOBS, SHARDS = 40, 25
MOST_CALLS = 25
FEW_LOOKS = {"poll": LEAST_SINGLE_LOOKS}


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ground, list[str]]]:
    with ground(tmp_path_factory.mktemp("thousand")) as made:
        jobs = [made.live_job(SHARDS) for _ in range(JOBS)]
        assert made.here.counts()["batches"] == JOBS * SHARDS
        yield made, jobs


class Enough(Exception):
    """So many cycles are enough."""


class CountedClock(VirtualClock):
    """Sleeps so many times."""

    def __init__(self, inner: VirtualClock, sleeps: int) -> None:
        super().__init__()
        self.emulated, self.sleeps = inner.emulated, sleeps

    def sleep(self, seconds: float) -> None:
        if self.sleeps == 0:
            raise Enough
        self.sleeps -= 1
        super().sleep(seconds)


def test_each_cycle_takes_a_call_for_a_hundred_batches(thousand: tuple[Ground, list[str]]) -> None:
    ground, _ = thousand
    for seconds, unchanged in ((600.0, {}), (61.0, FEW_LOOKS), (61.0, FEW_LOOKS)):
        calls = ground.cycle(seconds)
        # Where the list brings no news, a few are looked at themselves, lest it be an old one.
        assert calls == {"list": 10, **unchanged}
        assert sum(calls.values()) <= MOST_CALLS
        # All of them were looked at in this one cycle, and all are due again within a minute.
        now = ground.here.clock.now()
        assert {polled for (polled,) in ground.rows("a.polled_at")} == {now}
        assert {status for (status,) in ground.rows("a.batch_status")} == {"in_progress"}
        assert all(now + 53 <= due <= now + 60 for (due,) in ground.rows("s.due_at"))


def test_waiting_for_all_of_the_jobs_takes_the_same_few_calls(
    thousand: tuple[Ground, list[str]],
) -> None:
    ground, jobs = thousand
    told: list[str] = []

    def on_status(status: JobStatus) -> None:
        told.append(status.id)

    clock, cycles = CountedClock(ground.here.clock, 3), 4
    ground.new_calls()
    began = clock.now()
    with JobManager(ground.here.home, clock=clock) as manager:
        for job_id in jobs:
            manager.use_credentials(job_id, ground.credentials)
        with pytest.raises(Enough):
            manager.wait_all(jobs, on_status=on_status)
    assert told == jobs * cycles
    calls = ground.new_calls()
    assert calls["list"] == 10 * cycles
    assert sum(calls.values()) <= (10 + LEAST_SINGLE_LOOKS) * cycles
    assert clock.now() - began >= 3 * 53


def test_the_list_of_jobs_is_refreshed_by_the_same_few_calls(thousand: tuple[Ground, list[str]]) -> None:
    ground, _ = thousand
    ground.new_calls()
    assert len(ground.manager.jobs(offline=False)) == JOBS
    assert ground.new_calls() == {"list": 10, **FEW_LOOKS}


def test_an_end_in_the_last_job_is_seen_in_the_same_cycle_as_one_in_the_first(
    thousand: tuple[Ground, list[str]],
) -> None:
    ground, jobs = thousand
    ids = [batch_id for (batch_id,) in ground.rows("a.batch_id")]
    for batch_id in (ids[0], ids[-1]):
        ground.caller.call("POST", f"/batches/{batch_id}/cancel")
    calls = ground.cycle()
    assert calls["list"] == 10
    assert sum(calls.values()) <= MOST_CALLS
    states = [state for (state,) in ground.rows("s.state")]
    assert (states[0], states[-1]) == ("done", "done")
    assert states.count("active") == JOBS * SHARDS - 2
    for job_id in (jobs[0], jobs[-1]):
        assert ground.manager.status(job_id, offline=True).counts.pending == SHARDS - 1


def test_jobs_that_fall_out_of_step_fall_into_it_again(thousand: tuple[Ground, list[str]]) -> None:
    """A look at one job alone pushes its next look away from the others'."""
    ground, jobs = thousand
    ground.cycle()
    ground.here.clock.sleep(25.0)
    ground.manager.status(jobs[7])
    assert ground.cycle(36.0)["list"] == 10
    now = ground.here.clock.now()
    running = ground.rows("a.polled_at, s.state")
    assert {polled for polled, state in running if state == "active"} == {now}
