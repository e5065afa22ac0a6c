"""Whose turn it is: every knob, and every move that seldom comes by itself, has a seed made for it.

Chance alone would leave some of them out of a short run, and another one after each change of the core.
Seeds take their turns by number; every second round is calm, so that little keeps the turn from coming true.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from langbatch.lifecycle import Move
from simulation.faults import ALL_KNOBS, RARE_MOMENTS, moment_of


@dataclass(frozen=True, slots=True)
class Turn:
    """`knobs` fire so many times, whenever they are drawn. `cancels`: people who cancel, at least."""

    name: str
    knobs: tuple[tuple[str, int], ...]
    cancels: int = 0
    retries: int = 0
    targets: int = 1


#: What must go wrong, so that calls are made at all whose faults these are.
_BROUGHT_BY: Mapping[str, str] = {
    "list_batches": "create_drop",
    "delete_file": "create_drop",
    "list_files": "upload_drop",
    "get_file": "file_error",
    "cancel_batch": "batch_slow",
}

_OF_MOVES: Mapping[Move, Turn] = {
    "batch_lost": Turn("batch_lost", (("batch_lost", 1),)),
    "cancelled_unsent": Turn("cancelled_unsent", (("upload_throttled", 500),), cancels=3),
    "moved_away": Turn("moved_away", (("create_unreachable", 1),), targets=2),
    "operator_adopts": Turn("operator_adopts", (("create_committed_drop", 1), ("list_trouble", 500))),
    "operator_resubmits": Turn("operator_resubmits", (("batch_lost", 1), ("batch_output_gone", 1))),
    "parked": Turn("parked", (("file_error", 6),)),
    "quota_bounced": Turn("quota_bounced", (("batch_bounced", 1),)),
    "results_withheld": Turn("results_withheld", (("batch_output_gone", 1),)),
    "retry_requested": Turn("retry_requested", (("row_errored", 1),), retries=2),
    "stopped_by_fence": Turn("stopped_by_fence", (("create_late_unchecked", 1),)),
    "unsettled": Turn("unsettled", (("create_drop", 1), ("delete_refused", 9))),
}


def _of_knob(knob: str) -> Turn:
    moment = moment_of(knob)
    knobs = [(knob, 2)]
    if (bringer := _BROUGHT_BY.get(moment)) is not None:
        knobs.append((bringer, 2))
    return Turn(knob, tuple(knobs), cancels=3 if moment == "cancel_batch" else 0)


TURNS: tuple[Turn, ...] = (*map(_of_knob, ALL_KNOBS), *_OF_MOVES.values())
#: Seeds in which everything has had its turn twice: once among whatever else goes wrong, and once in calm.
TWO_ROUNDS = 2 * len(TURNS)


def turn_of(number: int) -> tuple[Turn, bool]:
    """The turn of this seed, and whether its round is a calm one."""
    rounds, place = divmod(number, len(TURNS))
    return TURNS[place], rounds % 2 == 1


def calm_seeds(name: str, count: int) -> list[str]:
    """The first `count` seeds in which this knob or move has its turn in calm."""
    place = [turn.name for turn in TURNS].index(name)
    return [str(place + (2 * number + 1) * len(TURNS)) for number in range(count)]


def rate_of(knob: str) -> float:
    """How often the knob of a turn fires where it is drawn. Commits and points are passed by the hundred."""
    moment = moment_of(knob)
    return 0.2 if moment == "commit" else 0.05 if moment in RARE_MOMENTS else 1.0
