"""Many shards, several processes on one store, a faulty service, and death and frost at random."""

from __future__ import annotations

import math
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from killing.audit import Audit, audit, check_manners
from killing.ground import GRACE_SECONDS, Ground, ground
from killing.lives import Act, Life, Order
from killing.orders import Orders
from killing.processes import Child, Nursery, Progress

#: What the service does wrong, in percent of the occasions. Every batch can run: with rows that fail, a
#: lost row could pass for one of them.
FAULTS = (
    "upload-drop%2",
    "upload-committed-drop%3",
    "upload-committed-truncated-json%1.5",
    "upload-429-ms=100%2",
    "upload-503-html%1.5",
    "list-files-500%15",
    "list-files-lag=0.2%10",
    "get-file-500%2",
    "file-error%1.5",
    "create-drop%2",
    "create-500%2",
    "create-408%1.5",
    "create-429-short=1%1.5",
    "create-late=0.3%2",
    "create-delay=0.3%3",
    "create-committed-drop%4",
    "create-committed-500%3",
    "create-committed-null-id%1.5",
    "create-committed-other-file%1.5",
    "create-token-limit%2",
    "list-500%5",
    "list-truncated-json%2",
    "list-lag=0.2%30",
    "delete-file-500%20",
    "delete-file-committed-drop%20",
    "poll-503-html%2",
    "poll-reset%1.5",
    "poll-429%1.5",
    "poll-404%1.5",
    "batch-token-limit%2",
    "download-truncated%4",
    "download-short%2",
    "download-500%2",
)
#: Once nothing disturbs them any more the jobs must end within so many bytes of notes a shard; an
#: undisturbed one takes about 4,000.
NOTES_OF_SHARD = 200_000
#: Blows are spread over the work and not over time, which says little on a busy machine; this share of them
#: may come before any work is done.
HEAD_START = 0.15
#: The service recovers when this share of the shards is done, and nobody is to be disturbed any more.
CALM_FROM = 0.9
#: Jobs are added until every blow was dealt; so many more than planned mean that something holds them off.
MORE_JOBS = 200


@dataclass(frozen=True, slots=True)
class Plan:
    """One storm. `kills`, `stops` and `fired` (faults of the service) are how many there are to be, at
    least: jobs are added until there were."""

    seed: int
    shards_of_jobs: tuple[int, ...]
    kills: int
    stops: int
    fired: int = 0
    workers: int = 3
    requests_per_shard: int = 2
    faults: tuple[str, ...] = FAULTS
    lease_seconds: float = 1.0
    #: Mean seconds between the driver's own blows; what processes do to themselves comes on top.
    rest_seconds: float = 1.5
    #: A frozen process sleeps for so many leases, that others have taken over when it wakes.
    pause_leases: tuple[float, float] = (1.2, 4.0)
    grace_seconds: float = GRACE_SECONDS


@dataclass(slots=True)
class Outcome:
    """What storms came to. Outcomes add up."""

    audit: Audit = field(default_factory=Audit)
    kills: Counter[str] = field(default_factory=Counter)
    stops: int = 0
    hits: Counter[str] = field(default_factory=Counter)
    codes: Counter[int] = field(default_factory=Counter)
    #: Of every shard whose lease a killed process held: seconds until somebody recorded its next step.
    recoveries: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def __iadd__(self, other: Outcome) -> Outcome:
        self.audit += other.audit
        self.kills += other.kills
        self.stops += other.stops
        self.hits += other.hits
        self.codes += other.codes
        self.recoveries += other.recoveries
        self.seconds += other.seconds
        return self


def storm(folder: Path, nursery: Nursery, plan: Plan) -> Outcome:
    """Carry the plan out in a fresh home, to the end of every job."""
    with ground(
        folder,
        nursery,
        faults=plan.faults,
        seed=plan.seed,
        manners=Life((), lease_seconds=plan.lease_seconds),
        LANGBATCH_GRACE_SECONDS=str(plan.grace_seconds),
    ) as place:
        return _Storm(place, plan).run()


class _Storm:
    def __init__(self, place: Ground, plan: Plan) -> None:
        self._place = place
        self._plan = plan
        self._roll = random.Random(plan.seed)
        self._dealer = Orders(self._roll)
        self._outcome = Outcome()
        self._inputs: dict[str, list[str]] = {}
        self._to_submit: list[str] = []
        for shards in plan.shards_of_jobs:
            self._add_job(shards)
        self._submitter: Child | None = None
        self._workers: list[Child] = []
        self._wakes: dict[int, float] = {}
        self._orphaned: list[tuple[int, int, float]] = []
        self._ended_by_operator: set[int] = set()
        self._killed = self._stopped = 0
        self._notes_of_the_dead = 0

    def _add_job(self, shards: int) -> None:
        number = len(self._inputs)
        name = f"job{number}.jsonl"
        ids = [f"j{number}-{n}" for n in range(shards * self._plan.requests_per_shard)]
        self._place.input_file(name, ids)
        self._inputs[name] = ids
        self._to_submit.append(name)

    # ------------------------------------------------------------ the course

    def run(self) -> Outcome:
        began = time.monotonic()
        next_blow = began + self._rest()
        spent = False
        progress = Progress(math.inf)
        while True:
            if not spent and self._spent:
                # From here on every job must end.
                spent = True
                progress = Progress(self._notes + NOTES_OF_SHARD * self._shards)
            if spent and not self._to_submit and self._shards_done >= CALM_FROM * self._shards:
                self._place.server.emulator.remove_faults()
            if self._idle:
                if spent:
                    return self._sum_up(time.monotonic() - began)
                assert len(self._inputs) < len(self._plan.shards_of_jobs) + MORE_JOBS, "blows cannot be dealt"
                self._add_job(min(self._plan.shards_of_jobs))
            progress.check(self._notes, self._plan)
            self._bring_up()
            now = time.monotonic()
            if now >= next_blow:
                self._blow()
                next_blow = now + self._rest()
            self._place.nursery.happenings(min(0.05, max(0.0, next_blow - now)))
            self._wake_the_frozen()
            self._bury_the_dead()
            if self._stuck():
                self._settle()

    @property
    def _idle(self) -> bool:
        return not (self._to_submit or self._everybody) and self._done()

    @property
    def _spent(self) -> bool:
        """Whether all was dealt that there is to be."""
        if self._killed < self._plan.kills or self._stopped < self._plan.stops:
            return False
        return sum(self._place.server.emulator.faults_fired().values()) >= self._plan.fired

    @property
    def _shards(self) -> int:
        return sum(map(len, self._inputs.values())) // self._plan.requests_per_shard

    @property
    def _shards_done(self) -> int:
        done = self._place.rows("SELECT count(*) FROM shards WHERE state = 'done'")
        return int(done[0][0]) if done else 0

    def _due(self, blows: int) -> float:
        """How many of the planned blows may have been dealt by now."""
        return blows * min(1.0, self._shards_done / sum(self._plan.shards_of_jobs) + HEAD_START)

    @property
    def _everybody(self) -> list[Child]:
        return [*self._workers, *([self._submitter] if self._submitter else [])]

    @property
    def _notes(self) -> int:
        """Bytes that were noted of failpoints reached, by anybody."""
        return self._notes_of_the_dead + sum(child.noted_bytes for child in self._everybody)

    def _bring_up(self) -> None:
        """A submitter while files are left, and workers while jobs are unfinished."""
        place, plan = self._place, self._plan
        if self._submitter is None and self._to_submit:
            command = ("submit", self._to_submit[0], "--provider", "azure", "--max-requests-per-shard")
            self._submitter = place.start(*command, str(plan.requests_per_shard), orders=self._orders())
        while len(self._workers) < plan.workers and not self._done():
            self._workers.append(place.start("resume", "--wait", orders=self._orders()))

    def _done(self) -> bool:
        """Whether nothing that is stored is unfinished."""
        return not self._place.rows("SELECT 1 FROM shards WHERE state != 'done' LIMIT 1")

    # ------------------------------------------------------------ disturbing

    def _rest(self) -> float:
        return self._roll.expovariate(1.0) * self._plan.rest_seconds

    def _orders(self) -> tuple[Order, ...]:
        wanted: set[Act] = set()
        if self._killed < self._due(self._plan.kills):
            wanted.add("kill")
        if self._stopped < self._due(self._plan.stops):
            wanted.add("stop")
        return self._dealer.deal(wanted)

    def _blow(self) -> None:
        """Kill or freeze somebody, at a moment that has nothing to do with failpoints."""
        awake = [child for child in self._everybody if child.pid and not child.standing_still]
        if not awake:
            return
        victim = self._roll.choice(awake)
        if self._killed < self._due(self._plan.kills) and self._roll.random() < 0.7:
            self._place.nursery.signal(victim, signal.SIGKILL)
        elif self._stopped < self._due(self._plan.stops):
            self._place.nursery.signal(victim, signal.SIGSTOP)

    def _wake_the_frozen(self) -> None:
        now = time.monotonic()
        for child in self._everybody:
            if not child.standing_still:
                continue
            if child.n not in self._wakes:
                self._stopped += 1
                pause = self._roll.uniform(*self._plan.pause_leases) * self._plan.lease_seconds
                self._wakes[child.n] = now + pause
            elif now >= self._wakes[child.n]:
                del self._wakes[child.n]
                self._place.nursery.signal(child, signal.SIGCONT)

    # ------------------------------------------------------------ after an end

    def _bury_the_dead(self) -> None:
        for child in [child for child in self._everybody if child.code is not None]:
            check_manners(child)
            self._note(child)
            if child is not self._submitter:
                self._workers.remove(child)
                continue
            self._submitter = None
            if not child.killed:
                self._to_submit.pop(0)

    def _note(self, child: Child) -> None:
        outcome = self._outcome
        outcome.hits += child.hits
        outcome.stops += child.stops
        self._wakes.pop(child.n, None)
        self._notes_of_the_dead += child.noted_bytes
        acts = {noted.split()[0] for noted in child.carried_out}
        for order in child.life.orders:
            if order.act not in acts:
                self._dealer.not_carried_out(order)
        assert child.code is not None
        outcome.codes[child.code] += 1
        if not child.killed:
            return
        self._killed += 1
        own = [order.removeprefix("kill ") for order in child.carried_out if order.startswith("kill ")]
        if child.n in self._ended_by_operator:
            own = ["by the operator, before looking"]
        outcome.kills[own[0] if own else "at any moment"] += 1
        held = self._place.rows(
            'SELECT job, "index" FROM shards WHERE lease_owner LIKE ?', f"%|{child.pid}|%"
        )
        self._orphaned += [(job, index, child.ended_at) for job, index in held]

    def _stuck(self) -> list[tuple[str, int, int]]:
        """Shards that need an operator: the job's id and key, and the shard's index."""
        return self._place.rows(
            'SELECT jobs.id, jobs.key, shards."index" FROM shards JOIN jobs ON jobs.key = shards.job '
            "WHERE shards.state = 'needs_operator'"
        )

    def _settle(self) -> None:
        """A truthful operator: stops everybody, looks at the service, and says what is there."""
        for child in self._everybody:
            self._ended_by_operator.add(child.n)
            self._place.nursery.signal(child, signal.SIGKILL)
            self._place.nursery.ended(child)
        self._bury_the_dead()
        batches = {
            batch["input_file_id"]: batch["id"] for batch in self._place.server.emulator.report()["batches"]
        }
        for job_id, key, index in self._stuck():
            files = self._place.rows(
                "SELECT file_id FROM attempts WHERE job = ? AND shard = ? ORDER BY number DESC LIMIT 1",
                key,
                index,
            )
            batch = batches.get(files[0][0]) if files else None
            answer = ("--adopt", batch) if batch else ("--resubmit",)
            child = self._place.run("reconcile", job_id, "--shard", str(index), *answer)
            check_manners(child)

    def _sum_up(self, seconds: float) -> Outcome:
        outcome = self._outcome
        outcome.seconds = seconds
        outcome.audit = audit(self._place, self._inputs)
        for job, index, at in self._orphaned:
            step = self._place.rows(
                "SELECT min(at) FROM events WHERE job = ? AND shard = ? AND at > ?", job, index, at
            )[0][0]
            if step is not None:
                outcome.recoveries.append(step - at)
        return outcome
