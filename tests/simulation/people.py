"""Those who use it: they submit (the same bytes twice, at once), cancel, retry, and settle what needs a person."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from langbatch.errors import BatchStateError, ProviderError
from langbatch.lifecycle import SETTLED_JOB_STATES
from langbatch.providers import limits_for
from langbatch.records import Attempt, Job, Shard, Target
from langbatch.requests.validation import Rules
from langbatch.running import settlement
from langbatch.shards.admission import admit
from langbatch.store.store import JobStore
from simulation.batches import NEVER, StoredBatch
from simulation.processes import Process

if TYPE_CHECKING:
    from simulation.world import World

#: A job may go to the first of these alone, or to both: two resources, of which each knows only its own files.
TARGETS = tuple(Target("azure", f"{host}.example", "chat_completions") for host in ("simulated", "elsewhere"))
RULES = Rules(kind=TARGETS[0].kind, provider=TARGETS[0].provider, limits=limits_for(TARGETS[0]))


class Submitter(Process):
    """Submits a file, and again after every death until it is told the job's id."""

    def __init__(self, world: World, name: str, source: Path, per_shard: int) -> None:
        super().__init__(world, name)
        self._source = source
        self._per_shard = per_shard
        self.job_id: str | None = None

    def finished(self) -> bool:
        return self.job_id is not None

    def live(self, store: JobStore) -> None:
        world = self.world
        world.ids_given += 1
        submission = admit(
            store,
            world.home,
            world.clock,
            self._source,
            TARGETS[0],
            RULES,
            others=TARGETS[1 : world.cast.targets],
            max_requests_per_shard=self._per_shard,
            dedupe=world.cast.repeats > 1,
            # Ids are random otherwise, and a seed would not replay exactly.
            job_id=f"job_{world.ids_given:026d}",
        )
        self.job_id = submission.id
        self.note(f"submitted {submission.id} {submission.created}")


class Errand(Process):
    """One thing that somebody does at some moment; tried again if they die over it."""

    def __init__(self, world: World, name: str, act: Callable[[Errand, JobStore], object]) -> None:
        super().__init__(world, name)
        self._act = act
        self._done = False

    def finished(self) -> bool:
        return self._done

    def live(self, store: JobStore) -> None:
        self._act(self, store)
        self._done = True


def cancel_all(person: Process, store: JobStore) -> None:
    """Somebody changes their mind."""
    for job in store.jobs(unfinished=True):
        store.request_cancel(job.key)
        person.note(f"cancels {job.id}")


def retry_all(person: Process, store: JobStore) -> bool:
    """Retry what ended without every success; whether there was any."""
    found = False
    for job in store.jobs():
        if job.state in SETTLED_JOB_STATES and job.tally.succeeded < job.total:
            person.note(f"retries {job.id}")
            _told(person, lambda job=job: settlement.retry(store, person.world.home, job))  # type: ignore[misc]
            found = True
    return found


def settle_all(person: Process, store: JobStore) -> None:
    """A truthful operator, who sees the service as it is, not as its lists show it."""
    person.world.catch_up()
    for job in store.jobs(unfinished=True):
        if job.state != "needs_operator":
            continue
        for shard, attempt in store.shards(job.key):
            if shard.state == "needs_operator":
                _settle(person, store, job, shard, attempt)


class Keeper(Process):
    """Looks in from time to time: settles what needs an operator, and retries what ended without success."""

    def __init__(self, world: World, name: str, retries: int) -> None:
        super().__init__(world, name)
        self._retries = retries

    def finished(self) -> bool:
        return self.world.settled()

    def live(self, store: JobStore) -> None:
        world = self.world
        while not self.finished():
            settle_all(self, store)
            if self._retries and retry_all(self, store):
                self._retries -= 1
            everybody_submitted = all(person.finished() for person in world.submitters)
            if everybody_submitted and not self._may_retry(store.jobs()):
                world.retries_left = False
            world.stage.rest(self.rng.uniform(600, 3_600))

    def _may_retry(self, jobs: list[Job]) -> bool:
        return self._retries > 0 and any(
            job.state not in SETTLED_JOB_STATES or job.tally.succeeded < job.total for job in jobs
        )


def _told(person: Process, act: Callable[[], None]) -> None:
    """What a person is refused they try again another time."""
    try:
        act()
    except (BatchStateError, ProviderError) as error:
        person.note(f"is told {error.code}")


def _settle(person: Process, store: JobStore, job: Job, shard: Shard, attempt: Attempt | None) -> None:
    world, now = person.world, person.world.clock.now()
    good: list[StoredBatch] = []
    if attempt is not None and attempt.ended_at is None:
        if attempt.batch_id is None and _may_still_come(person, job, shard, attempt):
            return
        made = [batch for batch in world.batches if batch.file.name == attempt.name]
        if any(_better_later(batch, now) for batch in made):
            return
        good = [b for b in made if not b.denied(now) and not (b.id == attempt.batch_id and b.offers_nothing)]
    world.log.settles(person.name, shard, "adopt" if good else "resubmit")
    if good:
        _told(person, lambda: settlement.adopt(store, person.provider, job, good[0].id, shard.index))
    else:
        for service in world.services:
            service.resubmitted = True
        _told(person, lambda: settlement.resubmit(store, person.provider, world.clock, job, shard.index))


def _may_still_come(person: Process, job: Job, shard: Shard, attempt: Attempt) -> bool:
    """Whether a create is under way that `--resubmit` could not stop, so that one must wait for it: the file
    cannot be deleted, or deleting it takes a while to count."""
    world = person.world
    service = world.services[attempt.target]
    if any(call.file_id == attempt.file_id for call in service.late if call.file_id):
        return True
    stoppable = not service.fence_lag and not world.plan.fired["delete_refused"]
    others = (process for process in world.processes.values() if process is not person)
    return not stoppable and any(process.holds == (job.key, shard.index) for process in others)


def _better_later(batch: StoredBatch, now: float) -> bool:
    """A batch that will be seen, known again or finished in a while: better to wait than to pay twice."""
    hides = batch.denied(now) and batch.hidden[1] != NEVER
    strange = batch.strange[0] <= now < batch.strange[1]
    return hides or strange or now < batch.output_late_until
