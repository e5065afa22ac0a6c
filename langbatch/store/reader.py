"""What is stored, as records. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from langbatch.errors import JobNotFound
from langbatch.lifecycle import SETTLED_JOB_STATES
from langbatch.records import Attempt, Job, Shard, ShardView, Unsuccessful
from langbatch.store import observation, rows
from langbatch.store.connections import Connections
from langbatch.store.database import storage_error
from langbatch.store.schema import attempts, events, jobs, shards, unsuccessful
from langbatch.store.transitions import Claim, with_newest_attempt


class Reader:
    """Every read is one transaction: what it brings was true at one moment."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            with self._connections.reading() as connection:
                yield connection
        except DBAPIError as error:
            raise storage_error(error) from error

    # ------------------------------------------------------------ jobs

    def job(self, key: int) -> Job:
        with self._reading() as connection:
            row = connection.execute(sa.select(jobs).where(jobs.c.key == key)).one_or_none()
        if row is None:
            raise JobNotFound("this job was purged", hint="`langbatch status` lists the jobs there are.")
        return rows.job(row)

    def job_ids(self) -> set[str]:
        """Of every job stored."""
        with self._reading() as connection:
            return {row[0] for row in connection.execute(sa.select(jobs.c.id)).all()}

    def has_job(self, job_id: str) -> bool:
        """Whether there is a job with exactly this id."""
        with self._reading() as connection:
            return connection.execute(sa.select(jobs.c.key).where(jobs.c.id == job_id)).first() is not None

    def job_for(self, reuse_key: str) -> Job | None:
        """The job that the same bytes and the same target made before."""
        with self._reading() as connection:
            row = connection.execute(sa.select(jobs).where(jobs.c.reuse_key == reuse_key)).one_or_none()
        return rows.job(row) if row else None

    def find(self, id_or_prefix: str) -> Job:
        """A job by its id or a unique prefix of it; `JobNotFound` otherwise."""
        text = id_or_prefix.strip()
        with self._reading() as connection:
            found = connection.execute(
                sa.select(jobs)
                .where(jobs.c.id.startswith(text, autoescape=True))
                .order_by(jobs.c.key)
                .limit(4)
            ).all()
        exact = [row for row in found if row.id == text]
        if exact or (len(found) == 1 and text):
            return rows.job((exact or found)[0])
        if not found or not text:
            raise JobNotFound(
                f"no job {text!r} in this store", hint="`langbatch status` lists the jobs there are."
            )
        raise JobNotFound(
            f"{text!r} fits more than one job: {', '.join([row.id for row in found][:3])}"
            + (" and others" if len(found) > 3 else ""),
            hint="Give more of the id.",
        )

    def jobs(self, *, unfinished: bool = False, keys: Collection[int] | None = None) -> list[Job]:
        """All jobs, or those with these keys, oldest first."""
        query = _UNFINISHED_JOBS if unfinished else _ALL_JOBS
        if keys is not None:
            query = query.where(jobs.c.key.in_(keys))
        with self._reading() as connection:
            return [rows.job(row) for row in connection.execute(query)]

    def shards(self, job: int) -> list[tuple[Shard, Attempt | None]]:
        """A job's shards in input order, each with its newest attempt."""
        with self._reading() as connection:
            pairs = connection.execute(_SHARDS_OF_JOB, {"job": job})
            return [rows.shard_and_attempt(row) for row in pairs]

    def attempts(self, job: int, shard: int) -> list[Attempt]:
        """Every attempt at a shard, oldest first."""
        with self._reading() as connection:
            found = connection.execute(_ATTEMPTS_AT_SHARD, {"job": job, "shard": shard})
            return [rows.attempt(row) for row in found]

    def attempt_named(self, name: str) -> Attempt | None:
        """The attempt whose upload bears this name."""
        return self._attempt(attempts.c.name == name)

    def attempt_with_batch(self, batch_id: str) -> Attempt | None:
        """The attempt that has this batch."""
        return self._attempt(attempts.c.batch_id == batch_id)

    def _attempt(self, condition: sa.ColumnElement[bool]) -> Attempt | None:
        with self._reading() as connection:
            row = connection.execute(sa.select(attempts).where(condition).limit(1)).one_or_none()
        return rows.attempt(row) if row else None

    def view(self, job: int, index: int) -> ShardView:
        """A shard with all that a decision about it may depend on, read in one transaction."""
        with self._reading() as connection:
            row = connection.execute(_ONE_VIEW, {"job": job, "index": index}).one_or_none()
        if row is None:
            raise JobNotFound("this job was purged", hint="`langbatch status` lists the jobs there are.")
        shard, attempt = rows.shard_and_attempt(row)
        return ShardView(rows.job(row, "j_"), shard, attempt, row.fruitless)

    def times_since(self, claim: Claim, what: str, move: str) -> int:
        """How many events `what` the claimed shard has had since its last `move`."""
        ours = (events.c.job == claim.job, events.c.shard == claim.index)
        last = sa.select(sa.func.max(events.c.n)).where(*ours, events.c.move == move).scalar_subquery()
        query = sa.select(sa.func.count()).where(
            *ours, events.c.move == what, events.c.n > sa.func.coalesce(last, 0)
        )
        with self._reading() as connection:
            return int(connection.execute(query).scalar_one())

    def has_shard(self, job: int, index: int) -> bool:
        """Whether there is such a shard still."""
        query = sa.select(shards.c.index).where(shards.c.job == job, shards.c.index == index)
        with self._reading() as connection:
            return connection.execute(query).scalar() is not None

    def unfinished_shards(
        self, of_jobs: Collection[int] | None = None
    ) -> list[tuple[int, int, float, float]]:
        """`(job, index, due_at, not_before)` of every shard that may still move by itself, most due first."""
        query, keys = (_MOVING, {}) if of_jobs is None else (_MOVING_OF_JOBS, {"jobs": list(of_jobs)})
        with self._reading() as connection:
            return [(row[0], row[1], row[2], row[3]) for row in connection.execute(query, keys)]

    def live_batches(self, of_jobs: Collection[int] | None = None) -> list[observation.LiveBatch]:
        """The running batches of these jobs, or of all, that may be looked at without a claim."""
        with self._reading() as connection:
            return observation.live_batches(connection, of_jobs)

    def unsuccessful(self, job: int, first: int = 0, count: int | None = None) -> list[Unsuccessful]:
        """The requests without success among `count` from ordinal `first`, in input order."""
        query = sa.select(unsuccessful).where(unsuccessful.c.job == job, unsuccessful.c.ordinal >= first)
        if count is not None:
            query = query.where(unsuccessful.c.ordinal < first + count)
        with self._reading() as connection:
            return [
                rows.unsuccessful(row) for row in connection.execute(query.order_by(unsuccessful.c.ordinal))
            ]

    def unsuccessful_count(self, job: int, first: int, count: int) -> int:
        """How many of these requests ended without success."""
        query = sa.select(sa.func.count()).where(
            unsuccessful.c.job == job,
            unsuccessful.c.ordinal >= first,
            unsuccessful.c.ordinal < first + count,
        )
        with self._reading() as connection:
            return int(connection.execute(query).scalar_one())


def _labelled(table: sa.Table, prefix: str) -> list[sa.Label[Any]]:
    return [column.label(prefix + column.name) for column in table.c]


# Put together once: for statements of many columns that costs more than running them.
_THIS_SHARD = (shards.c.job == sa.bindparam("job"), shards.c.index == sa.bindparam("index"))
_MOVING = (
    sa.select(shards.c.job, shards.c.index, shards.c.due_at, shards.c.not_before)
    .where(shards.c.state != "done", shards.c.state != "needs_operator")
    .order_by(shards.c.due_at, shards.c.job, shards.c.index)
)
_MOVING_OF_JOBS = _MOVING.where(shards.c.job.in_(sa.bindparam("jobs", expanding=True)))
_ALL_JOBS = sa.select(jobs).order_by(jobs.c.key)
_UNFINISHED_JOBS = _ALL_JOBS.where(*(jobs.c.state != state for state in sorted(SETTLED_JOB_STATES)))
_WITH_ATTEMPT = sa.select(*_labelled(shards, "s_"), *_labelled(attempts, "a_"))
_SHARDS_OF_JOB = (
    _WITH_ATTEMPT.select_from(with_newest_attempt())
    .where(shards.c.job == sa.bindparam("job"))
    .order_by(shards.c.first)
)
_ATTEMPTS_AT_SHARD = (
    sa.select(attempts)
    .where(attempts.c.job == sa.bindparam("job"), attempts.c.shard == sa.bindparam("shard"))
    .order_by(attempts.c.number)
)
_FRUITLESS_ATTEMPTS = (
    sa.select(sa.func.count())
    .select_from(attempts)
    .where(
        attempts.c.job == sa.bindparam("job"),
        attempts.c.shard == sa.bindparam("index"),
        # Not IN, which SQLAlchemy writes out anew at each execution.
        sa.or_(attempts.c.ended_as == "file_unusable", attempts.c.ended_as == "no_batch"),
    )
)
_ONE_VIEW = (
    _WITH_ATTEMPT.add_columns(
        *_labelled(jobs, "j_"), _FRUITLESS_ATTEMPTS.correlate(None).scalar_subquery().label("fruitless")
    )
    .select_from(with_newest_attempt().join(jobs, jobs.c.key == shards.c.job))
    .where(*_THIS_SHARD)
)
