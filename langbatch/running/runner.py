"""The only loop: take a shard's claim, ask what to do, do one thing, record what came of it.

`step` is idempotent: any process may call it at any time, and it dies harmlessly anywhere. The order
inside each action is the promise "pay once": intent committed, call made, reply committed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Hashable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from langbatch import detaching
from langbatch.clock import Clock, SystemClock
from langbatch.errors import (
    BatchStorageError,
    LangBatchError,
    ProviderError,
    Refused,
    RemoteNotFound,
    SetupError,
)
from langbatch.providers.base import Provider
from langbatch.records import Attempt, Job, OnProgress, RemoteBatch, Target
from langbatch.running import creating, fate, harvesting, journal, placing, uploading, watching
from langbatch.running import decisions as d
from langbatch.running.leases import kept
from langbatch.running.observing import Habits, Look, Observer, Spot, endpoint_of
from langbatch.running.step import Step
from langbatch.store.extra_batches import note_extra_batch
from langbatch.store.store import JobStore
from langbatch.store.transitions import Claim, LostClaim

if TYPE_CHECKING:
    from concurrent.futures import Executor

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
    #: What shares one list of batches: by default, what a stored target tells of it.
    endpoint_for: Callable[[Job, int], Hashable] = lambda job, place: endpoint_of(job.targets[place])
    #: What was learnt about the lists; shared by the runners of one process.
    habits: Habits = field(default_factory=dict)
    #: Reads results in byte ranges, where there is one.
    executor: Executor | None = None
    #: Called after each step, and after each cycle, once what it did is committed.
    on_step: Callable[[], None] | None = None

    def advance(
        self, of_jobs: int | Collection[int] | None = None, *, eager: bool = False, look: Look | None = None
    ) -> float | None:
        """Move everything that may move now; seconds until the next look, None when all has ended.

        `look`: a first look that was made for these jobs and others together."""
        journal.replay(self.store, self.home, self._stop)
        keys = [of_jobs] if isinstance(of_jobs, int) else of_jobs
        found = self.look(keys, eager=eager) if look is None else look
        soonest: float | None = None
        for key, index, due_at, not_before in self.store.unfinished_shards(keys):
            wait = self._turn((key, index), due_at, not_before, found, eager=eager)
            if wait is not None:
                soonest = wait if soonest is None else min(soonest, wait)
        if self.on_step is not None:
            self.on_step()
        return soonest

    def look(self, of_jobs: Collection[int] | None = None, *, eager: bool = False) -> Look:
        """Look at the running batches of these jobs, or of all, by lists where that takes fewer calls."""
        return self._observer.look(of_jobs, eager=eager)

    @property
    def _observer(self) -> Observer:
        return Observer(
            self.store,
            self.clock,
            self.roll,
            self.open_provider,
            self.policy_for,
            self.endpoint_for,
            self.habits,
        )

    def _turn(
        self, spot: Spot, due_at: float, not_before: float, found: Look, *, eager: bool
    ) -> float | None:
        """One shard's part of a cycle, after the first look; as `step`."""
        now = self.clock.now()
        if spot in found.recorded:
            return max(0.0, found.recorded[spot] - now)
        if (batch := found.ended.pop(spot, None)) is not None:
            return self._step(spot, eager=True, batch=batch)[0]
        due = not_before if eager else max(due_at, not_before)
        if due > now or spot in found.later:
            return max(0.0, due - now)
        group = found.groups.get(spot)
        if group is None:
            return self._step(spot, eager=eager)[0]
        if group.looks_left <= 0:
            return max(due_at - now, group.pause_seconds)
        wait, error = self._step(spot, eager=eager)
        self._observer.looked(found, spot, error)
        return wait

    def step(self, job: int, index: int, *, eager: bool = False) -> float | None:
        """Advance one shard as far as it goes now; seconds until the next look, None when it has ended."""
        return self._step((job, index), eager=eager)[0]

    def _step(
        self, spot: Spot, *, eager: bool, batch: RemoteBatch | None = None
    ) -> tuple[float | None, LangBatchError | None]:
        """As `step`, with what went wrong last. `batch`: as a list has just shown it."""
        error: LangBatchError | None = None
        claim = self.store.claim(*spot)
        if claim is None:
            return HELD_ELSEWHERE_SECONDS, None
        try:
            while True:
                detaching.check()
                step = self._begin(claim)
                now = self.clock.now()
                action = d.decide(step.view, now, eager=eager)
                eager = False
                if isinstance(action, d.Nothing):
                    return None, error
                if isinstance(action, d.Wait):
                    return max(0.0, action.until - now), error
                if isinstance(action, d.Poll) and batch is not None and batch.id == step.attempt.batch_id:
                    watching.observe(step, batch)
                else:
                    error = self._perform(step, action)
                batch = None
        except LostClaim:
            # We were frozen, perhaps with a batch in our hand that nobody else knows of.
            journal.replay(self.store, self.home, self._stop)
            return HELD_ELSEWHERE_SECONDS, None
        finally:
            self.store.release(claim)
            if self.on_step is not None:
                self.on_step()

    def _stop(self, attempt: Attempt, batch_id: str) -> bool:
        """A batch that was made while its process was frozen, and given up by the others: it would be paid
        beside the one that counts. False where the service cannot be told now."""
        batch, end = RemoteBatch(batch_id, "unknown"), "the service does not know it"
        try:
            provider = self.open_provider(self.store.job(attempt.job), attempt.target)
            try:
                batch, end = provider.cancel_batch(batch_id), "cancelled"
            except Refused:
                batch, end = provider.get_batch(batch_id), "ended by itself"
        except RemoteNotFound:
            pass
        except (ProviderError, SetupError):
            return False
        note_extra_batch(self.store, attempt.job, attempt.shard, attempt.number, batch, end)
        return True

    def _begin(self, claim: Claim) -> Step:
        view = self.store.view(claim.job, claim.index)
        policy = self.policy_for(view.target)
        return Step(
            self.store, self.home, self.clock, self.roll, policy, self.on_progress, claim, view, self.executor
        )

    def _perform(self, step: Step, action: d.Action) -> LangBatchError | None:
        """One action. What goes wrong says nothing about the job, only when to look again."""
        try:
            with kept(self.store, step.claim) if self.renews else nullcontext():
                if _act_alone(step, action):
                    return None
                if isinstance(action, d.Upload):
                    place = placing.find_place(step)
                    if place is not None:
                        uploading.upload(step, self.open_provider(step.view.job, place), place)
                else:
                    _act(step, action, self.open_provider(step.view.job, step.view.place))
        except SetupError as error:
            step.again().set_back(d.Setback(error.message, blocker="setup", code=error.code))
            return error
        except ProviderError as error:
            step.again().set_back(d.after_read_error(error, _DOING[type(action)]))
            return error
        except (BatchStorageError, OSError) as error:
            # A file could not be written. Where the database is the trouble, this write raises it again.
            text = error.message if isinstance(error, BatchStorageError) else str(error)
            try:
                step.again().set_back(d.Setback(f"local files: {text}", blocker="disk", code="storage"))
            except BatchStorageError:
                if isinstance(error, BatchStorageError):
                    raise error from None  # it says more
                raise
        return None


def _act_alone(step: Step, action: d.Action) -> bool:
    """Actions that need no service, so that missing credentials do not stand in their way."""
    match action:
        case d.DoubtCreate():
            fate.doubt(step)
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
            fate.look(step, provider)
        case d.Fence():
            fate.fence(step, provider)
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
