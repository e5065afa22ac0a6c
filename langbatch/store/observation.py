"""Running batches by the hundred: what a look at them must know, and what it saw, in one transaction.

A claim of each would cost three commits a batch. So none is taken: a row is changed only where nobody holds
the shard, and nobody has changed or looked at it since it was read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from langbatch.store.schema import attempts, jobs, shards
from langbatch.store.transitions import Writing


@dataclass(frozen=True, slots=True)
class LiveBatch:
    """A batch that runs, as far as is known, and whose shard nobody holds or wants to cancel.

    `place`: of its target among the job's."""

    job: int
    index: int
    number: int
    fence: int
    due_at: float
    not_before: float
    troubles: int
    place: int
    batch_id: str
    batch_status: str | None
    created_after: float | None
    polled_at: float | None


@dataclass(frozen=True, slots=True)
class Seen:
    """What to record of an active shard that stays active: its columns, its attempt's, and an event."""

    live: LiveBatch
    shard: Mapping[str, Any]
    attempt: Mapping[str, Any] = field(default_factory=dict)
    event: str | None = None
    note: str | None = None


def live_batches(connection: Connection, of_jobs: Collection[int] | None) -> list[LiveBatch]:
    """Of these jobs, or of all; most due first."""
    query, keys = (_LIVE, {}) if of_jobs is None else (_LIVE_OF_JOBS, {"jobs": list(of_jobs)})
    return [_live(row) for row in connection.execute(query, keys)]


def _live(row: Sequence[Any]) -> LiveBatch:
    return LiveBatch(*row)


def record(tx: Writing, seen: Sequence[Seen]) -> set[tuple[int, int]]:
    """Write what was seen; the shards `(job, index)` of which it was still true that nobody else looks."""
    touched = {item.live.job for item in seen}
    now_live = {_live(row) for row in tx.execute(_LIVE_TO_CHANGE, {"jobs": list(touched)})}
    valid = [item for item in seen if item.live in now_live]
    _update(tx, shards, [({"job": i.live.job, "index": i.live.index}, i.shard) for i in valid])
    _update(
        tx,
        attempts,
        [
            ({"job": i.live.job, "shard": i.live.index, "number": i.live.number}, i.attempt)
            for i in valid
            if i.attempt
        ],
    )
    for item in valid:
        if item.event is not None:
            live = item.live
            tx.log(live.job, live.index, live.number, item.event, "active", "active", item.note)
    for job in sorted({item.live.job for item in valid}):
        tx.refresh_job(job)
    return {(item.live.job, item.live.index) for item in valid}


def _update(tx: Writing, table: sa.Table, rows: Sequence[tuple[dict[str, int], Mapping[str, Any]]]) -> None:
    """One statement for all rows that set the same columns: a list may leave some out."""
    by_columns: dict[frozenset[str], list[dict[str, Any]]] = {}
    for key, values in rows:
        parameters = {**values, **{f"at_{name}": value for name, value in key.items()}}
        by_columns.setdefault(frozenset(values), []).append(parameters)
    for alike in by_columns.values():
        keys = [name.removeprefix("at_") for name in alike[0] if name.startswith("at_")]
        tx.execute(
            table.update().where(*(table.c[name] == sa.bindparam(f"at_{name}") for name in keys)), alike
        )


# Put together once, as in the store.
_LIVE = (
    sa.select(
        shards.c.job,
        shards.c.index,
        shards.c.attempt,
        shards.c.fence,
        shards.c.due_at,
        shards.c.not_before,
        shards.c.troubles,
        attempts.c.target,
        attempts.c.batch_id,
        attempts.c.batch_status,
        attempts.c.create_intent_at,
        attempts.c.polled_at,
    )
    .select_from(shards)
    .join(
        attempts,
        sa.and_(
            attempts.c.job == shards.c.job,
            attempts.c.shard == shards.c.index,
            attempts.c.number == shards.c.attempt,
        ),
    )
    .join(jobs, jobs.c.key == shards.c.job)
    .where(
        shards.c.state == "active",
        shards.c.lease_owner.is_(None),
        attempts.c.batch_id.is_not(None),
        sa.or_(jobs.c.cancel_requested.is_(False), attempts.c.cancel_sent_at.is_not(None)),
    )
    .order_by(shards.c.due_at, shards.c.job, shards.c.index)
)
_LIVE_OF_JOBS = _LIVE.where(shards.c.job.in_(sa.bindparam("jobs", expanding=True)))
#: Servers let two write at once, who then lock in one order; SQLite has one writer and ignores this.
_LIVE_TO_CHANGE = (
    _LIVE_OF_JOBS.order_by(None).order_by(shards.c.job, shards.c.index).with_for_update(of=shards)
)
