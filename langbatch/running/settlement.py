"""What a person decides about a job that langbatch does not move by itself: retry, adopt, resubmit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from langbatch.clock import Clock
from langbatch.errors import AccessRefused, BatchStateError, ProviderError, Refused, RemoteNotFound
from langbatch.folders import JobFolder
from langbatch.lifecycle import SETTLED_JOB_STATES
from langbatch.providers.base import Provider
from langbatch.records import TERMINAL_BATCH_STATUSES, Attempt, Job, RemoteBatch
from langbatch.running.decisions import ATTEMPTS_IN_VAIN, SENT_BEFORE
from langbatch.running.fate import TAG, is_of
from langbatch.running.step import CLEAR, batch_facts
from langbatch.shards.budgeting import bounds_of_pending, pricing_for
from langbatch.shards.names import read_name
from langbatch.shards.snapshot import Snapshot
from langbatch.store import ledger
from langbatch.store.commitments import NOTHING
from langbatch.store.store import JobStore
from langbatch.store.transitions import Claim
from langbatch.targets import account_label


def retry(store: JobStore, home: Path, job: Job, *, force: bool = False) -> None:
    """Open again every shard with requests that have no success. Successes stay.

    A shard whose last three paid attempts brought no further success is left as it ended, unless `force`:
    its requests most likely fail again, and cost again. `BatchStateError` where only such are left.
    """
    if job.state not in SETTLED_JOB_STATES:
        raise BatchStateError(
            f"job {job.id} is {job.state}: only a finished job can be retried",
            hint=f"`langbatch status {job.id}` names the commands that settle it."
            if job.state == "needs_operator"
            else f"Wait for it (`langbatch watch {job.id}`), or cancel it first.",
        )
    short = [
        shard
        for shard, _ in store.shards(job.key)
        if shard.state == "done" and shard.tally.succeeded < shard.tally.total
    ]
    chosen = [shard for shard in short if force or shard.in_vain < ATTEMPTS_IN_VAIN]
    if short and not chosen:
        requests = sum(shard.tally.total - shard.tally.succeeded for shard in short)
        raise BatchStateError(
            f"the last {ATTEMPTS_IN_VAIN} paid attempts of job {job.id} brought no further success: "
            f"{requests} requests fail each time",
            hint=f"`langbatch fetch {job.id}` says why each failed; `langbatch retry {job.id} --force` "
            "pays for another attempt all the same.",
        )
    # First, so that a crash in between never leaves yesterday's results standing for today's.
    JobFolder.of(home, job.id).results.unlink(missing_ok=True)
    bounds = {}
    if job.has_budget:
        pricing = pricing_for(store, home, job.targets, [shard.model for shard in chosen])
        snapshot = Snapshot(JobFolder.of(home, job.id).path)
        bounds = {s.index: bounds_of_pending(store, snapshot, job, s, pricing) for s in chosen}
    for shard in chosen:
        with _claimed(store, job, shard.index) as claim:
            store.reopen(claim, bounds.get(shard.index))


def adopt(
    store: JobStore, open_at: Callable[[int], Provider], job: Job, batch_id: str, shard: int | None
) -> None:
    """Take `batch_id` for the batch of the shard that needs an operator. `open_at` opens the target at a
    place among the job's."""
    index, attempt = _stuck(store, job, shard)
    if attempt is None:
        raise BatchStateError(
            f"shard {index} of job {job.id} has sent nothing, so no batch can be its own",
            hint=f"`langbatch reconcile {job.id} --resubmit` lets it begin.",
        )
    try:
        place, batch = _find_batch(open_at, job, attempt, batch_id)
    except RemoteNotFound as error:
        raise BatchStateError(
            f"the service knows no batch {batch_id}: {error.message}",
            hint="Nothing was changed. Its portal, or `GET /batches`, lists the batches that there are.",
        ) from error
    _refuse_others_batch(store, job, attempt, batch)
    facts = {**batch_facts(batch), "target": place, "ended_at": None, "ended_as": None}
    with _claimed(store, job, index) as claim:
        store.move(claim, "needs_operator", "operator_adopts", shard=CLEAR, attempt=facts, note=batch_id)


def resubmit(
    store: JobStore, open_at: Callable[[int], Provider], clock: Clock, job: Job, shard: int | None
) -> None:
    """Let the shard that needs an operator begin anew; a batch it may have had no longer counts.

    The operator saw no batch, but cannot see a create still under way, or a process frozen before one.
    So the old input file goes first, and such a create fails when it comes.
    """
    index, attempt = _stuck(store, job, shard)
    if attempt is not None and attempt.file_id is not None and attempt.batch_id is None:
        try:
            open_at(attempt.target).delete_file(attempt.file_id)
        except (RemoteNotFound, Refused):
            pass  # gone, or not to be deleted by us: the operator's word must do
        except AccessRefused as error:
            if error.status != 403:
                raise
    if attempt is not None and attempt.batch_id and attempt.batch_status not in TERMINAL_BATCH_STATUSES:
        with suppress(ProviderError):
            # Nobody will read what it still runs.
            open_at(attempt.target).cancel_batch(attempt.batch_id)
    if attempt is not None and attempt.account is not None:
        ledger.forget(store, [account_label(target, None) for target in job.targets] + [attempt.account])
    ended: dict[str, Any] = {"ended_at": clock.now(), "ended_as": "resubmitted"}
    if attempt is not None and attempt.create_intent_at is None:
        ended |= NOTHING
    over = attempt is None or attempt.ended_as == "harvested"
    with _claimed(store, job, index) as claim:
        store.move(
            claim,
            "needs_operator",
            "operator_resubmits",
            shard=CLEAR,
            attempt={} if over else ended,
            note=attempt.name if attempt else None,
        )


def _refuse_others_batch(store: JobStore, job: Job, attempt: Attempt, batch: RemoteBatch) -> None:
    """`BatchStateError` where a batch is seen to belong to another shard, job or store."""
    owner = store.attempt_with_batch(batch.id)
    reason = None
    if owner is not None and owner.name != attempt.name:
        reason = f"batch {batch.id} belongs to another attempt, {owner.name}"
    elif not is_of(batch, attempt):
        tag = (batch.metadata or {}).get(TAG)
        if tag is not None:
            parts = read_name(tag)
            if parts is None or (parts.job_id, parts.shard) != (job.id, attempt.shard):
                reason = f"batch {batch.id} bears another shard's tag, {tag}"
        elif batch.input_file_id and attempt.file_id and not _may_read_another_file(attempt, batch):
            reason = f"batch {batch.id} reads {batch.input_file_id}, but this shard sent {attempt.file_id}"
    if reason is not None:
        raise BatchStateError(
            reason, hint="Adopting it would give requests the results of others. Look for the right batch."
        )


def _may_read_another_file(attempt: Attempt, batch: RemoteBatch) -> bool:
    """Whether a person may know better: the service itself named this batch, or an upload from before is not
    known here any more."""
    return attempt.fault_code == SENT_BEFORE or batch.id in (attempt.fault_message or "")


def _find_batch(
    open_at: Callable[[int], Provider], job: Job, attempt: Attempt, batch_id: str
) -> tuple[int, RemoteBatch]:
    """The batch, and the place of the target that has it. An attempt whose file is known is where that is; of
    one that a recovery knows nothing of, the target is not known either."""
    places = [attempt.target]
    if attempt.file_id is None:
        places += [place for place in range(len(job.targets)) if place != attempt.target]
    for place in places[:-1]:
        try:
            return place, open_at(place).get_batch(batch_id)
        except RemoteNotFound:
            continue
    return places[-1], open_at(places[-1]).get_batch(batch_id)


def _stuck(store: JobStore, job: Job, shard: int | None) -> tuple[int, Attempt | None]:
    """The shard meant and its newest attempt; None where it was parked before its first."""
    stuck = [(s.index, a) for s, a in store.shards(job.key) if s.state == "needs_operator"]
    chosen = [(index, attempt) for index, attempt in stuck if shard in (None, index)]
    if len(chosen) == 1:
        return chosen[0]
    which = ", ".join(str(index) for index, _ in stuck) or "none"
    raise BatchStateError(
        f"which shard of job {job.id}? Those that need an operator: {which}",
        hint="Name one with --shard N." if stuck else f"`langbatch status {job.id}` shows its state.",
    )


@contextmanager
def _claimed(store: JobStore, job: Job, index: int) -> Iterator[Claim]:
    claim = store.claim(job.key, index)
    if claim is None:
        raise BatchStateError("another process is working on this job", hint="Try again in a moment.")
    try:
        yield claim
    finally:
        store.release(claim)
