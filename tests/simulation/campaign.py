"""Many seeds, over several processes, added up."""

from __future__ import annotations

import gc
import multiprocessing
import re
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

import langbatch
from langbatch.lifecycle import MOVES
from simulation.faults import ALL_KNOBS, KNOBS
from simulation.judge import Verdict, judge, unexcused_stops
from simulation.provider import SimulatedProvider
from simulation.service import PaidTwice
from simulation.stage import Endless
from simulation.world import Arena, NeverEnds, World, arena

if TYPE_CHECKING:
    from simulation.kept import Kept

_CHUNK = 50
#: Kept of all failures, to be read by a person.
_MOST_FAILURES = 40
_POINT = re.compile(r'failpoints\.(around|reached)\("([\w.]+)"\)')


@dataclass(slots=True)
class Totals:
    """What a run of seeds came to. Adds up with `+=`."""

    seeds: int = 0
    fired: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    moves: Counter[str] = field(default_factory=Counter)
    #: Moves by a fault that had hit the shard since its move before.
    moves_after: Counter[tuple[str, str]] = field(default_factory=Counter)
    recoveries: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    failing_seeds: list[str] = field(default_factory=list)
    crashes: int = 0
    freezes: int = 0
    shards: int = 0
    requests: int = 0
    uploads: int = 0
    batches: int = 0
    rows_run: int = 0
    late_creates_refused: int = 0
    operator_stops: int = 0
    orphan_files: int = 0
    paid_twice: int = 0
    ids_lost: int = 0
    rows_lost: int = 0
    rows_doubled: int = 0
    unended: int = 0
    others: int = 0
    virtual_seconds: float = 0.0

    @classmethod
    def of(cls, world: World, verdict: Verdict) -> Totals:
        """What one seed came to."""
        log, wrong = world.log, verdict.wrong
        totals = cls(
            seeds=1,
            fired=Counter(world.plan.fired),
            points=log.points,
            moves=Counter(move for _, _, _, move in verdict.moves),
            moves_after=Counter(_moves_after(world, verdict)),
            recoveries=log.recoveries,
            failures=[f"seed {world.seed}: {text}" for text in wrong],
            failing_seeds=[world.seed] if wrong else [],
            crashes=log.crashes,
            freezes=log.freezes,
            shards=world.cast.shards,
            requests=world.cast.shards * world.cast.per_shard,
            uploads=sum(file.name.startswith("lb-") for file in world.files),
            batches=len(world.batches),
            rows_run=sum(len(batch.executed(world.clock.now())) for batch in world.batches),
            late_creates_refused=sum(service.late_refused for service in world.services),
            operator_stops=log.operator_stops,
            orphan_files=verdict.orphan_files,
            virtual_seconds=world.played_seconds,
        )
        for name in ("paid_twice", "ids_lost", "rows_lost", "rows_doubled", "unended", "others"):
            setattr(totals, name, len(getattr(verdict, name)))
        return totals

    def add(self, other: Totals) -> None:
        for item in fields(self):
            mine, theirs = getattr(self, item.name), getattr(other, item.name)
            if isinstance(mine, Counter):
                mine.update(theirs)
            elif isinstance(mine, list):
                mine.extend(theirs)
            else:
                setattr(self, item.name, mine + theirs)
        del self.failures[_MOST_FAILURES:], self.failing_seeds[_MOST_FAILURES:]

    @property
    def passed(self) -> bool:
        """Whether every promise was kept, and everything that can go wrong did."""
        return not self.failures and not self.missing()

    def missing(self) -> list[str]:
        """Knobs, failpoints and moves that never fired: a run without them has not shown enough."""
        expected = [*ALL_KNOBS, *failpoint_names(), *MOVES]
        return [name for name in expected if not (self.fired[name] or self.points[name] or self.moves[name])]


def failpoint_names() -> list[str]:
    """Every name that the core can reach, read off its source."""
    names = {f"call.{verb}.{end}" for verb in _VERBS for end in ("before", "after")}
    for path in Path(langbatch.__file__).parent.rglob("*.py"):
        for kind, name in _POINT.findall(path.read_text()):
            names |= {f"{name}.before", f"{name}.after"} if kind == "around" else {name}
    return sorted(names)


_VERBS = [
    moment for moment in KNOBS if any(moment.startswith(v) for v in ("upload", "get_", "list_", "delete_"))
]
_VERBS += ["create_batch", "cancel_batch", "download"]


def play_seed(
    seed: str, place: Arena, client: type[SimulatedProvider] = SimulatedProvider, also: Sequence[str] = ()
) -> tuple[World, Verdict]:
    """One seed from start to end: its world, and the verdict.

    `also`: knobs turned up besides those that the seed draws.
    """
    world = World.of_seed(seed, place, client)
    for knob in also:
        world.plan.arm(knob, 0.5, 8)
    try:
        world.play()
        verdict = judge(world)
        verdict.others += unexcused_stops(world, verdict)
    except PaidTwice as error:
        verdict = Verdict(paid_twice=[str(error)])
    except (NeverEnds, Endless) as error:
        verdict = Verdict(unended=[str(error)])
    except Exception as error:  # noqa: BLE001 - whatever the core raises is a finding, with its seed
        where = traceback.extract_tb(error.__traceback__)[-1]
        place_of_it = f"{Path(where.filename).name}:{where.lineno}"
        verdict = Verdict(others=[f"{type(error).__name__} at {place_of_it}: {error}"])
    return world, verdict


def _collect_seldom() -> None:
    """The modules are no garbage, and a seed leaves little: looking for it takes an eighth of the time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def add_up(seeds: Sequence[int]) -> Totals:
    """Play these seeds in this process."""
    totals = Totals()
    with arena() as place:
        for seed in seeds:
            totals.add(Totals.of(*play_seed(str(seed), place)))
    return totals


def _moves_after(world: World, verdict: Verdict) -> Iterator[tuple[str, str]]:
    since: dict[tuple[int, int], float] = {}
    faults = world.log.faults
    for at, job, shard, move in verdict.moves:
        before = since.get((job, shard), 0.0)
        since[job, shard] = at
        yield from {
            (move, knob) for when, key, knob in faults if key == (job, shard) and before <= when <= at
        }


def run(
    seeds: int,
    processes: int,
    *,
    first: int = 0,
    on_done: Callable[[Totals], None] | None = None,
    kept: Kept | None = None,
) -> tuple[Totals, float]:
    """Play `seeds` seeds from `first` on, but for those `kept`; what they came to, and the seconds it took."""
    totals, before = (kept.totals, kept.seconds) if kept is not None else (Totals(), 0.0)
    began = last = time.monotonic()
    chunks = [range(at, min(at + _CHUNK, first + seeds)) for at in range(first, first + seeds, _CHUNK)]
    if kept is not None:
        chunks = [chunk for chunk in chunks if (chunk.start, len(chunk)) not in kept.chunks]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn, initializer=_collect_seldom) as pool:
        played = {pool.submit(add_up, chunk): chunk for chunk in chunks}
        for future in as_completed(played):
            found, now = future.result(), time.monotonic()
            if kept is not None:
                kept.keep(played[future], found, now - last)
            last = now
            totals.add(found)
            if on_done is not None:
                on_done(totals)
    return totals, before + time.monotonic() - began
