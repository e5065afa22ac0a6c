"""Jobs that were found again at the service, written down as they would stand here had nothing been lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from langbatch.records import Attempt, Job, ShardEnd, ShardState, Tally, Unsuccessful, Usage
from langbatch.shards.sharding import ShardPlan
from langbatch.store import rows
from langbatch.store.new_jobs import NewJob, insert_job, insert_shards
from langbatch.store.schema import attempts, jobs, shards, store_facts, unsuccessful
from langbatch.store.store import JobStore
from langbatch.store.transitions import Writing, summary


@dataclass(frozen=True, slots=True)
class RestoredShard:
    """A shard's state, and its attempts, oldest first; their `job` is filled in when they are stored."""

    index: int
    state: ShardState
    attempts: tuple[Attempt, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    ended_as: ShardEnd | None = None
    tally: Tally = field(default_factory=Tally)
    usage: Usage = field(default_factory=Usage)
    unsuccessful: Sequence[Unsuccessful] = ()


@dataclass(frozen=True, slots=True)
class RestoredJob:
    """`new` as at its submission; `remark` is what its status says about the recovery from now on."""

    new: NewJob
    created_at: float
    cancel_requested: bool
    remark: str | None
    shards: Sequence[RestoredShard]


def restore(store: JobStore, restored: RestoredJob) -> Job | None:
    """Store the job with all its shards and attempts in one transaction. None where another process was
    faster. The reuse key goes to the first job that claims it."""
    new = restored.new
    try:
        with store._writing() as tx:
            key = insert_job(tx, replace(new, reuse_key=new.id))
            taken = tx.execute(sa.select(jobs.c.key).where(jobs.c.reuse_key == new.reuse_key)).first()
            tx.execute(
                jobs.update()
                .where(jobs.c.key == key)
                .values(
                    reuse_key=None if taken else new.reuse_key,
                    created_at=restored.created_at,
                    cancel_requested=restored.cancel_requested,
                    remark=restored.remark,
                )
            )
            for shard in restored.shards:
                _restore_shard(tx, key, shard)
            tx.log(key, None, None, "recovered", None, None, f"{len(restored.shards)} shards")
            tx.refresh_job(key)
    except IntegrityError:
        return None
    return store.job(key)


def give_batch(store: JobStore, job: int, plan: ShardPlan, first_line: int, attempt: Attempt) -> bool:
    """Give a draft its only shard, with a batch that runs at the service already. False where the job is no
    draft any more. One transaction: a shard without its batch would be sent."""
    with store._writing() as tx:
        if tx.execute(sa.select(jobs.c.state).where(jobs.c.key == job)).scalar() != "draft":
            return False
        insert_shards(tx, job, [plan], [first_line])
        _restore_shard(tx, job, RestoredShard(0, "active", (attempt,), {"waits_for": "batch"}))
        tx.log(job, 0, attempt.number, "taken_over", None, "active", attempt.batch_id)
        tx.refresh_job(job)
    return True


def _restore_shard(tx: Writing, job: int, shard: RestoredShard) -> None:
    tx.execute(
        shards.update()
        .where(shards.c.job == job, shards.c.index == shard.index)
        .values(
            state=shard.state,
            attempt=shard.attempts[-1].number if shard.attempts else 0,
            ended_as=shard.ended_as,
            **shard.facts,
            **summary(shard.tally, shard.usage),
        )
    )
    for attempt in shard.attempts:
        values = {f.name: getattr(attempt, f.name) for f in fields(Attempt) if f.name != "batch_counts"}
        counts = attempt.batch_counts
        values |= {"job": job, "shard": shard.index, "batch_total": counts.total}
        values |= {"batch_completed": counts.completed, "batch_failed": counts.failed}
        tx.execute(attempts.insert().values(**values))
    found = [rows.from_unsuccessful(job, item) for item in shard.unsuccessful]
    if found:
        tx.execute(unsuccessful.insert(), found)


def take_over_id(store: JobStore, store_id: str) -> bool:
    """Let a store without any job bear `store_id` from now on, so that files marked with it are its own."""
    with store._writing() as tx:
        if tx.execute(sa.select(jobs.c.key).limit(1)).first() is not None:
            return False
        tx.execute(store_facts.update().where(store_facts.c.name == "store_id").values(value=store_id))
    store.store_id = store_id
    return True
