"""All of it, one after the other: what `python -m killing` does."""

from __future__ import annotations

import math
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from threading import Lock

from killing import disturbed
from killing.audit import Audit
from killing.bad_clients import Caught, naive_client, random_deaths, unfenced
from killing.enumerated import (
    BY_NAME,
    SCENARIOS,
    Scenario,
    Tally,
    count_hits,
    failpoints_of_the_product,
    kill_and_finish,
    kill_at_each_hit,
)
from killing.ground import Ground
from killing.pairs import Pair, all_pairs, seen_together, unordered
from killing.processes import Nursery
from killing.side_by_side import Task, run_side_by_side
from killing.storm import FAULTS, Outcome, Plan, storm
from langbatch.emulator import parse_fault

#: The scenario whose course touches the most failpoints; pairs are killed in it.
PAIRS_SCENARIO = "lost requests"
#: How often more, with other hits drawn, a pair is tried that did not come off.
MORE_TRIES = 4
JOBS_OF_STORM = 8
#: Drawn between these.
SHARDS_OF_JOB = (10, 20)
#: For the fault that happens not to fire in as many shards as asked for.
MOST_STORMS = 30
#: Shards of the naive client, which is killed as often; and freezes of the unfenced one.
NAIVE_SHARDS = 40
FREEZES = 6


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
        """Whether it is large enough for every fault, failpoint and pair to have had its turn."""
        return self.every == 1 and self.pairs is None and self.shards >= 1000


@dataclass(slots=True)
class Disturbances:
    """Disks and locks: how many were tried, and how many the process met."""

    tried: Counter[str] = field(default_factory=Counter)
    met: Counter[str] = field(default_factory=Counter)
    audit: Audit = field(default_factory=Audit)


@dataclass(slots=True)
class Findings:
    alone: dict[str, Tally] = field(default_factory=dict)
    pairs: Tally = field(default_factory=Tally)
    pairs_tried: int = 0
    disturbances: Disturbances = field(default_factory=Disturbances)
    storms: Outcome = field(default_factory=Outcome)
    storms_run: int = 0
    naive: Caught = field(default_factory=Caught)
    unfenced: Caught = field(default_factory=Caught)
    seconds: dict[str, float] = field(default_factory=dict)
    #: Parts that are finished.
    done: set[str] = field(default_factory=set)

    def faults_idle(self) -> list[str]:
        """Faults that never fired in a storm."""
        return sorted({parse_fault(text).name for text in FAULTS} - set(self.storms.audit.faults))

    def never_happened(self) -> list[str]:
        """Faults that never fired in a storm, and failpoints at which nobody was ever killed."""
        kills = +self.storms.kills
        for tally in (*self.alone.values(), self.pairs):
            kills += tally.kills
        return self.faults_idle() + sorted(failpoints_of_the_product() - set(kills))

    def pairs_missed(self) -> list[str]:
        """Pairs of failpoints that no job met, in whatever order."""
        return sorted(" + ".join(sorted(pair)) for pair in pairs_missed(self.pairs))


def pairs_missed(tally: Tally) -> set[frozenset[str]]:
    return unordered(failpoints_of_the_product()) - seen_together(tally.courses)


Say = Callable[[str], None]
#: Called where a campaign that is stopped may be gone on with.
Milestone = Callable[[], None]


def campaign(
    folder: Path,
    extent: Extent,
    say: Say = print,
    found: Findings | None = None,
    keep: Callable[[Findings], None] = lambda _: None,
) -> Findings:
    """Run everything that has not been `found` before; what there is so far is given to `keep` at times.

    The first broken promise ends it with an exception that says where.
    """
    found = Findings() if found is None else found
    for name, part in (
        ("alone", _alone),
        ("pairs", _pairs),
        ("disturbances", _disturbances),
        ("storms", _storms),
        ("bad clients", _bad_clients),
    ):
        if name in found.done:
            continue
        milestone = _milestone(name, found, keep)
        part(folder / name.replace(" ", "-"), extent, found, say, milestone)
        found.done.add(name)
        milestone()
        say(f"{name}: {found.seconds[name]:.0f} s")
    return found


def _milestone(name: str, found: Findings, keep: Callable[[Findings], None]) -> Milestone:
    last = time.monotonic()

    def reached() -> None:
        nonlocal last
        now = time.monotonic()
        found.seconds[name] = found.seconds.get(name, 0.0) + now - last
        last = now
        keep(found)

    return reached


def _alone(folder: Path, extent: Extent, found: Findings, say: Say, milestone: Milestone) -> None:
    """Every failpoint, every hit, in every scenario."""
    lock = Lock()
    for scenario in SCENARIOS:
        if scenario.name in found.alone:
            continue
        own_folder = folder / scenario.name.replace(" ", "-")
        with Nursery(own_folder / "counting") as nursery:
            hits = count_hits(own_folder / "count", nursery, scenario)
        total = Tally()

        def task(name: str, scenario: Scenario = scenario, total: Tally = total) -> Task:
            def run(place: Path, nursery: Nursery) -> None:
                own = Tally()
                kill_at_each_hit(place, nursery, scenario, name, own, extent.every)
                with lock:
                    total.add(own)

            return run

        # The longest first, so that none is left over for one thread at the end.
        tasks = [task(name) for name, _ in hits.most_common()]
        began = time.monotonic()
        run_side_by_side(own_folder, extent.side_by_side, tasks)
        found.alone[scenario.name] = total
        say(f"  {scenario.name}: {total.kills.total()} kills, {time.monotonic() - began:.0f} s")
        milestone()


def _pairs(folder: Path, extent: Extent, found: Findings, say: Say, _: Milestone) -> None:
    """Somebody dies at one failpoint, a successor at another."""
    scenario = BY_NAME[PAIRS_SCENARIO]
    with Nursery(folder / "counting") as nursery:
        hits = count_hits(folder / "count", nursery, scenario)
    pairs = all_pairs(scenario, hits, extent.seed)
    if extent.pairs is not None:
        pairs = random.Random(extent.seed).sample(pairs, min(extent.pairs, len(pairs)))
    found.pairs_tried = len(pairs)
    total, lock = Tally(), Lock()

    def task(pair: Pair) -> Task:
        def run(place: Path, nursery: Nursery) -> None:
            own = Tally()
            for number, way in enumerate(pair.ways):
                kill_and_finish(place / str(number), nursery, pair.scenario, way, own)
                if not Counter(pair.names) - Counter(own.courses[-1]):
                    break
            with lock:
                total.add(own)
                if total.runs % 100 < len(own.courses):
                    say(f"  {total.runs} courses")

        return run

    for turn in range(1 + MORE_TRIES):
        run_side_by_side(folder / str(turn), extent.side_by_side, map(task, pairs))
        missed = pairs_missed(total)
        pairs = [
            pair
            for pair in all_pairs(scenario, hits, extent.seed + 1 + turn)
            if frozenset(pair.names) in missed
        ]
        if extent.pairs is not None or not pairs:
            break
    found.pairs = total
    say(f"  {found.pairs_tried} pairs, {total.kills.total()} kills, {len(missed)} pairs missed")


def _disturbances(folder: Path, extent: Extent, found: Findings, say: Say, _: Milestone) -> None:
    total, lock = Disturbances(), Lock()

    def task(kind: str, disturb: Callable[[Ground], int]) -> Task:
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
    run_side_by_side(folder, extent.side_by_side, tasks)
    found.disturbances = total
    say(f"  {total.tried.total()} disturbances")


def storm_plans(extent: Extent) -> Iterable[Plan]:
    """Storms without end, each another seed, each with its share of the blows."""
    seed = extent.seed * 1000
    while True:
        seed += 1
        roll = random.Random(seed)
        shards = tuple(roll.randint(*SHARDS_OF_JOB) for _ in range(JOBS_OF_STORM))
        share = min(1.0, sum(shards) / max(1, extent.shards))
        kills, stops = (math.ceil(wanted * share) for wanted in (extent.kills, extent.stops))
        yield Plan(seed, shards, kills, stops, rest_seconds=0.5)


def _storms(folder: Path, extent: Extent, found: Findings, say: Say, milestone: Milestone) -> None:
    """Until there were as many shards, kills and stops as asked for, and every fault fired."""
    total = found.storms
    for plan in islice(storm_plans(extent), found.storms_run, None):
        enough = total.audit.shards >= extent.shards
        enough = enough and total.kills.total() >= extent.kills and total.stops >= extent.stops
        if enough and (not extent.complete or not found.faults_idle() or found.storms_run >= MOST_STORMS):
            return
        place = folder / str(plan.seed)
        with Nursery(place / "processes") as nursery:
            outcome = storm(place / "ground", nursery, plan)
        total += outcome
        found.storms_run += 1
        assert outcome.audit.zeros == (0, 0, 0, 0), (plan, outcome.audit)
        shutil.rmtree(place, ignore_errors=True)
        say(
            f"  storm {plan.seed}: {outcome.audit.shards} shards, {outcome.kills.total()} kills, "
            f"{outcome.stops} stops, {outcome.seconds:.0f} s"
        )
        milestone()


def _bad_clients(folder: Path, extent: Extent, found: Findings, say: Say, _: Milestone) -> None:
    """The harness can fail: clients that are wrong are found out."""
    with Nursery(folder / "processes") as nursery:
        found.naive = naive_client(
            folder / "naive", nursery, NAIVE_SHARDS, random_deaths(extent.seed, NAIVE_SHARDS)
        )
        found.unfenced = unfenced(folder / "unfenced", nursery, range(1, FREEZES + 1))
    for caught in (found.naive, found.unfenced):
        assert caught.paid_twice > 0, "a client that pays twice was not caught"
    say(f"  naive {found.naive.paid_twice}, unfenced {found.unfenced.paid_twice} paid twice")
