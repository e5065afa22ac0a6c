"""One seed: a store on a real SQLite database, a simulated service, processes and people, from start to end."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from langbatch import failpoints
from langbatch.lifecycle import SETTLED_JOB_STATES
from langbatch.publish import private_folder
from langbatch.records import Target
from langbatch.running import journal
from langbatch.running.decisions import Policy
from langbatch.store.connections import Connections
from langbatch.store.database import connect, prepare, sqlite_url
from langbatch.store.schema import jobs, metadata, store_facts
from simulation.batches import StoredBatch, StoredFile
from simulation.chronicle import Chronicle
from simulation.faults import FaultPlan
from simulation.people import Errand, Keeper, Submitter, cancel_all
from simulation.processes import Process, Worker
from simulation.provider import SimulatedProvider
from simulation.service import SimulatedService
from simulation.stage import START, Actor, Dismissed, Stage, VirtualClock
from simulation.turns import TWO_ROUNDS, rate_of, turn_of

_UNSETTLED = (
    sa.select(jobs.c.key).where(*(jobs.c.state != state for state in sorted(SETTLED_JOB_STATES))).limit(1)
)
_RAM = Path("/dev/shm")
#: After the last fault everything must have ended within this: an unknown status is watched for two days, a
#: retry's too, and whoever looks in comes once a day by then, for each of four shards that wait for room.
LIVENESS_SECONDS = 30 * 86_400.0


class NeverEnds(AssertionError):
    """Faults stopped long ago, and a job has not ended."""


class Arena:
    """A folder in memory with one migrated database, wiped between seeds: what is costly to make anew."""

    def __init__(self, folder: Path) -> None:
        self.home = private_folder(folder / "home")
        self.inputs = private_folder(folder / "inputs")
        self.connections = self._open()
        self.wipe()

    def _open(self) -> Connections:
        connections = Connections(connect(sqlite_url(self.home / "langbatch.db")))
        prepare(connections)
        return connections

    def reopen(self) -> None:
        """Open the database anew, as a program does that has just been upgraded."""
        self.close()
        self.connections = self._open()

    def wipe(self) -> None:
        with self.connections.writing() as connection:
            for table in metadata.sorted_tables:
                connection.execute(table.delete())
            connection.execute(store_facts.insert().values(name="store_id", value="51m0"))
        shutil.rmtree(self.home / "jobs", ignore_errors=True)
        private_folder(self.home / "jobs")
        shutil.rmtree(self.home / journal.NAME, ignore_errors=True)

    def close(self) -> None:
        self.connections.close()


@contextmanager
def arena() -> Iterator[Arena]:
    """Fsync on a disk would take most of the time, and prove nothing here: nothing loses power."""
    with tempfile.TemporaryDirectory(dir=_RAM if _RAM.is_dir() else None, prefix="langbatch-sim-") as folder:
        made = Arena(Path(folder))
        try:
            yield made
        finally:
            made.close()


@dataclass(slots=True)
class Cast:
    """How many of whom, and how big: drawn from the seed, or set by a test."""

    workers: int
    submitters: int
    shards: int
    per_shard: int
    cancels: int
    retries: int
    second_job: bool
    cadence_seconds: float
    policy: Policy
    targets: int
    #: How often every request stands in the input; one of them is sent.
    repeats: int = 1

    @classmethod
    def of_seed(cls, rng: random.Random) -> Cast:
        grace = rng.choice((600.0, 600.0, 1_800.0))
        return cls(
            workers=rng.choice((2, 2, 2, 2, 3)),
            submitters=rng.choice((1, 1, 2)),
            shards=rng.choice((1, 1, 1, 1, 1, 1, 1, 2, 2, 4)),
            per_shard=rng.choice((1, 2, 3)),
            cancels=rng.choice((0, 0, 0, 1)),
            retries=rng.choice((0, 0, 1, 1, 2)),
            second_job=rng.random() < 0.1,
            cadence_seconds=rng.choice((120.0, 600.0, 900.0, 1_800.0, 3_600.0)),
            policy=Policy(rng.choice((300.0, 900.0, 3_600.0)), grace, rng.choice((600.0, 3_600.0))),
            targets=rng.choice((1, 1, 1, 2)),
        )

    def make_calm(self) -> None:
        """Nobody interferes, and somebody looks in often enough to meet what lasts a short while."""
        self.shards = 1
        self.per_shard = max(2, self.per_shard)
        self.cancels = 0
        self.cadence_seconds = min(self.cadence_seconds, 300.0)
        self.second_job = False


@dataclass(slots=True)
class World:
    """Everything of one seed. `client`: what the processes call the service with."""

    seed: str
    arena: Arena
    rng: random.Random
    clock: VirtualClock
    stage: Stage
    plan: FaultPlan
    log: Chronicle
    cast: Cast
    client: type[SimulatedProvider] = SimulatedProvider
    services: list[SimulatedService] = field(default_factory=list)
    processes: dict[Actor, Process] = field(default_factory=dict)
    submitters: list[Submitter] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    ids_given: int = 0
    retries_left: bool = True
    played_seconds: float = 0.0
    #: Commits so far; and after how many of them everything was found settled, or not.
    commits: int = 0
    _looked_after: int = -1
    _found_settled: bool = False

    @classmethod
    def of_seed(cls, seed: str, arena: Arena, client: type[SimulatedProvider] = SimulatedProvider) -> World:
        rng = random.Random(seed)
        clock = VirtualClock()
        cast = Cast.of_seed(rng)
        turn, calm = turn_of(int(seed) if seed.isdecimal() else rng.randrange(TWO_ROUNDS))
        plan = FaultPlan(clock, rng)
        plan.stops_at = clock.now() + rng.choice((3_600.0, 6 * 3_600.0, 20 * 3_600.0))
        for knob, times in turn.knobs:
            plan.arm(knob, rate_of(knob), times)
        if calm:
            cast.make_calm()
            plan.stops_at = clock.now() + 40 * 3_600.0
        else:
            plan.draw_knobs(rng)
            plan.draw_deaths(rng)
        cast.cancels = max(cast.cancels, turn.cancels)
        cast.retries = max(cast.retries, turn.retries)
        cast.targets = max(cast.targets, turn.targets)
        cast.repeats = random.Random(f"{seed}/repeats").choice((1, 1, 2, 3))
        world = cls(seed, arena, rng, clock, Stage(clock, rng), plan, Chronicle(clock, plan), cast, client)
        for _ in range(cast.targets):
            world.open_service()
        return world

    def open_service(self) -> SimulatedService:
        return SimulatedService(
            self.clock, self.rng, self.plan.draw, self.cast.policy.grace_seconds, self.services
        )

    @classmethod
    def quiet(
        cls,
        seed: str,
        arena: Arena,
        workers: int = 2,
        client: type[SimulatedProvider] = SimulatedProvider,
        targets: int = 1,
    ) -> World:
        """A world that goes on until its test ends it, and in which only armed faults happen."""
        rng = random.Random(seed)
        clock = VirtualClock()
        policy = Policy(300.0, 600.0, 3_600.0)
        cast = Cast(workers, 0, 0, 0, 0, 0, False, 60.0, policy, targets)
        plan = FaultPlan(clock, rng)
        world = cls(seed, arena, rng, clock, Stage(clock, rng), plan, Chronicle(clock, plan), cast, client)
        for _ in range(targets):
            world.open_service().room = None
        world.workers = [Worker(world, f"worker{n}", cadence_seconds=60.0) for n in range(workers)]
        return world

    def worker(self, number: int) -> Worker:
        return self.workers[number]

    def start_worker(self, number: int) -> Worker:
        self.workers[number].start(0.0)
        return self.workers[number]

    def submit(self, requests: int, per_shard: int, name: str = "submitter") -> Submitter:
        """Somebody submits a file of so many requests, now; the same number is the same file."""
        person = Submitter(self, name, self.write_input(requests), per_shard)
        self.submitters.append(person)
        person.start(0.0)
        self.stage.run(self.clock.now())
        return person

    @property
    def connections(self) -> Connections:
        return self.arena.connections

    @property
    def home(self) -> Path:
        return self.arena.home

    def policy_for(self, target: Target) -> Policy:
        return self.cast.policy

    # ------------------------------------------------------------ what is true at the services

    @property
    def service(self) -> SimulatedService:
        """Where jobs go that have one target."""
        return self.services[0]

    @property
    def files(self) -> list[StoredFile]:
        return [file for service in self.services for file in service.files.values()]

    @property
    def batches(self) -> list[StoredBatch]:
        return [batch for service in self.services for batch in service.batches.values()]

    def catch_up(self) -> None:
        for service in self.services:
            service.catch_up()

    # ------------------------------------------------------------ the play

    @contextmanager
    def open(self) -> Iterator[None]:
        """An empty store, and an end to everybody who is still on stage when the block ends."""
        self.arena.wipe()
        with failpoints.listening(self.reached):
            try:
                yield
            finally:
                self.stage.dismiss()
        self.catch_up()

    def play(self) -> None:
        """From the first submission to the last result. Raises what goes wrong on the way."""
        with self.open():
            self.enter()
            self.stage.run()
        self.played_seconds = self.clock.now() - START
        # A create may still be under way that nobody waits for: whatever it brings is paid for as well.
        under_way = [call.at for service in self.services for call in service.late]
        self.clock.move_to(max([self.clock.now(), *under_way]))
        self.catch_up()
        self.clock.move_to(self.clock.now() + 86_400.0)
        self.catch_up()

    def enter(self) -> None:
        cast, rng = self.cast, self.rng
        source = self.write_input(cast.shards * cast.per_shard)
        for number in range(cast.submitters):
            person = Submitter(self, f"submitter{number}", source, cast.per_shard)
            self.submitters.append(person)
            person.start(rng.choice((0.0, 0.0, 5.0)))
        if cast.second_job:
            other = Submitter(
                self, "stranger", self.write_input(cast.shards * cast.per_shard + 1), cast.per_shard
            )
            self.submitters.append(other)
            other.start(rng.uniform(0.0, 2_000.0))
        for number in range(cast.workers):
            Worker(self, f"worker{number}", cadence_seconds=cast.cadence_seconds).start(
                rng.choice((0.0, 1.0, 60.0))
            )
        for number in range(cast.cancels):
            Errand(self, f"canceller{number}", cancel_all).start(rng.uniform(0.0, 5_400.0))
        Keeper(self, "keeper", cast.retries).start(30.0)

    def write_input(self, requests: int) -> Path:
        path = self.arena.inputs / f"in-{requests}.jsonl"
        lines = []
        for number in range(requests * self.cast.repeats):
            text = f"{self.seed} {number % requests}"
            body = {"model": "dep", "messages": [{"role": "user", "content": text}]}
            line = {"custom_id": f"r{number}", "method": "POST", "url": "/chat/completions", "body": body}
            lines.append(json.dumps(line) + "\n")
        path.write_text("".join(lines))
        return path

    def settled(self) -> bool:
        """Whether nobody has anything left to do. Also where a run that gets nowhere is noticed."""
        if self.clock.now() > self.plan.stops_at + LIVENESS_SECONDS:
            raise NeverEnds("faults stopped long ago, and a job has not ended")
        if self.retries_left or not all(person.finished() for person in self.submitters):
            return False
        if self._looked_after != self.commits:
            with self.connections.reading() as connection:
                self._found_settled = connection.execute(_UNSETTLED).first() is None
            self._looked_after = self.commits
        return self._found_settled

    def reached(self, point: str) -> None:
        if point == "commit.after":
            self.commits += 1
        actor = self.stage.current
        process = self.processes.get(actor) if actor is not None else None
        if process is not None and not self.stage.dismissing:
            process.reached(point)
        elif self.stage.dismissing:
            raise Dismissed
