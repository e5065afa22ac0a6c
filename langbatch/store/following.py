"""The log of events as somebody reads it who follows it: from a number on, and from process to process.

A consumer's place is kept here, with a lease as for shards: one process at a time tells it, and the next one
takes over at once from one that died. Its place moves once it has been told, so that a death in between tells
it again, never too little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from langbatch.events import Event, Logged, read_event
from langbatch.lifecycle import SETTLED_JOB_STATES
from langbatch.records import Attempt
from langbatch.store import rows
from langbatch.store.database import lease_clock, settle_events
from langbatch.store.schema import attempts, consumers, events, jobs, shards
from langbatch.store.store import LEASE_SECONDS, JobStore
from langbatch.store.transitions import LostClaim, Writing, is_held

#: Events read at once.
PAGE = 500


@dataclass(frozen=True, slots=True)
class Turn:
    """The right to tell a consumer what comes after event `seen`. Writes carry `fence`."""

    name: str
    seen: int
    fence: int


def newest(store: JobStore) -> int:
    """The number of the last event, 0 before the first."""
    with store._reading() as connection:
        settle_events(connection)
        return _newest(connection)


def read(store: JobStore, after: int, *, job: int | None = None, limit: int = PAGE) -> list[Event]:
    """Up to `limit` events after number `after`, of one job or of all, in their order."""
    query, keys = (AFTER, {}) if job is None else (OF_JOB_AFTER, {"job": job})
    with store._reading() as connection:
        settle_events(connection)
        found = connection.execute(query.limit(limit), {"after": after, **keys}).all()
    return [event_of(store, row) for row in found]


def event_of(store: JobStore, row: Sequence[Any]) -> Event:
    """The event that a row of `AFTER` tells."""
    return read_event(store.store_id, Logged(*row))


def has_more(store: JobStore, after: int) -> bool:
    """Whether there are events after number `after`. Quick, and takes no lock."""
    with store._reading() as connection:
        return connection.execute(_ANY_AFTER, {"after": after}).first() is not None


# ---------------------------------------------------------------- consumers


def register(store: JobStore, name: str) -> None:
    """Make a consumer known, from the next event on. One that is known stays where it is."""
    known = sa.select(consumers.c.name).where(consumers.c.name == name)
    with store._reading() as connection:
        if connection.execute(known).first() is not None:
            return
    try:
        with store._writing() as tx:
            settle_events(tx.connection)
            fresh = {"lease_owner": None, "lease_until": 0.0, "fence": 0}
            seen = _newest(tx.connection)
            tx.execute(consumers.insert().values(name=name, seen=seen, at=tx.now, **fresh))
    except IntegrityError:
        pass  # another process knew it first


def has_news(store: JobStore, name: str) -> bool:
    """Whether a consumer has not been told everything."""
    with store._reading() as connection:
        return connection.execute(_NEWS, {"name": name}).first() is not None


def take_turn(store: JobStore, name: str) -> Turn | None:
    """Take a consumer for `LEASE_SECONDS`; None while a live process holds it."""
    with store._writing() as tx:
        now = lease_clock(tx.connection, tx.now)
        row = tx.execute(sa.select(consumers).where(consumers.c.name == name)).one_or_none()
        if row is None or is_held(row, now, LEASE_SECONDS):
            return None
        turn = Turn(name, row.seen, row.fence + 1)
        taken = tx.execute(
            consumers.update()
            .where(consumers.c.name == name, consumers.c.fence == row.fence)
            .values(lease_owner=store.owner, lease_until=now + LEASE_SECONDS, fence=turn.fence)
        )
        return turn if taken.rowcount == 1 else None


def passed(store: JobStore, turn: Turn, seen: int) -> Turn:
    """Record that everything up to event `seen` has been told, and hold on. `LostClaim` where another process
    has taken over."""
    with store._writing() as tx:
        until = lease_clock(tx.connection, tx.now) + LEASE_SECONDS
        _require(tx, turn, {"seen": seen, "at": tx.now, "lease_until": until})
    return replace(turn, seen=seen)


def give_back(store: JobStore, turn: Turn) -> None:
    """Let a consumer go. One that was lost is let go already."""
    with store._writing() as tx:
        tx.execute(_held_by(turn).values(lease_owner=None, lease_until=0.0))


def _require(tx: Writing, turn: Turn, values: dict[str, Any]) -> None:
    if tx.execute(_held_by(turn).values(**values)).rowcount != 1:
        raise LostClaim("another process tells this consumer by now")


def _held_by(turn: Turn) -> sa.Update:
    return consumers.update().where(consumers.c.name == turn.name, consumers.c.fence == turn.fence)


# ---------------------------------------------------------------- what a finished job did


@dataclass(frozen=True, slots=True)
class Course:
    """How a job went until it ended: since when, the attempts of that time, each with the model that its
    shard's lines name, and all events."""

    began_at: float
    attempts: Sequence[tuple[Attempt, str | None]]
    events: Sequence[Event]


def course(store: JobStore, job: int, ended: int) -> Course:
    """Of a job that finished with event `ended`: since it was submitted, or since it was reopened last."""
    ours = (events.c.job == job, events.c.n < ended)
    finished = sa.select(sa.func.max(events.c.n)).where(
        *ours, events.c.move == "job_moved", events.c.to.in_(SETTLED_JOB_STATES)
    )
    with store._reading() as connection:
        last = connection.execute(finished).scalar() or 0
        began = connection.execute(
            sa.select(sa.func.min(events.c.at)).where(*ours, events.c.n > last)
        ).scalar()
        told = connection.execute(OF_JOB_AFTER.where(events.c.n <= ended), {"after": last, "job": job}).all()
        tried = connection.execute(_TRIED.where(attempts.c.job == job)).all()
    history = [event_of(store, row) for row in told]
    # A retry is told of the attempt before it.
    moved = {(event.shard, event.attempt) for event in history if event.move != "retry_requested"}
    return Course(
        began or 0.0,
        [(rows.attempt(row), row.shard_model) for row in tried if (row.shard, row.number) in moved],
        history,
    )


def attempt(store: JobStore, job: int, shard: int, number: int) -> Attempt | None:
    """One attempt; None where there is none of that number."""
    this = (attempts.c.job == job, attempts.c.shard == shard, attempts.c.number == number)
    with store._reading() as connection:
        row = connection.execute(_TRIED.where(*this)).one_or_none()
    return None if row is None else rows.attempt(row)


def model_of(store: JobStore, job: int, shard: int | None) -> str | None:
    """The model that the lines name, of a shard or of the whole job; None where they name several or none."""
    query = sa.select(shards.c.model).distinct().where(shards.c.job == job)
    if shard is not None:
        query = query.where(shards.c.index == shard)
    with store._reading() as connection:
        found = connection.execute(query.limit(2)).scalars().all()
    return found[0] if len(found) == 1 else None


def shards_by_state(store: JobStore) -> dict[str, int]:
    """How many shards of all jobs are in each state."""
    query = sa.select(shards.c.state, sa.func.count()).group_by(shards.c.state)
    with store._reading() as connection:
        return {row[0]: row[1] for row in connection.execute(query)}


def _newest(connection: Connection) -> int:
    return int(connection.execute(NEWEST).scalar() or 0)


# Put together once, as in the store.
NEWEST = sa.select(sa.func.max(events.c.n))
SEEN = sa.select(consumers.c.seen).where(consumers.c.name == sa.bindparam("name"))
#: In the order of the fields of `Logged`.
AFTER = (
    sa.select(
        events.c.n,
        events.c.at,
        events.c.shard,
        events.c.attempt,
        events.c.move,
        events.c.origin,
        events.c.to,
        events.c.note,
        jobs.c.id,
        jobs.c.name,
        jobs.c.total,
        jobs.c.created_at,
        attempts.c.batch_id,
        attempts.c.create_intent_at,
        attempts.c.input_tokens,
        attempts.c.output_tokens,
    )
    .select_from(events)
    .join(jobs, jobs.c.key == events.c.job)
    .outerjoin(
        attempts,
        sa.and_(
            attempts.c.job == events.c.job,
            attempts.c.shard == events.c.shard,
            attempts.c.number == events.c.attempt,
        ),
    )
    .where(events.c.n > sa.bindparam("after"))
    .order_by(events.c.n)
)
OF_JOB_AFTER = AFTER.where(events.c.job == sa.bindparam("job"))
_TRIED = (
    sa.select(attempts, shards.c.model.label("shard_model"))
    .join(shards, sa.and_(shards.c.job == attempts.c.job, shards.c.index == attempts.c.shard))
    .order_by(attempts.c.shard, attempts.c.number)
)
_ANY = sa.select(sa.literal(1)).select_from(events).join(jobs, jobs.c.key == events.c.job).limit(1)
_ANY_AFTER = _ANY.where(events.c.n > sa.bindparam("after"))
_NEWS = _ANY.where(events.c.n > SEEN.scalar_subquery())
