"""The only loop: take a shard's claim, ask what to do, do one thing, record what came of it.

`step` is idempotent: any process may call it at any time, and it dies harmlessly anywhere. The order
inside each action is the promise "pay once": intent committed, call made, reply committed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from langbatch.clock import Clock, SystemClock
from langbatch.errors import BatchStorageError, ProviderError, SetupError
from langbatch.providers.base import Provider
from langbatch.records import Job, OnProgress, Target
from langbatch.running import creating, harvesting, placing, uploading, watching
from langbatch.running import decisions as d
from langbatch.running.leases import kept
from langbatch.running.step import Step
from langbatch.store.store import JobStore
from langbatch.store.transitions import Claim, LostClaim

#: When another live process holds a shard, look again after this many seconds.
HELD_ELSEWHERE_SECONDS = 2.0


@dataclass(slots=True)
class Runner:
    """Advances the jobs of one store. `open_provider` finds credentials for a target, named by its place
    among the job's; `policy_for` the waits there."""

    store: JobStore
    home: Path
    open_provider: Callable[[Job, int], Provider]
    policy_for: Callable[[Target], d.Policy]
    clock: Clock = field(default_factory=SystemClock)
    roll: Callable[[], float] = random.random
    on_progress: OnProgress | None = None
    #: Whether claims are renewed from a thread during long calls; off under a virtual clock.
    renews: bool = True

    def advance(self, job: int | None = None, *, eager: bool = False) -> float | None:
        """Move everything that may move now; seconds until the next look, None when all has ended."""
        soonest: float | None = None
        for key, index, due_at, not_before in self.store.unfinished_shards(job):
            now = self.clock.now()
            due = not_before if eager else max(due_at, not_before)
            wait = self.step(key, index, eager=eager) if due <= now else due - now
            if wait is not None:
                soonest = wait if soonest is None else min(soonest, wait)
        return soonest

    def step(self, job: int, index: int, *, eager: bool = False) -> float | None:
        """Advance one shard as far as it goes now; seconds until the next look, None when it has ended."""
        claim = self.store.claim(job, index)
        if claim is None:
            return HELD_ELSEWHERE_SECONDS
        try:
            while True:
                step = self._step(claim)
                now = self.clock.now()
                action = d.decide(step.view, now, eager=eager)
                eager = False
                if isinstance(action, d.Nothing):
                    return None
                if isinstance(action, d.Wait):
                    return max(0.0, action.until - now)
                self._perform(step, action)
        except LostClaim:
            return HELD_ELSEWHERE_SECONDS
        finally:
            self.store.release(claim)

    def _step(self, claim: Claim) -> Step:
        view = self.store.view(claim.job, claim.index)
        policy = self.policy_for(view.target)
        return Step(self.store, self.home, self.clock, self.roll, policy, self.on_progress, claim, view)

    def _perform(self, step: Step, action: d.Action) -> None:
        """One action. What it raises says nothing about the job, only when to look again."""
        try:
            with kept(self.store, step.claim) if self.renews else nullcontext():
                if _act_alone(step, action):
                    return
                if isinstance(action, d.Upload):
                    place = placing.find_place(step)
                    if place is not None:
                        uploading.upload(step, self.open_provider(step.view.job, place), place)
                else:
                    _act(step, action, self.open_provider(step.view.job, step.view.place))
        except SetupError as error:
            step.again().set_back(d.Setback(error.message, blocker="setup", code=error.code))
        except ProviderError as error:
            step.again().set_back(d.after_read_error(error, _DOING[type(action)]))
        except (BatchStorageError, OSError) as error:
            # A file could not be written. Where the database is the trouble, this write raises it again.
            text = error.message if isinstance(error, BatchStorageError) else str(error)
            step.again().set_back(d.Setback(f"local files: {text}", blocker="disk", code="storage"))


def _act_alone(step: Step, action: d.Action) -> bool:
    """Actions that need no service, so that missing credentials do not stand in their way."""
    match action:
        case d.DoubtCreate():
            creating.doubt(step)
        case d.SettleCancelled():
            harvesting.settle(
                step, "cancelled_unsent", "cancelled", "cancelled", "cancelled before it was sent"
            )
        case d.Park(reason):
            step.ask_operator("parked", reason)
        case _:
            return False
    return True


def _act(step: Step, action: d.Action, provider: Provider) -> None:
    match action:
        case d.FindUpload():
            uploading.find_upload(step, provider)
        case d.CheckFile():
            uploading.check_file(step, provider)
        case d.Create():
            creating.create(step, provider)
        case d.LookForBatch():
            creating.look(step, provider)
        case d.Fence():
            creating.fence(step, provider)
        case d.Poll():
            watching.poll(step, provider)
        case d.CancelBatch():
            watching.cancel(step, provider)
        case d.Harvest():
            harvesting.harvest(step, provider)
        case _:
            raise AssertionError(f"{action} is not done with a provider")


_DOING: dict[type[d.Action], str] = {
    d.Upload: "uploading",
    d.FindUpload: "looking for the upload",
    d.CheckFile: "checking the file",
    d.Create: "creating the batch",
    d.LookForBatch: "listing batches",
    d.Fence: "deleting the input file",
    d.Poll: "polling",
    d.CancelBatch: "cancelling",
    d.Harvest: "downloading",
}
