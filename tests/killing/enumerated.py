"""Every failpoint in turn: die at its n-th hit, go on, and come out as if nothing had happened."""

from __future__ import annotations

import itertools
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path
from typing import get_args

import langbatch
from killing.audit import Audit, audit, check_manners
from killing.ground import Ground, ground
from killing.lives import Order
from killing.processes import Child, Nursery
from langbatch.providers.error_table import Verb

INPUT = "in.jsonl"
IDS = tuple(f"r{n}" for n in range(6))
PER_SHARD = 3
#: The job's words, where a command needs one: `resume` and `cancel` take it by its prefix.
JOB = "job_"

SUBMIT = ("submit", INPUT, "--provider", "azure", "--max-requests-per-shard", str(PER_SHARD))
RESUME = ("resume", "--wait")


@dataclass(frozen=True, slots=True)
class Scenario:
    """A job's course. `before` runs undisturbed, `victim` is what is killed, `successor` may be killed after
    it (where the job is stored by then), as may be `RESUME`, which finishes.

    `succeed`: whether every request must succeed in the end. `home_lost`: whether all that is here is gone
    when the victim starts.
    """

    name: str
    victim: tuple[str, ...]
    before: tuple[tuple[str, ...], ...] = ()
    faults: tuple[str, ...] = ()
    succeed: bool = True
    successor: tuple[str, ...] = RESUME
    home_lost: bool = False

    @property
    def typed_again(self) -> tuple[str, ...] | None:
        """The command that its user types once more because it was killed; `RESUME` does what `submit --wait`
        would."""
        for command in (self.victim, self.successor):
            if command[0] in ("cancel", "retry", "fetch", "recover"):
                return command
        return None


SCENARIOS = (
    Scenario("submit", (*SUBMIT, "--wait")),
    # Both files and both batches have to be found in lists.
    Scenario(
        "lost replies",
        (*SUBMIT, "--wait"),
        faults=("upload-committed-drop*2", "create-committed-drop*2"),
    ),
    # The creates never arrived: fenced, waited for, sent anew.
    Scenario("lost requests", (*SUBMIT, "--wait"), faults=("upload-drop*2", "create-drop*2")),
    Scenario("cancel", ("cancel", JOB), before=(SUBMIT,), succeed=False),
    Scenario("retry", ("retry", JOB), before=((*SUBMIT, "--wait"),), faults=("rows-fail=1*2",)),
    Scenario(
        "recover",
        ("recover", "--from-remote", "--provider", "azure"),
        before=(SUBMIT,),
        home_lost=True,
    ),
    Scenario("fetch", ("fetch", JOB, "-o", "out.jsonl", "--force"), before=((*SUBMIT, "--wait"),)),
)
#: For pairs only: a job that is cancelled on its way.
CANCELLED = Scenario("cancelled on its way", (*SUBMIT, "--wait"), succeed=False, successor=("cancel", JOB))
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


@dataclass(slots=True)
class Tally:
    """What a series of such kills came to."""

    audit: Audit = field(default_factory=Audit)
    hits: Counter[str] = field(default_factory=Counter)
    #: SIGKILLs by failpoint.
    kills: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    #: Seconds from a kill to the first step that its successor recorded, where it left anything to do.
    recoveries: list[float] = field(default_factory=list)
    #: Of every course, the failpoints at which somebody was killed, in that order.
    courses: list[tuple[str, ...]] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.audit += other.audit
        self.hits += other.hits
        self.courses += other.courses
        self.kills += other.kills
        self.runs += other.runs
        self.recoveries += other.recoveries

    def saw(self, child: Child) -> None:
        self.hits += child.hits
        self.kills.update(killed_at(child))


def killed_at(child: Child) -> list[str]:
    """The failpoint at which a process killed itself, if it did."""
    acts = (noted.partition(" ") for noted in child.carried_out)
    return [name for act, _, name in acts if act == "kill"]


@contextmanager
def _stage(folder: Path, nursery: Nursery, scenario: Scenario) -> Iterator[Ground]:
    with ground(folder, nursery, faults=scenario.faults) as place:
        place.input_file(INPUT, IDS)
        for command in scenario.before:
            child = place.run(*command)
            check_manners(child)
        if scenario.home_lost:
            shutil.rmtree(place.home)
        yield place


def count_hits(folder: Path, nursery: Nursery, scenario: Scenario) -> Counter[str]:
    """How often the scenario's victim reaches each failpoint, when it is left alone."""
    with _stage(folder, nursery, scenario) as place:
        child = place.run(*scenario.victim)
        check_manners(child)
        return child.hits


def kill_and_finish(
    folder: Path, nursery: Nursery, scenario: Scenario, kills: Sequence[Order], tally: Tally
) -> None:
    """Kill the victim as the first order says, its successors as the others do; then let the job finish
    undisturbed, and audit it."""
    with _stage(folder, nursery, scenario) as place:
        child = _run(place, scenario.victim, kills[:1], tally)
        killed = killed_at(child)
        for order, command in zip(kills[1:], chain([scenario.successor], repeat(RESUME)), strict=False):
            child = _run(place, command if _stored(place) else scenario.victim, (order,), tally, after=child)
            killed += killed_at(child)
        tally.courses.append(tuple(killed))
        if not _stored(place) and not scenario.home_lost:
            # Killed before the job was stored: nothing was sent, and the user submits again.
            assert place.server.emulator.report()["counts"]["uploads"] == 0
            child = _run(place, SUBMIT, (), tally, after=child)
        if scenario.typed_again:
            again = _run(place, scenario.typed_again, (), tally, after=child)
            assert again.code in (0, 2), again.err
        last = _run(place, RESUME, (), tally, after=child)
        if scenario.victim[0] == "retry" and last.code == 4:
            # Half of it had been retried; the other half only now can be.
            _run(place, scenario.victim, (), tally)
            last = _run(place, RESUME, (), tally)
        assert last.code in ((0,) if scenario.succeed else (0, 4)), (kills, last.code, last.err)
        # A recovered job does not know any more what its file was called.
        name = place.rows("SELECT input_name FROM jobs")[0][0] if scenario.home_lost else INPUT
        found = audit(place, {name: IDS})
        if scenario.victim[0] == "fetch":
            _check_fetched(place)
        _check_succeeded(place, scenario)
        tally.audit += found
        tally.runs += 1
        assert found.zeros == (0, 0, 0, 0), (scenario.name, kills, found)
        assert found.operator_stops == 0, (scenario.name, kills)


def _run(
    place: Ground, command: tuple[str, ...], orders: Sequence[Order], tally: Tally, after: Child | None = None
) -> Child:
    child = place.run(*command, orders=orders)
    check_manners(child)
    tally.saw(child)
    if after is not None and after.killed:
        steps = place.rows("SELECT min(at) FROM events WHERE at > ?", after.ended_at)
        if steps and steps[0][0] is not None:
            tally.recoveries.append(steps[0][0] - after.ended_at)
    return child


def _stored(place: Ground) -> bool:
    return bool(place.rows("SELECT 1 FROM jobs"))


def _check_succeeded(place: Ground, scenario: Scenario) -> None:
    succeeded = place.rows("SELECT sum(succeeded) FROM shards")[0][0]
    assert succeeded == len(IDS) or not scenario.succeed, (scenario.name, succeeded)


def _check_fetched(place: Ground) -> None:
    lines = (place.folder / "out.jsonl").read_text().splitlines()
    assert [line.split('"')[3] for line in lines] == list(IDS)


def kill_at_each_hit(
    folder: Path, nursery: Nursery, scenario: Scenario, name: str, tally: Tally, every: int = 1
) -> None:
    """Kill the victim at the failpoint's first hit, another one at its second (or each so-many-th), and so
    on until one finishes unkilled."""
    for hit in itertools.count(1, every):
        place = folder / str(hit)
        before = tally.kills.total()
        kill_and_finish(place, nursery, scenario, [Order("kill", name, hit)], tally)
        shutil.rmtree(place)
        if tally.kills.total() == before:
            return


def failpoints_of_the_product() -> frozenset[str]:
    """Every name that langbatch's code can reach."""
    named = {f"call.{verb}.{side}" for verb in get_args(Verb) for side in ("before", "after")}
    for path in Path(str(langbatch.__file__)).parent.rglob("*.py"):
        text = path.read_text()
        # A name made of a variable is a call's, which are there already.
        named |= set(re.findall(r'failpoints\.reached\("([\w.]+)"\)', text))
        for what in re.findall(r'failpoints\.around\("([\w.]+)"\)', text):
            named |= {f"{what}.before", f"{what}.after"}
    return frozenset(named)
