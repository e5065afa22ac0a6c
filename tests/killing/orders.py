"""Which process of a storm is to die or freeze where. An order that was not carried out is given again."""

from __future__ import annotations

import random
from dataclasses import replace

from killing.lives import ANY, Act, Order

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
#: The highest hit of a named failpoint, and of whatever one.
_FURTHEST, _FURTHEST_ANY = 5, 250


class Orders:
    """Deals orders, one to a process.

    A process may end before it gets to the place that it was to die at. Its order then comes back at half
    the hit, in the end as the first hit of any failpoint, which nobody misses: so each is carried out after
    a few processes at most, however they share the work.
    """

    def __init__(self, roll: random.Random) -> None:
        self._roll = roll
        self._back: list[Order] = []

    def deal(self, wanted: set[Act]) -> tuple[Order, ...]:
        """What a new process is to do to itself, if anything, of the acts that are still wanted."""
        roll = self._roll
        if not wanted or roll.random() < 0.1:
            return ()
        for order in self._back:
            if order.act in wanted:
                self._back.remove(order)
                return (order,)
        act = roll.choice(sorted(wanted))
        if roll.random() < 0.5:
            return (Order(act, ANY, roll.randint(1, _FURTHEST_ANY)),)
        return (Order(act, roll.choice(_PLACES), roll.randint(1, _FURTHEST)),)

    def not_carried_out(self, order: Order) -> None:
        """Its process has ended, killed elsewhere or done."""
        self._back.append(weaker(order))


def weaker(order: Order) -> Order:
    """The same act, sooner."""
    if order.hit > 1:
        return replace(order, hit=order.hit // 2)
    return replace(order, name=ANY)
