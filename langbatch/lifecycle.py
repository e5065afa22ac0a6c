"""The life of a shard: every state, every move, in one table. Nothing else changes a state.

Rules: a move not in `MOVES` raises `IllegalMove` and changes nothing; the store applies a move as
one conditional update on the expected state, with its event, in one transaction. A job has no life
of its own: `job_state` reads it off its shards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from langbatch.records import (
    TERMINAL_BATCH_STATUSES,
    Blocker,
    JobState,
    ShardEnd,
    ShardState,
)

#: What each state means: who puts a shard there, what takes it out, what a crash leads to.
STATES: Mapping[ShardState, str] = MappingProxyType(
    {
        "waiting": "Nothing is in flight. Set at submission, by retry, and after fruitless attempts. "
        "Left by an upload, or by cancel. Crash: nothing to find.",
        "uploading": "The upload's intent is stored, its reply is not. Crash: the service's files are listed "
        "for the attempt's unique name.",
        "uploaded": "The file's id is stored. Left by a create once the file is ready and there is room. "
        "Crash: goes on.",
        "creating": "The create's intent is stored, its reply is not. Crash: the fate is unknown.",
        "uncertain": "A batch may or may not exist. Left when a listing shows it, or by the fence. "
        "Crash: listed again.",
        "fencing": "The input file is being deleted, so that a create still under way must fail; batches are "
        "listed until the grace period is over. Crash: deleted and listed again.",
        "active": "The batch's id is stored. Left when the batch has ended. Crash: polled again.",
        "harvesting": "The batch has ended; its files are fetched and joined. Crash: fetched again.",
        "done": "Every request of the shard has a result. Left only by retry.",
        "needs_operator": "The truth cannot be found from here. Left by `langbatch reconcile`, or by a "
        "process that was frozen with the batch's id in its hand.",
    }
)

Move = Literal[
    "upload_begins",
    "upload_answered",
    "upload_not_now",
    "upload_lost",
    "upload_refused",
    "file_unusable",
    "moved_away",
    "create_begins",
    "create_answered",
    "create_not_now",
    "create_refused",
    "create_fate_unknown",
    "batch_found",
    "fence_begins",
    "batch_ruled_out",
    "batch_ended",
    "batch_lost",
    "quota_bounced",
    "stopped_by_fence",
    "harvested",
    "results_withheld",
    "unsettled",
    "parked",
    "cancelled_unsent",
    "operator_adopts",
    "operator_resubmits",
    "retry_requested",
]


@dataclass(frozen=True, slots=True)
class Rule:
    """From which states a move leads, where to, and the fact it records."""

    origins: frozenset[ShardState]
    to: ShardState
    meaning: str


def _rule(origins: str, to: ShardState, meaning: str) -> Rule:
    return Rule(frozenset(origins.split()), to, meaning)  # type: ignore[arg-type]


MOVES: Mapping[Move, Rule] = MappingProxyType(
    {
        "upload_begins": _rule("waiting", "uploading", "an upload is about to be sent"),
        "upload_answered": _rule(
            "uploading", "uploaded", "the service gave the file an id, or a listing showed it"
        ),
        "upload_not_now": _rule(
            "uploading", "waiting", "certainly nothing was stored; the same attempt goes on later"
        ),
        "upload_lost": _rule("uploading", "waiting", "no file under the attempt's name; the attempt is over"),
        "upload_refused": _rule("uploading", "done", "the service refuses this input for good"),
        "file_unusable": _rule(
            "uploaded creating", "waiting", "the service could not take in the file; the attempt is over"
        ),
        "moved_away": _rule(
            "uploaded",
            "waiting",
            "its target has no room or takes no calls, another has; the attempt is over",
        ),
        "create_begins": _rule("uploaded", "creating", "a create is about to be sent"),
        "create_answered": _rule("creating", "active", "the service gave the batch an id"),
        "create_not_now": _rule(
            "creating", "uploaded", "certainly no batch was made; the same file is used later"
        ),
        "create_refused": _rule("creating", "done", "the service refuses this batch for good"),
        "create_fate_unknown": _rule("creating", "uncertain", "the reply was lost, or this process died"),
        "batch_found": _rule(
            "uncertain fencing needs_operator",
            "active",
            "a listing showed the attempt's batch, or the journal named it",
        ),
        "fence_begins": _rule("uncertain", "fencing", "the input file is about to be deleted"),
        "batch_ruled_out": _rule("fencing", "waiting", "fenced, and absent over the whole grace period"),
        "batch_ended": _rule("active", "harvesting", "the batch reached a terminal status"),
        "batch_lost": _rule("active", "needs_operator", "the service no longer knows the batch"),
        "quota_bounced": _rule("active", "waiting", "validation ended in token_limit_exceeded: nothing ran"),
        "stopped_by_fence": _rule(
            "active", "waiting", "it failed for want of its input file, which we had deleted: nothing ran"
        ),
        "harvested": _rule("harvesting", "done", "files fetched and joined"),
        "results_withheld": _rule(
            "harvesting", "needs_operator", "the service reports rows but offers no file"
        ),
        "unsettled": _rule(
            "uncertain fencing", "needs_operator", "the list cannot be read, or the fence not be set"
        ),
        "parked": _rule("waiting uploaded harvesting", "needs_operator", "attempts come to nothing"),
        "cancelled_unsent": _rule("waiting uploaded", "done", "cancelled before a batch existed"),
        "operator_adopts": _rule("needs_operator", "active", "a person named the batch"),
        "operator_resubmits": _rule("needs_operator", "waiting", "a person decided that no batch counts"),
        "retry_requested": _rule("done", "waiting", "requests without success are to be sent again"),
    }
)


class IllegalMove(RuntimeError):
    """A move that the table does not know from this state: a bug, or another process was faster."""


def destination(state: ShardState, move: Move) -> ShardState:
    """The state that `move` leads to from `state`; `IllegalMove` where there is none."""
    rule = MOVES[move]
    if state not in rule.origins:
        raise IllegalMove(f"{move} does not lead out of {state}")
    return rule.to


#: In these states a batch may exist that costs money, so the shard is not abandoned.
MAY_COST: frozenset[ShardState] = frozenset({"creating", "uncertain", "fencing", "active", "harvesting"})
UNFINISHED: frozenset[ShardState] = frozenset(STATES) - {"done"}
SETTLED_JOB_STATES: frozenset[JobState] = frozenset({"completed", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class ShardSummary:
    """What a job's state depends on, of one shard."""

    state: ShardState
    blocker: Blocker | None
    ended_as: ShardEnd | None
    batch_status: str | None


def job_state(shards: Iterable[ShardSummary]) -> JobState:
    """The job's state from its shards. No shards: `draft` (saved, never started)."""
    seen = list(shards)
    if not seen:
        return "draft"
    if any(s.state == "needs_operator" for s in seen):
        return "needs_operator"
    unfinished = [s for s in seen if s.state != "done"]
    if any(s.blocker for s in unfinished):
        return "paused"
    if unfinished:
        return "running"
    if any(s.ended_as == "cancelled" for s in seen):
        return "cancelled"
    if all(s.ended_as == "refused" for s in seen):
        return "failed"
    return "completed"


BatchWord = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]


def batch_word(state: JobState, cancel_requested: bool, shards: Iterable[ShardSummary]) -> BatchWord:
    """The job in OpenAI's eight words, so that a program written for one batch can read a job.

    `completed` is said only once results can be read; until then an ended batch is `finalizing`.
    """
    seen = list(shards)
    if state == "failed":
        return "failed"
    if state == "cancelled":
        return "cancelled"
    if state == "completed":
        return "expired" if seen and all(s.ended_as == "expired" for s in seen) else "completed"
    if cancel_requested:
        return "cancelling"
    statuses = [s.batch_status for s in seen if s.state in ("active", "harvesting", "done")]
    if (
        statuses
        and len(statuses) == len(seen)
        and all(s in TERMINAL_BATCH_STATUSES or s == "finalizing" for s in statuses)
    ):
        return "finalizing"
    if any(s not in (None, "validating") for s in statuses):
        return "in_progress"
    return "validating"
