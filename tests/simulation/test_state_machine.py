"""Hypothesis writes the story: submit, crash, poll, list, cancel, retry, freeze, migrate, and what goes wrong.

After each step what has been promised must hold; when the story is over, every job must end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import ClassVar

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
from simulation.world import Arena, World, arena

WORKERS = 2
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
LOST_CREATES = ("create_drop", "create_committed_drop", "create_late")
ARMED_KNOBS = tuple(
    knob for moment, knobs in KNOBS.items() if moment not in ("point", "pause") for knob in knobs
)


class Story(RuleBasedStateMachine):
    """`place` is set by the test, since a database is costly to make anew for each story; `seen`: what came
    of all stories."""

    client = SimulatedProvider
    place: Arena
    seen: ClassVar[set[str]] = set()

    def __init__(self) -> None:
        super().__init__()
        self.scene = ExitStack()
        self.people = 0

    @initialize(
        requests=st.integers(1, 4),
        per_shard=st.integers(1, 3),
        places=st.integers(1, 2),
        # Most stories have few creates, and would be over before a rule could meet one.
        lost=st.sampled_from((None, *LOST_CREATES)),
    )
    def somebody_submits(self, requests: int, per_shard: int, places: int, lost: str | None) -> None:
        self.world = World.quiet("story", self.place, WORKERS, self.client, places)
        self.scene.enter_context(self.world.open())
        if lost is not None:
            self.world.plan.arm(lost)
        self.submit(requests, per_shard)
        for number in range(WORKERS):
            self.world.start_worker(number)

    # ------------------------------------------------------------ what people do

    @rule(requests=st.integers(1, 4), per_shard=st.integers(1, 3))
    def submit(self, requests: int, per_shard: int) -> None:
        """The same number of requests are the same bytes: that job is found again."""
        self.world.submit(requests, per_shard, self.name("submitter"))

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
        before = JobStore(self.world.connections, clock=self.world.clock).store_id
        self.place.reopen()
        assert JobStore(self.world.connections, clock=self.world.clock).store_id == before

    # ------------------------------------------------------------ what happens elsewhere

    @rule(knob=st.sampled_from(ARMED_KNOBS), times=st.integers(1, 5))
    def fault(self, knob: str, times: int) -> None:
        self.world.plan.arm(knob, times=times)

    @rule(knob=st.sampled_from(KNOBS["list_batches"]), times=st.integers(1, 30))
    def list_goes_wrong(self, knob: str, times: int) -> None:
        self.world.plan.arm(knob, times=times)

    @rule(knob=st.sampled_from(LOST_CREATES))
    def reply_to_a_create_is_lost(self, knob: str) -> None:
        self.world.plan.arm(knob)

    @rule(seconds=st.sampled_from((1.0, 60.0, 700.0, 6_000.0)))
    def poll(self, seconds: float) -> None:
        """Time passes, in which the workers look at everything that is due."""
        self.world.stage.run(self.world.clock.now() + seconds)

    # ------------------------------------------------------------ what must hold

    @invariant()
    def promises_hold(self) -> None:
        assert judge(self.world, ended=False).wrong == []

    def teardown(self) -> None:
        """Faults stop; a truthful operator looks in; every job must end, and all the promises hold."""
        with self.scene:
            if hasattr(self, "world"):
                self.come_to_an_end()

    def come_to_an_end(self) -> None:
        self.world.plan.disarm()
        for number in range(WORKERS):
            self.world.worker(number).fates.clear()
        self.until_all_ended()
        self.errand(retry_all)
        self.until_all_ended()
        # Whoever is still frozen wakes up to a world that has moved on.
        self.world.stage.run(self.world.clock.now() + 40_000.0)
        verdict = judge(self.world)
        assert verdict.wrong == []
        self.seen.update(move for _, _, _, move in verdict.moves)
        self.seen.update(knob for knob, count in self.world.plan.fired.items() if count)
        self.seen.update(["crash"] if self.world.log.crashes else [])
        self.seen.update(["freeze"] if self.world.log.freezes else [])

    def until_all_ended(self) -> None:
        end = self.world.clock.now() + 4 * 86_400.0
        while not self.all_ended():
            assert self.world.clock.now() < end, f"a job does not end\n{self.world.log.tail()}"
            self.world.stage.run(self.world.clock.now() + 3_600.0)
            self.errand(settle_all)

    # ------------------------------------------------------------ means

    def errand(self, act: Callable[[Process, JobStore], object]) -> None:
        Errand(self.world, self.name("errand"), act).start(0.0)
        self.world.stage.run(self.world.clock.now() + 10.0)

    def name(self, what: str) -> str:
        self.people += 1
        return f"{what}{self.people}"

    def all_ended(self) -> bool:
        store = JobStore(self.world.connections, clock=self.world.clock)
        submitted = all(person.finished() for person in self.world.submitters)
        return submitted and all(job.state in SETTLED_JOB_STATES for job in store.jobs())


#: Shrinking takes minutes, and a failing story's steps are told without it as well.
SETTINGS = settings(
    max_examples=40,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def place() -> Iterator[Arena]:
    with arena() as made:
        yield made


def test_promises_hold_whatever_is_done_and_whatever_goes_wrong(place: Arena) -> None:
    class OurStory(Story):
        seen: ClassVar[set[str]] = set()

    OurStory.place = place
    run_state_machine_as_test(OurStory, settings=SETTINGS)
    # Stories in which nothing happens would prove nothing.
    assert OurStory.seen >= {
        *("crash", "freeze", "create_late"),
        *("fence_begins", "batch_found", "harvested", "cancelled_unsent", "retry_requested"),
    }
    assert OurStory.seen & set(KNOBS["list_batches"])


def test_the_stories_catch_a_client_that_creates_again_after_a_lost_reply(place: Arena) -> None:
    class NaiveStory(Story):
        client = NaiveProvider

    NaiveStory.place = place
    with pytest.raises((AssertionError, ExceptionGroup), match=r"paid twice|ran for the same shard"):
        run_state_machine_as_test(NaiveStory, settings=SETTINGS)
