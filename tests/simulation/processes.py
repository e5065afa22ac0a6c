"""Processes that advance jobs, and what may befall them at any named point: death, a freeze, a full disk."""

from __future__ import annotations

import errno
import random
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy.exc import OperationalError

from langbatch.errors import BatchStorageError, SetupError
from langbatch.processes import identity
from langbatch.providers.base import Provider
from langbatch.records import Job
from langbatch.running import journal
from langbatch.running.runner import Runner
from langbatch.store.connections import Connections
from langbatch.store.schema import shards
from langbatch.store.store import JobStore
from langbatch.store.transitions import Claim, Writing
from simulation.stage import START

if TYPE_CHECKING:
    from simulation.world import World

#: Chance that a process lets others go first at a point, so that their steps interleave.
_YIELDS = 0.15
_HERE = identity().split("|")[0]
_ALIVE = identity().rpartition("|")[0]


class Killed(BaseException):
    """SIGKILL: nothing that the process would still do has any effect."""


class ObservedStore(JobStore):
    """The store of one process, telling the world which shards it holds."""

    def __init__(self, process: Process, connections: Connections, owner: str) -> None:
        self._process = process
        super().__init__(connections, clock=process.world.clock, owner=owner)

    @contextmanager
    def _writing(self) -> Iterator[Writing]:
        # SQLite has one writer at a time: while one is at it, nobody else can be let go first.
        self._process.writes = True
        try:
            with super()._writing() as tx:
                yield tx
        finally:
            self._process.writes = False

    def claim(self, job: int, index: int) -> Claim | None:
        claim = super().claim(job, index)
        if claim is not None:
            self._process.holds = (job, index)
            self._process.world.log.claimed((job, index), isinstance(self._process, Worker))
        return claim

    def release(self, claim: Claim) -> None:
        super().release(claim)
        self._process.holds = None


#: To die, seen by others on this machine or not; or seconds to freeze.
Fate = bool | float


class Process:
    """Something that runs for a while, dies or ends, and is started again until its work is done."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.rng = random.Random(f"{world.seed}/{name}")
        self.dead = False
        self.lives = 0
        self.holds: tuple[int, int] | None = None
        #: One-shot fates by point: to die there (whether seen), or to freeze for so many seconds.
        self.fates: dict[str, Fate] = {}
        #: How often such a point is passed before.
        self.spared: Counter[str] = Counter()
        #: Where every life of it ends.
        self.always_dies_at: str | None = None
        self.owner = ""
        self.writes = False
        self._death_seen = False

    # ------------------------------------------------------------ living

    def start(self, after_seconds: float) -> None:
        self.world.processes[self.world.stage.add(self.name, self._lives, after_seconds)] = self

    def _lives(self) -> None:
        while not self.finished():
            self.lives += 1
            self.dead = self.writes = False
            self.holds = None
            self.owner = f"{_ALIVE}|{self.name}.{self.lives}"
            store = ObservedStore(self, self.world.connections, self.owner)
            try:
                self.live(store)
            except Killed:
                self.world.log.died(self.holds)
                if self._death_seen:
                    self._seen_to_be_gone()
            except BatchStorageError as error:
                # The database would not take a write: the process ends with that message.
                self.note(f"ends: {error.code}")
                self._seen_to_be_gone()
            if not self.finished():
                self.world.stage.rest(self.rng.choice((1.0, 20.0, 90.0, 1_500.0)))

    def finished(self) -> bool:
        raise NotImplementedError

    def live(self, store: JobStore) -> None:
        raise NotImplementedError

    def provider(self, place: int) -> Provider:
        """A client of the target at this place among a job's."""
        world = self.world
        service = world.services[place]
        return world.client(service, world.plan, world.clock, self.rng, world.stage.rest, self._called)

    def note(self, what: str) -> None:
        self.world.log.note(self.name, what)

    def _called(self, text: str) -> None:
        self.world.log.call(self.name, text, self.holds)

    def _seen_to_be_gone(self) -> None:
        """Others on this machine see that the leases' holder is no more, without waiting for their end."""
        gone = f"{_HERE}|1|long ago|{self.name}.{self.lives}"
        with self.world.connections.writing() as connection:
            connection.execute(
                shards.update().where(shards.c.lease_owner == self.owner).values(lease_owner=gone)
            )

    # ------------------------------------------------------------ dying

    def reached(self, point: str) -> None:
        """A named point of the program: anything may happen here, and others may go first."""
        if self.dead:
            raise Killed
        plan, log = self.world.plan, self.world.log
        log.passed(self.name, point)
        if point == "commit.after":
            self.writes = False
        if self.spared[point] > 0:
            self.spared[point] -= 1
            return
        fate = True if point == self.always_dies_at else self.fates.get(point)
        if isinstance(fate, bool):
            self.fates.pop(point, None)
            self.die(point, seen=fate)
        elif fate is not None and not self.writes:
            del self.fates[point]
            self.freeze(fate, point)
        knob = plan.draw("point")
        if knob is not None:
            self.die(point, seen=knob == "crash_here")
        if not self.writes and plan.draw("pause"):
            self.freeze(self.rng.choice((35.0, 200.0, 4_000.0, 30_000.0)), point)
        if point == "commit.before" and plan.draw("commit"):
            self.note("commit_fails")
            raise OperationalError("COMMIT", None, sqlite3.OperationalError("database is locked"))
        if point == "fsync.before" and plan.draw("fsync"):
            self.note("disk_full")
            raise OSError(errno.ENOSPC, "No space left on device")
        if not self.writes and self.rng.random() < _YIELDS:
            self.world.stage.rest(0.0)

    def die(self, point: str, *, seen: bool) -> None:
        """`seen`: on this machine. Elsewhere nobody can tell, and its leases must run out."""
        self.note(f"dies at {point}")
        self.dead = True
        self._death_seen = seen
        raise Killed

    def freeze(self, seconds: float, point: str) -> None:
        self.world.log.froze(self.name, point, self.holds)
        self.world.stage.rest(seconds)


class Worker(Process):
    """`langbatch resume --wait`, or `resume` from cron every `cadence_seconds`."""

    def __init__(self, world: World, name: str, *, cadence_seconds: float) -> None:
        super().__init__(world, name)
        self._cadence = cadence_seconds

    def finished(self) -> bool:
        return self.world.settled()

    def live(self, store: JobStore) -> None:
        world = self.world
        # As JobManager does when it opens a store.
        journal.replay(store, world.home)
        runner = Runner(
            store, world.home, self._open, world.policy_for, world.clock, self.rng.random, renews=False
        )
        while not self.finished():
            due = runner.advance()
            # What takes days is looked at less often: it costs our time, and proves nothing more.
            elapsed = world.clock.now() - START
            world.stage.rest(min(max(due or 60.0, self._cadence, elapsed / 4), 24 * 3_600.0))

    def _open(self, job: Job, place: int) -> Provider:
        if self.world.plan.draw("open"):
            self.note("setup_missing")
            raise SetupError("simulated: no credentials here")
        return self.provider(place)
