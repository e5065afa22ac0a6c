"""Jobs of many shards in the simulated world, where lists lag, break off and repeat, and processes die."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from simulation.judge import judge
from simulation.world import Arena, World, arena

SEEDS = range(12)
SHARDS = 7


@pytest.fixture(scope="module")
def place() -> Iterator[Arena]:
    with arena() as made:
        yield made


def play(seed: int, place: Arena) -> World:
    world = World.of_seed(f"polling {seed}", place)
    world.cast.shards, world.cast.per_shard = SHARDS, 1
    world.plan.arm(("list_trouble", "list_throttled", "list_partial", "list_repeats")[seed % 4], times=3)
    world.play()
    return world


def test_moves_by_listing_break_no_promise_whatever_goes_wrong(place: Arena) -> None:
    calls: Counter[str] = Counter()
    for seed in SEEDS:
        world = play(seed, place)
        assert judge(world).wrong == [], f"seed {seed}\n{world.log.tail()}"
        calls.update(world.log.points)
    # Otherwise the lists were not used, and nothing was shown.
    assert calls["call.list_batches.after"] > len(SEEDS) * SHARDS
