"""Hypothesis writes the story: submit, crash, poll, list faults, cancel, retry, freeze, migrate, time passing.

After each step what has been promised must hold; at the end every job must end.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from langbatch.lifecycle import SETTLED_JOB_STATES
from langbatch.store.store import JobStore
from simulation.faults import KNOBS
from simulation.judge import judge
from simulation.people import Errand, cancel_all, retry_all, settle_all
from simulation.processes import Process
from simulation.provider import NaiveProvider, SimulatedProvider
from simulation.world import World, arena

WORKERS = 3
POINTS = (
    "commit.before",
    "commit.after",
    "fsync.before",
    "rename.after",
    "call.upload.before",
    "call.upload.after",
    "call.create_batch.before",
    "call.create_batch.after",
    "call.list_batches.after",
    "call.delete_file.after",
    "call.get_batch.after",
    "call.download.after",
)
#: At these nobody else waits for the one that stands still.
PAUSES = tuple(point for point in POINTS if point != "commit.before")
ARMED_KNOBS = tuple(
    knob for moment, knobs in KNOBS.items() if moment not in ("point", "pause") for knob in knobs
)


class Story(RuleBasedStateMachine):
    client = SimulatedProvider

    def __init__(self) -> None:
        super().__init__()
        self.scene = ExitStack()
        self.place = self.scene.enter_context(arena())
        self.world = World.quiet("story", self.place, WORKERS, self.client)
        self.scene.enter_context(self.world.open())
        self.people = 0

    @initialize(requests=st.integers(1, 4), per_shard=st.integers(1, 3))
    def somebody_submits(self, requests: int, per_shard: int) -> None:
        self.submit(requests, per_shard)
        for number in range(WORKERS):
            self.world.start_worker(number)

    # ------------------------------------------------------------ what people do

    @rule(requests=st.integers(1, 4), per_shard=st.integers(1, 3))
    def somebody_submits_again(self, requests: int, per_shard: int) -> None:
        self.submit(requests, per_shard)

    @rule()
    def cancel(self) -> None:
        self.errand(cancel_all)

    @rule()
    def retry(self) -> None:
        self.errand(retry_all)

    @rule()
    def settle(self) -> None:
        self.errand(settle_all)

    # ------------------------------------------------------------ what happens to processes

    @rule(number=st.integers(0, WORKERS - 1), point=st.sampled_from(POINTS), seen=st.booleans())
    def crash(self, number: int, point: str, seen: bool) -> None:
        self.world.worker(number).fates[point] = seen

    @rule(number=st.integers(0, WORKERS - 1), point=st.sampled_from(PAUSES), seconds=st.floats(31, 20_000))
    def freeze(self, number: int, point: str, seconds: float) -> None:
        self.world.worker(number).fates[point] = seconds

    @rule()
    def migrate(self) -> None:
        """All that is opened anew after an upgrade: connections, the schema's check, the store's id."""
        before = JobStore(self.world.engine, clock=self.world.clock).store_id
        self.place.reopen()
        assert JobStore(self.world.engine, clock=self.world.clock).store_id == before

    # ------------------------------------------------------------ what happens elsewhere

    @rule(knob=st.sampled_from(ARMED_KNOBS), times=st.integers(1, 5))
    def fault(self, knob: str, times: int) -> None:
        self.world.plan.arm(knob, times=times)

    @rule(knob=st.sampled_from(KNOBS["list_batches"]), times=st.integers(1, 30))
    def list_fault(self, knob: str, times: int) -> None:
        self.world.plan.arm(knob, times=times)

    @rule(knob=st.sampled_from(("create_drop", "create_committed_drop", "create_late")))
    def lost_reply(self, knob: str) -> None:
        self.world.plan.arm(knob)

    @rule(seconds=st.sampled_from((1.0, 60.0, 700.0)))
    def time_passes(self, seconds: float) -> None:
        self.world.stage.run(self.world.clock.now() + seconds)

    @rule()
    def much_time_passes(self) -> None:
        self.world.stage.run(self.world.clock.now() + 6_000.0)

    # ------------------------------------------------------------ what must hold

    @invariant()
    def promises_hold(self) -> None:
        assert judge(self.world, ended=False).wrong == []

    def teardown(self) -> None:
        """Faults stop; a truthful operator looks in; every job must end, and all the promises hold."""
        with self.scene:
            self.world.plan.disarm()
            for number in range(WORKERS):
                self.world.worker(number).fates.clear()
            end = self.world.clock.now() + 4 * 86_400.0
            while not self.all_ended():
                assert self.world.clock.now() < end, f"a job does not end\n{self.world.log.tail()}"
                self.world.stage.run(self.world.clock.now() + 3_600.0)
                self.errand(settle_all)
            # Whoever is still frozen wakes up to a world that has moved on.
            self.world.stage.run(self.world.clock.now() + 40_000.0)
            assert judge(self.world).wrong == []

    # ------------------------------------------------------------ means

    def submit(self, requests: int, per_shard: int) -> None:
        self.world.submit(requests, per_shard, self.name("submitter"))

    def errand(self, act: Callable[[Process, JobStore], object]) -> None:
        Errand(self.world, self.name("errand"), act).start(0.0)
        self.world.stage.run(self.world.clock.now() + 10.0)

    def name(self, what: str) -> str:
        self.people += 1
        return f"{what}{self.people}"

    def all_ended(self) -> bool:
        store = JobStore(self.world.engine, clock=self.world.clock)
        submitted = all(person.finished() for person in self.world.submitters)
        return submitted and all(job.state in SETTLED_JOB_STATES for job in store.jobs())


SETTINGS = settings(
    max_examples=50,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def test_promises_hold_whatever_is_done_and_whatever_goes_wrong() -> None:
    run_state_machine_as_test(Story, settings=SETTINGS)


def test_the_stories_catch_a_client_that_creates_again_after_a_lost_reply() -> None:
    class NaiveStory(Story):
        client = NaiveProvider

    with pytest.raises((AssertionError, ExceptionGroup)):
        run_state_machine_as_test(NaiveStory, settings=settings(SETTINGS, phases=[Phase.generate]))
