"""Batches beside a shard's own: stopped, and said to those who pay for what they had done by then."""

from __future__ import annotations

import sqlalchemy as sa

from langbatch.records import RemoteBatch
from langbatch.store.schema import events, jobs
from langbatch.store.store import JobStore

EVENT = "extra_batch"
#: A job's remark does not grow beyond this; its events tell everything.
_LONGEST_REMARK = 1_000


def note_extra_batch(
    store: JobStore, job: int, shard: int, attempt: int, batch: RemoteBatch, end: str
) -> None:
    """Write down, once, that `batch` was made for an attempt besides the one that counts, and how it ended.

    The job's status says it from then on. Needs no claim: it is true whoever holds the shard."""
    counts = batch.counts
    done = "unknown" if counts is None else f"{counts.completed + counts.failed} of {counts.total}"
    ran = "how many of its requests ran is not known" if counts is None else "none of its requests had run"
    if counts is not None and counts.completed + counts.failed:
        ran = f"{done} of its requests had run, and are paid"
    said = f"a second batch was made for shard {shard} ({batch.id}: {end}; {ran})"
    with store._writing() as tx:
        known = sa.select(events.c.n).where(
            events.c.job == job, events.c.move == EVENT, events.c.note.startswith(f"{batch.id} ")
        )
        if tx.execute(known).first() is not None:
            return
        tx.log(job, shard, attempt, EVENT, None, None, f"{batch.id} {end}; rows done: {done}")
        remark = tx.execute(sa.select(jobs.c.remark).where(jobs.c.key == job)).scalar()
        if len(remark or "") < _LONGEST_REMARK:
            text = f"{remark}; {said}" if remark else said
            tx.execute(jobs.update().where(jobs.c.key == job).values(remark=text))
        tx.refresh_job(job)
