"""Many shards, several processes on one store, a faulty service, and death and frost at random."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from killing import naive
from killing.audit import Audit, audit, check_manners, payments
from killing.ground import GRACE_SECONDS, Ground, ground
from killing.lives import ANY, Act, Life, Order, Program
from killing.processes import Child, Hung, Nursery

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
#: Where a random death is ordered by name; the others are met by `any`.
_CALLS = (
    "upload",
    "list_files",
    "get_file",
    "create_batch",
    "list_batches",
    "delete_file",
    "get_batch",
    "download",
)
_PLACES = (
    *(f"call.{verb}.{side}" for verb in _CALLS for side in ("before", "after")),
    *(f"{what}.{side}" for what in ("commit", "fsync", "rename") for side in ("before", "after")),
)
#: How long the jobs may take to end once nothing disturbs them any more.
CALM_SECONDS = 180.0
#: ... and how long the whole may take, should the blows not be dealt for want of anybody to hit.
STORM_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Plan:
    """One storm. `kills` and `stops` are how many there are to be; it goes on until all jobs are done, so
    there may be fewer."""

    seed: int
    shards_of_jobs: tuple[int, ...]
    kills: int
    stops: int
    workers: int = 3
    requests_per_shard: int = 2
    faults: tuple[str, ...] = FAULTS
    program: Program = "langbatch"
    lease_seconds: float = 1.0
    #: Mean seconds between the driver's own blows; what processes do to themselves comes on top.
    rest_seconds: float = 1.5
    #: Failpoints at which processes kill or stop themselves; empty: all.
    places: tuple[str, ...] = ()
    #: The highest number of the hit at which they do so.
    furthest_hit: int = 5
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
    manners = Life((), lease_seconds=plan.lease_seconds)
    with ground(
        folder,
        nursery,
        faults=plan.faults,
        seed=plan.seed,
        program=plan.program,
        manners=manners,
        LANGBATCH_GRACE_SECONDS=str(plan.grace_seconds),
    ) as place:
        inputs = {}
        for number, shards in enumerate(plan.shards_of_jobs):
            name = f"job{number}.jsonl"
            inputs[name] = [f"j{number}-{n}" for n in range(shards * plan.requests_per_shard)]
            place.input_file(name, inputs[name])
        return _Storm(place, plan, inputs).run()


class _Storm:
    def __init__(self, place: Ground, plan: Plan, inputs: Mapping[str, Sequence[str]]) -> None:
        self._place = place
        self._plan = plan
        self._inputs = inputs
        self._roll = random.Random(plan.seed)
        self._outcome = Outcome()
        self._to_submit = list(inputs)
        self._submitter: Child | None = None
        self._workers: list[Child] = []
        self._wakes: dict[int, float] = {}
        self._orphaned: list[tuple[int, int, float]] = []
        self._ended_by_operator: set[int] = set()
        self._killed = self._stopped = 0

    # ------------------------------------------------------------ the course

    def run(self) -> Outcome:
        began = time.monotonic()
        next_blow = began + self._rest()
        calm_since: float | None = None
        while self._to_submit or self._workers or self._submitter or not self._done():
            if calm_since is None and self._spent:
                # The service recovers as well: from here on every job must end.
                self._place.server.emulator.remove_faults()
                calm_since = time.monotonic()
            if calm_since is not None and time.monotonic() - calm_since > CALM_SECONDS:
                raise Hung(f"{self._plan}: unfinished {CALM_SECONDS:g} s after the last disturbance")
            if time.monotonic() - began > STORM_SECONDS:
                raise Hung(f"{self._plan}: unfinished after {STORM_SECONDS:g} s")
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
        return self._sum_up(time.monotonic() - began)

    @property
    def _spent(self) -> bool:
        return self._killed >= self._plan.kills and self._stopped >= self._plan.stops

    @property
    def _everybody(self) -> list[Child]:
        return [*self._workers, *([self._submitter] if self._submitter else [])]

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
        if self._plan.program == "naive":
            return not naive.unfinished(self._place.home)
        return not self._place.rows("SELECT 1 FROM shards WHERE state != 'done' LIMIT 1")

    # ------------------------------------------------------------ disturbing

    def _rest(self) -> float:
        return self._roll.expovariate(1.0) * self._plan.rest_seconds

    def _orders(self) -> tuple[Order, ...]:
        """What a new process is to do to itself, if anything."""
        roll = self._roll
        ways: list[Act] = []
        if self._killed < self._plan.kills:
            ways.append("kill")
        if self._stopped < self._plan.stops:
            ways.append("stop")
        if not ways or roll.random() < 0.1:
            return ()
        act = roll.choice(ways)
        if not self._plan.places and roll.random() < 0.5:
            return (Order(act, ANY, roll.randint(1, 250)),)
        return (
            Order(act, roll.choice(self._plan.places or _PLACES), roll.randint(1, self._plan.furthest_hit)),
        )

    def _blow(self) -> None:
        """Kill or freeze somebody, at a moment that has nothing to do with failpoints."""
        awake = [child for child in self._everybody if child.pid and not child.standing_still]
        if not awake:
            return
        victim = self._roll.choice(awake)
        if self._killed < self._plan.kills and self._roll.random() < 0.7:
            self._place.nursery.signal(victim, signal.SIGKILL)
        elif self._stopped < self._plan.stops:
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
        assert child.code is not None
        outcome.codes[child.code] += 1
        if not child.killed:
            return
        self._killed += 1
        own = [order.removeprefix("kill ") for order in child.carried_out if order.startswith("kill ")]
        if child.n in self._ended_by_operator:
            own = ["by the operator, before looking"]
        outcome.kills[own[0] if own else "at any moment"] += 1
        if self._plan.program != "naive":
            held = self._place.rows(
                'SELECT job, "index" FROM shards WHERE lease_owner LIKE ?', f"%|{child.pid}|%"
            )
            self._orphaned += [(job, index, child.ended_at) for job, index in held]

    def _stuck(self) -> list[tuple[str, int, int]]:
        """Shards that need an operator: the job's id and key, and the shard's index."""
        if self._plan.program == "naive":
            return []
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
        if self._plan.program == "naive":
            paid = payments(self._place)
            outcome.audit = Audit(paid_twice=sum(times > 1 for times in paid.values()), requests=len(paid))
            return outcome
        outcome.audit = audit(self._place, self._inputs)
        for job, index, at in self._orphaned:
            step = self._place.rows(
                "SELECT min(at) FROM events WHERE job = ? AND shard = ? AND at > ?", job, index, at
            )[0][0]
            if step is not None:
                outcome.recoveries.append(step - at)
        return outcome
