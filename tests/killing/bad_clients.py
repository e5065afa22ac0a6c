"""Clients that pay twice, to see that this is noticed. Orders alone say what happens, never the clock."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from killing import naive
from killing.audit import Audit, audit, check_manners, payments
from killing.enumerated import INPUT, RESUME
from killing.ground import ground
from killing.lives import ANY, Life, Order, Program
from killing.processes import Nursery

PER_SHARD = 2


@dataclass(slots=True)
class Caught:
    """What a bad client paid twice, and what had been done to it."""

    requests: int = 0
    paid_twice: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    stops: int = 0


def _ids(shards: int) -> list[str]:
    return [f"r{n}" for n in range(shards * PER_SHARD)]


def naive_client(folder: Path, nursery: Nursery, shards: int, orders: Iterable[Order]) -> Caught:
    """One process after the other, killed as ordered, and a last one that is left alone. No service fails."""
    found = Caught()
    with ground(folder, nursery, program="naive") as place:
        ids = _ids(shards)
        place.input_file(INPUT, ids)
        check_manners(place.run("submit", INPUT, "--max-requests-per-shard", str(PER_SHARD)))
        for order in orders:
            child = place.run("resume", orders=(order,))
            check_manners(child)
            found.kills.update(noted.removeprefix("kill ") for noted in child.carried_out)
        check_manners(place.run("resume"))
        assert not naive.unfinished(place.home)
        paid = payments(place)
        assert sorted(paid) == sorted(ids)
        found.requests = len(paid)
        found.paid_twice = sum(times > 1 for times in paid.values())
    return found


def random_deaths(seed: int, kills: int) -> list[Order]:
    """SIGKILLs at whatever failpoint, each within the next three shards or so."""
    roll = random.Random(seed)
    return [Order("kill", ANY, roll.randint(1, 12)) for _ in range(kills)]


def frozen_before_create(
    folder: Path, nursery: Nursery, program: Program, hit: int, *, shards: int = 2
) -> Audit:
    """A process freezes with a create in its hand, the `hit`-th; another one finishes the job; the first
    wakes, sends it, and dies before it can tell of a batch that came of it."""
    manners = Life((), lease_seconds=0.4)
    with ground(folder, nursery, program=program, manners=manners, LANGBATCH_GRACE_SECONDS="0.1") as place:
        ids = _ids(shards)
        place.input_file(INPUT, ids)
        submit = ("submit", INPUT, "--provider", "azure", "--max-requests-per-shard", str(PER_SHARD))
        orders = (
            Order("stop", "call.create_batch.before", hit),
            Order("kill", "call.create_batch.after", hit),
        )
        frozen = nursery.stopped(place.start(*submit, orders=orders))
        other = place.run(*RESUME)
        check_manners(other)
        assert other.code == 0, other.err
        nursery.signal(frozen, signal.SIGCONT)
        check_manners(nursery.ended(frozen))
        return audit(place, {INPUT: ids})


def unfenced(folder: Path, nursery: Nursery, hits: Sequence[int]) -> Caught:
    """langbatch without its fence, frozen before each of these creates in turn."""
    found = Caught()
    for hit in hits:
        audited = frozen_before_create(folder / str(hit), nursery, "unfenced", hit, shards=max(hits))
        found.requests += audited.requests
        found.paid_twice += audited.paid_twice
        found.stops += 1
    return found
