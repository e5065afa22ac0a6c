"""Which files at a service belong to which attempt, for those who tidy up there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from langbatch.records import AttemptEnd, ShardState
from langbatch.store.rows import targets_of
from langbatch.store.schema import attempts, jobs, shards
from langbatch.store.store import JobStore


@dataclass(frozen=True, slots=True)
class AttemptFiles:
    """One attempt's files. `gone`: none of them was left when somebody looked last."""

    job: int
    job_id: str
    shard: int
    shard_state: ShardState
    number: int
    newest: bool
    name: str
    file_id: str | None
    output_file_id: str | None
    error_file_id: str | None
    ended_as: AttemptEnd | None
    gone: bool


def attempt_files(store: JobStore, provider: str, host: str) -> list[AttemptFiles]:
    """Every attempt of every job on this endpoint, oldest job first."""
    query = (
        sa.select(
            attempts.c.job,
            jobs.c.id.label("job_id"),
            attempts.c.shard,
            shards.c.state.label("shard_state"),
            attempts.c.number,
            (attempts.c.number == shards.c.attempt).label("newest"),
            attempts.c.name,
            attempts.c.file_id,
            attempts.c.output_file_id,
            attempts.c.error_file_id,
            attempts.c.ended_as,
            attempts.c.files_gone_at.is_not(None).label("gone"),
            attempts.c.target,
            jobs.c.provider,
            jobs.c.host,
            jobs.c.others,
        )
        .select_from(
            attempts.join(jobs, jobs.c.key == attempts.c.job).join(
                shards, sa.and_(shards.c.job == attempts.c.job, shards.c.index == attempts.c.shard)
            )
        )
        .order_by(attempts.c.job, attempts.c.shard, attempts.c.number)
    )
    with store._reading() as connection:
        return [
            AttemptFiles(*row[:-4]) for row in connection.execute(query) if _endpoint(row) == (provider, host)
        ]


def _endpoint(row: sa.Row[Any]) -> tuple[str, str]:
    """Where an attempt was sent: its job's own target, or one of the others."""
    if row.target == 0:
        return row.provider, row.host
    other = targets_of(row.others)[row.target - 1]
    return other.provider, other.host


def mark_gone(store: JobStore, tidied: Sequence[AttemptFiles]) -> None:
    """Remember that nothing of these attempts is left at the service, so that it is not asked again."""
    if not tidied:
        return
    with store._writing() as tx:
        for item in tidied:
            tx.execute(
                attempts.update()
                .where(
                    attempts.c.job == item.job,
                    attempts.c.shard == item.shard,
                    attempts.c.number == item.number,
                )
                .values(files_gone_at=tx.now)
            )
