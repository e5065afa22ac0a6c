"""Every pair of failpoints in one job's course: somebody dies at the one, and a successor at the other."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement, product

from killing.enumerated import CANCELLED, Scenario
from killing.lives import Order

#: What a course without a cancel reaches, in the scenario that reaches the most.
CANCEL = ("call.cancel_batch.before", "call.cancel_batch.after")
#: Of the second process, whose remaining way is shorter.
_FURTHEST_OF_SUCCESSOR = 4


@dataclass(frozen=True, slots=True)
class Pair:
    """Two failpoints and the ways to die at both, tried in turn until one comes off."""

    names: tuple[str, str]
    scenario: Scenario
    ways: tuple[tuple[Order, ...], ...]


def all_pairs(scenario: Scenario, hits: Counter[str], seed: int) -> list[Pair]:
    """Ordered pairs of what the scenario's victim reaches `hits` times, and both failpoints of a cancel with
    everything."""
    roll = random.Random(seed)
    names = sorted(hits)
    found = []
    for first, second in product(names, names):
        early, late = roll.randint(1, hits[first]), roll.randint(1, min(hits[second], _FURTHEST_OF_SUCCESSOR))
        ways = [(early, late), (early, 1), (1, late), (1, 1)]
        orders = [(Order("kill", first, one), Order("kill", second, two)) for one, two in ways]
        found.append(Pair((first, second), scenario, tuple(dict.fromkeys(orders))))
    for cancel, other in product(CANCEL, sorted({*names, *CANCEL})):
        found.append(Pair((cancel, other), CANCELLED, (_around_a_cancel(cancel, other),)))
    return found


#: The first shard's batch exists when the second shard's process dies here.
_SECOND_UPLOAD = Order("kill", "call.upload.before", 2)
_SECOND_CREATE = Order("kill", "call.create_batch.before", 2)
#: Some rows have run by then, so that a cancelled batch has something to download.
_ON_ITS_WAY = Order("kill", "call.get_batch.after", 4)
_STARTS = {"list_batches": _SECOND_CREATE, "delete_file": _SECOND_CREATE, "download": _ON_ITS_WAY}


def _around_a_cancel(cancel: str, other: str) -> tuple[Order, ...]:
    """Deaths in `submit --wait`, in `cancel` and in `resume`, so that the course comes to both.

    Before a cancel a job still sends; after it, it looks for what may have been sent, polls and harvests.
    """
    verb = other.split(".")[1]
    at_cancel = Order("kill", cancel, 1)
    if verb in ("upload", "get_file", "create_batch"):
        return Order("kill", other, 2), at_cancel
    start = _STARTS.get(verb, _SECOND_UPLOAD)
    return start, at_cancel, Order("kill", other, 1)


def unordered(names: Iterable[str]) -> set[frozenset[str]]:
    """All pairs of these, each with itself too."""
    return {frozenset(pair) for pair in combinations_with_replacement(sorted(names), 2)}


def seen_together(courses: Iterable[Sequence[str]]) -> set[frozenset[str]]:
    """Pairs of failpoints at which somebody was killed in one and the same course."""
    return {frozenset(pair) for course in courses for pair in combinations(course, 2)}
