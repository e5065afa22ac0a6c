"""One step at one shard: what an action may use, and the few ways in which it may end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langbatch.clock import Clock
from langbatch.folders import JobFolder
from langbatch.lifecycle import Move
from langbatch.providers.base import Provider
from langbatch.records import Attempt, AttemptEnd, OnProgress, RemoteBatch, Shard, ShardView
from langbatch.running import decisions as d
from langbatch.store.store import JobStore
from langbatch.store.transitions import Claim, LostClaim

if TYPE_CHECKING:
    from concurrent.futures import Executor

#: What a move forward clears: the shard is well again.
CLEAR: dict[str, Any] = {
    "attention": None,
    "waits_for": None,
    "blocker": None,
    "troubles": 0,
    "crashes": 0,
    "not_before": 0.0,
    "due_at": 0.0,
}


@dataclass(frozen=True, slots=True)
class Step:
    """A claimed shard as seen at the step's beginning, and the means to act on it."""

    store: JobStore
    home: Path
    clock: Clock
    roll: Callable[[], float]
    policy: d.Policy
    on_progress: OnProgress | None
    claim: Claim
    view: ShardView
    executor: Executor | None = None

    @property
    def shard(self) -> Shard:
        return self.view.shard

    @property
    def attempt(self) -> Attempt:
        """The newest attempt; every state but `waiting` has one."""
        if self.view.attempt is None:
            raise AssertionError(f"a shard in {self.shard.state} has an attempt")
        return self.view.attempt

    @property
    def folder(self) -> JobFolder:
        return JobFolder.of(self.home, self.view.job.id)

    def again(self) -> Step:
        """The same step after a move of its own, reading the shard anew. `LostClaim` where another process
        has taken it over meanwhile: nothing may be sent any more."""
        view = self.store.view(self.claim.job, self.claim.index)
        if view.shard.fence != self.claim.fence:
            raise LostClaim("another process took this shard over")
        return replace(self, view=view)

    def move(
        self,
        move: Move,
        *,
        shard: dict[str, Any] | None = None,
        attempt: dict[str, Any] | None = None,
        note: str | None = None,
    ) -> None:
        """Apply a move from the state that the step has seen."""
        self.store.move(self.claim, self.shard.state, move, shard=shard, attempt=attempt, note=note)

    def record(self, **facts: Any) -> None:
        """Facts that change no state; see `JobStore.record`."""
        self.store.record(self.claim, **facts)

    def ended(self, how: AttemptEnd) -> dict[str, Any]:
        return {"ended_at": self.clock.now(), "ended_as": how}

    def set_back(self, setback: d.Setback, *, due_at: float | None = None) -> None:
        """Record trouble and when to look again (`due_at` None: after a growing wait); with the move that
        the trouble means, if any."""
        troubles = self.shard.troubles + 1
        shard = setback_facts(setback, troubles, self.policy, self.roll(), self.clock.now())
        if due_at:
            shard["due_at"] = due_at
        if setback.move is None:
            self.record(shard=shard, event="trouble", note=setback.code)
            return
        attempt = self.ended("file_unusable") if setback.move == "file_unusable" else None
        self.move(setback.move, shard=shard, attempt=attempt, note=setback.code)

    def ask_operator(self, move: Move, reason: str) -> None:
        """Stop the shard until a person settles it."""
        self.move(move, shard={**CLEAR, "attention": reason}, note=reason)


def setback_facts(
    setback: d.Setback, troubles: int, policy: d.Policy, roll: float, now: float
) -> dict[str, Any]:
    """What a shard's row remembers of trouble, its `troubles`-th in a row."""
    advice = setback.advice_seconds
    return {
        "troubles": troubles,
        "waits_for": setback.waits_for,
        "attention": setback.attention,
        "blocker": setback.blocker,
        "due_at": now + d.backoff_seconds(troubles, policy.poll_seconds, roll),
        "not_before": now + advice if advice else 0.0,
    }


Action = Callable[[Step, Provider], None]


def batch_facts(batch: RemoteBatch) -> dict[str, Any]:
    """What an attempt's row remembers of the provider's batch."""
    fault = batch.faults[0] if batch.faults else None
    facts: dict[str, Any] = {
        "batch_id": batch.id,
        "batch_status": batch.status,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "fault_code": fault.code if fault else None,
        "fault_message": fault.message if fault else None,
    }
    if batch.counts is not None:
        facts |= {
            "batch_total": batch.counts.total,
            "batch_completed": batch.counts.completed,
            "batch_failed": batch.counts.failed,
        }
    return facts
