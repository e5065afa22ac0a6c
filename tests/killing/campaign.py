"""All of it, one after the other: what `python -m killing` does."""

from __future__ import annotations

import math
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from threading import Lock, local

from killing import disturbed
from killing.audit import Audit
from killing.enumerated import BY_NAME, SCENARIOS, Scenario, Tally, count_hits, kill_and_finish, singles
from killing.ground import Ground
from killing.lives import Order
from killing.processes import Nursery
from killing.storm import FAULTS, Outcome, Plan, storm
from langbatch.emulator import parse_fault

#: The scenario whose course touches the most failpoints; pairs are killed in it.
PAIRS_SCENARIO = "lost requests"
JOBS_OF_STORM = 8
#: Drawn between these.
SHARDS_OF_JOB = (10, 20)


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is done. `every`: of the enumerated kills each so-many-th; `pairs` None: all of them."""

    kills: int = 500
    stops: int = 50
    shards: int = 1000
    every: int = 1
    pairs: int | None = None
    seed: int = 1
    side_by_side: int = 2

    @property
    def complete(self) -> bool:
        """Whether it is large enough for every fault and every failpoint to have had its turn."""
        return self.every == 1 and self.shards >= 1000


@dataclass(slots=True)
class Disturbances:
    """Disks and locks: how many were tried, and how many the process met."""

    tried: Counter[str] = field(default_factory=Counter)
    met: Counter[str] = field(default_factory=Counter)
    audit: Audit = field(default_factory=Audit)


@dataclass(slots=True)
class Findings:
    alone: dict[str, Tally] = field(default_factory=dict)
    points: dict[str, int] = field(default_factory=dict)
    pairs: Tally = field(default_factory=Tally)
    pairs_tried: int = 0
    disturbances: Disturbances = field(default_factory=Disturbances)
    storms: Outcome = field(default_factory=Outcome)
    storms_run: int = 0
    naive: Outcome = field(default_factory=Outcome)
    unfenced: Outcome = field(default_factory=Outcome)
    seconds: dict[str, float] = field(default_factory=dict)

    def never_happened(self) -> list[str]:
        """Faults that never fired in a storm, and failpoints at which nobody was ever killed."""
        kills, hits = +self.storms.kills, +self.storms.hits
        for tally in (*self.alone.values(), self.pairs):
            kills += tally.kills
            hits += tally.hits
        faults = {parse_fault(text).name for text in FAULTS}
        return sorted(faults - set(self.storms.audit.faults)) + sorted(set(hits) - set(kills))


Say = Callable[[str], None]


def campaign(folder: Path, extent: Extent, say: Say = print) -> Findings:
    """Run everything. The first broken promise ends it with an exception that says where."""
    found = Findings()
    for name, part in (
        ("alone", _alone),
        ("pairs", _pairs),
        ("disturbances", _disturbances),
        ("storms", _storms),
        ("bad clients", _bad_clients),
    ):
        began = time.monotonic()
        part(folder / name.replace(" ", "-"), extent, found, say)
        found.seconds[name] = time.monotonic() - began
        say(f"{name}: {found.seconds[name]:.0f} s")
    return found


class _SideBySide:
    """Runs that have nothing to do with each other, a few at a time, each thread with its own nursery."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._folder = folder
        self._threads = threads
        self._own = local()
        self._opened: list[Nursery] = []
        self._lock = Lock()

    def _nursery(self) -> Nursery:
        if not hasattr(self._own, "nursery"):
            with self._lock:
                nursery = Nursery(self._folder / f"processes{len(self._opened)}")
                self._opened.append(nursery)
            self._own.nursery = nursery.__enter__()
        found: Nursery = self._own.nursery
        return found

    def run(self, tasks: Iterable[Callable[[Path, Nursery], None]]) -> None:
        """Each task gets a folder of its own, which goes away when it succeeds."""

        def one(numbered: tuple[int, Callable[[Path, Nursery], None]]) -> None:
            number, task = numbered
            place = self._folder / f"run{number}"
            task(place, self._nursery())
            shutil.rmtree(place, ignore_errors=True)

        try:
            with ThreadPoolExecutor(self._threads) as pool:
                results = [pool.submit(one, numbered) for numbered in enumerate(tasks)]
                try:
                    for result in results:
                        result.result()
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
        finally:
            for nursery in self._opened:
                nursery.__exit__(None, None, None)


def _alone(folder: Path, extent: Extent, found: Findings, say: Say) -> None:
    """Every failpoint, every hit, in every scenario."""
    lock = Lock()
    for scenario in SCENARIOS:
        with Nursery(folder / scenario.name / "counting") as nursery:
            orders = singles(count_hits(folder / scenario.name / "count", nursery, scenario))
        orders = orders[:: extent.every]
        total = found.alone[scenario.name] = Tally()
        found.points[scenario.name] = len(orders)

        def task(
            order: Order, scenario: Scenario = scenario, total: Tally = total
        ) -> Callable[[Path, Nursery], None]:
            def run(place: Path, nursery: Nursery) -> None:
                own = Tally()
                kill_and_finish(place, nursery, scenario, [order], own)
                with lock:
                    total.add(own)

            return run

        _SideBySide(folder / scenario.name, extent.side_by_side).run(map(task, orders))
        say(f"  {scenario.name}: {len(orders)} points, {total.kills.total()} kills")


def _pairs(folder: Path, extent: Extent, found: Findings, say: Say) -> None:
    """The first process dies at one failpoint, its successor at another."""
    scenario = BY_NAME[PAIRS_SCENARIO]
    with Nursery(folder / "counting") as nursery:
        names = sorted(count_hits(folder / "count", nursery, scenario))
    couples = list(product(names, names))
    if extent.pairs is not None:
        couples = random.Random(extent.seed).sample(couples, min(extent.pairs, len(couples)))
    found.pairs_tried = len(couples)
    lock = Lock()

    def task(couple: tuple[str, str]) -> Callable[[Path, Nursery], None]:
        def run(place: Path, nursery: Nursery) -> None:
            own = Tally()
            kill_and_finish(place, nursery, scenario, [Order("kill", name, 1) for name in couple], own)
            with lock:
                found.pairs.add(own)

        return run

    _SideBySide(folder, extent.side_by_side).run(map(task, couples))
    say(f"  {len(couples)} pairs, {found.pairs.kills.total()} kills")


def _disturbances(folder: Path, extent: Extent, found: Findings, say: Say) -> None:
    total, lock = found.disturbances, Lock()

    def task(kind: str, disturb: Callable[[Ground], int]) -> Callable[[Path, Nursery], None]:
        def run(place: Path, nursery: Nursery) -> None:
            with disturbed.stage(place, nursery) as where:
                code = disturb(where)
                audit = disturbed.finish(where)
            with lock:
                total.tried[kind] += 1
                total.met[kind] += code != 0
                total.audit += audit

        return run

    tasks = [task(kind, disturb) for kind, disturb in disturbed.every_kind()][:: extent.every]
    _SideBySide(folder, extent.side_by_side).run(tasks)
    say(f"  {total.tried.total()} disturbances")


def storm_plans(extent: Extent) -> Iterable[Plan]:
    """Storms without end, each another seed."""
    seed = extent.seed * 1000
    while True:
        seed += 1
        roll = random.Random(seed)
        shards = tuple(roll.randint(*SHARDS_OF_JOB) for _ in range(JOBS_OF_STORM))
        storms = max(1, extent.shards // sum(shards))
        # A little more than its share: a storm ends with its jobs, whether or not all blows were dealt.
        kills, stops = (3 * wanted // (2 * storms) + 1 for wanted in (extent.kills, extent.stops))
        yield Plan(seed, shards, kills, stops, rest_seconds=0.5)


def _storms(folder: Path, extent: Extent, found: Findings, say: Say) -> None:
    """Until there were as many shards, kills and stops as asked for."""
    total = found.storms
    for plan in storm_plans(extent):
        enough = total.audit.shards >= extent.shards
        if enough and total.kills.total() >= extent.kills and total.stops >= extent.stops:
            return
        place = folder / str(plan.seed)
        with Nursery(place / "processes") as nursery:
            outcome = storm(place / "ground", nursery, plan)
        shutil.rmtree(place, ignore_errors=True)
        total += outcome
        found.storms_run += 1
        assert outcome.audit.zeros == (0, 0, 0, 0), (plan, outcome.audit)
        say(
            f"  storm {plan.seed}: {outcome.audit.shards} shards, {outcome.kills.total()} kills, "
            f"{outcome.stops} stops, {outcome.seconds:.0f} s"
        )


#: Where a create is in doubt.
AROUND_CREATE = ("call.create_batch.before", "call.create_batch.after")


def naive_plan(
    seed: int, shards_of_jobs: Sequence[int], kills: int, *, rest_seconds: float = math.inf
) -> Plan:
    """The naive client in a storm without a single fault of the service: only kills. Without the driver's
    own blows the seed alone says what happens."""
    return Plan(
        seed,
        tuple(shards_of_jobs),
        kills,
        stops=0,
        workers=1,
        program="naive",
        faults=(),
        rest_seconds=rest_seconds,
        places=AROUND_CREATE,
    )


def unfenced_plan(seed: int, shards_of_jobs: Sequence[int], stops: int) -> Plan:
    """langbatch without its fence in a storm without faults: processes freeze before a create."""
    return Plan(
        seed,
        tuple(shards_of_jobs),
        kills=0,
        stops=stops,
        program="unfenced",
        faults=(),
        lease_seconds=0.4,
        grace_seconds=0.1,
        rest_seconds=math.inf,
        places=AROUND_CREATE[:1],
        furthest_hit=4,
        pause_leases=(4.0, 7.0),
    )


def _bad_clients(folder: Path, extent: Extent, found: Findings, say: Say) -> None:
    """The harness can fail: clients that are wrong are found out."""
    with Nursery(folder / "processes") as nursery:
        found.naive = storm(
            folder / "naive", nursery, naive_plan(extent.seed, (10, 10, 10), 25, rest_seconds=0.4)
        )
        found.unfenced = storm(folder / "unfenced", nursery, unfenced_plan(extent.seed, (10, 10, 10), 15))
    for outcome in (found.naive, found.unfenced):
        assert outcome.audit.paid_twice > 0, "a client that pays twice was not caught"
    say(f"  naive {found.naive.audit.paid_twice}, unfenced {found.unfenced.audit.paid_twice} paid twice")
