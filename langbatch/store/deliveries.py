"""Webhooks still to be delivered: one row each, until it is, or is given up.

The row is written in the transaction that moves the consumer's place past the job's end, so that there is
exactly one for it. A try is claimed as a shard is: never two processes for one delivery, and what a dead
process was trying is tried again, under the same id.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from langbatch.events import JobFinished
from langbatch.lifecycle import SETTLED_JOB_STATES
from langbatch.store.database import lease_clock, settle_events
from langbatch.store.following import AFTER, NEWEST, SEEN, event_of, has_news
from langbatch.store.schema import consumers, deliveries, events
from langbatch.store.store import JobStore
from langbatch.store.transitions import LostClaim, is_held

#: How long a try may take, a receiver with several addresses included, before another process goes on.
CLAIM_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """A webhook that this process may try now. `tries` are those before, `told_at` is when the job ended."""

    consumer: str
    id: str
    job: int
    body: str
    told_at: float
    tries: int
    fence: int


def enter(store: JobStore, consumer: str, body_of: Callable[[JobFinished], str]) -> None:
    """Make a delivery of every job that has finished since the consumer was last brought up to date."""
    if not has_news(store, consumer):
        return
    with store._writing() as tx:
        settle_events(tx.connection)
        # On servers, another process may be at it: it has the row until it commits.
        seen = tx.execute(SEEN.with_for_update(), {"name": consumer}).scalar_one()
        last = tx.execute(NEWEST).scalar() or 0
        for row in tx.execute(_FINISHED, {"after": seen}).all():
            event, job = event_of(store, row[:-1]), row[-1]
            assert isinstance(event, JobFinished)
            tx.execute(
                deliveries.insert().values(
                    consumer=consumer,
                    id=f"msg_{event.store}_{event.n}",
                    job=job,
                    body=body_of(event),
                    told_at=event.at,
                    due_at=tx.now,
                    tries=0,
                    lease_owner=None,
                    lease_until=0.0,
                    fence=0,
                )
            )
        tx.execute(consumers.update().where(consumers.c.name == consumer).values(seen=last, at=tx.now))


def is_due(store: JobStore, consumer: str, now: float, abandoned_before: float) -> bool:
    """Whether `claim` would find one, others' claims apart."""
    query = sa.select(deliveries.c.id).where(_due(consumer, now, abandoned_before)).limit(1)
    with store._reading() as connection:
        return connection.execute(query).first() is not None


def claim(store: JobStore, consumer: str, abandoned_before: float) -> Delivery | None:
    """Take the delivery that has been due for longest; None where there is none that no other process has.

    Those of any consumer whose job ended before `abandoned_before` are due, too: to be given up."""
    with store._writing() as tx:
        now = lease_clock(tx.connection, tx.now)
        due = sa.select(deliveries).where(_due(consumer, tx.now, abandoned_before))
        for row in tx.execute(due.order_by(deliveries.c.due_at)).all():
            if is_held(row, now, CLAIM_SECONDS):
                continue
            delivery = Delivery(
                row.consumer, row.id, row.job, row.body, row.told_at, row.tries, row.fence + 1
            )
            values = {
                "lease_owner": store.owner,
                "lease_until": now + CLAIM_SECONDS,
                "fence": delivery.fence,
            }
            before = (_this(delivery), deliveries.c.fence == row.fence)
            if tx.execute(deliveries.update().where(*before).values(**values)).rowcount == 1:
                return delivery
    return None


def _due(consumer: str, now: float, abandoned_before: float) -> sa.ColumnElement[bool]:
    ours = sa.and_(deliveries.c.consumer == consumer, deliveries.c.due_at <= now)
    return sa.or_(ours, deliveries.c.told_at < abandoned_before)


def settle(store: JobStore, delivery: Delivery, how: str, note: str) -> None:
    """It was delivered or given up: the row goes, and the log tells. `LostClaim` where another process has
    taken over, or the job was purged."""
    with store._writing() as tx:
        gone = tx.execute(deliveries.delete().where(*_held(delivery)))
        if gone.rowcount != 1:
            raise LostClaim("another process has this delivery by now")
        tx.log(delivery.job, None, None, how, None, None, note)


def put_off(store: JobStore, delivery: Delivery, due_at: float, note: str) -> None:
    """A try failed: the next one is at `due_at`. The log is told of the first; in the end, how it ended."""
    with store._writing() as tx:
        values = {"due_at": due_at, "tries": delivery.tries + 1, "lease_owner": None, "lease_until": 0.0}
        if tx.execute(deliveries.update().where(*_held(delivery)).values(**values)).rowcount != 1:
            raise LostClaim("another process has this delivery by now")
        if delivery.tries == 0:
            tx.log(delivery.job, None, None, "webhook_failed", None, None, note)


def _this(delivery: Delivery) -> sa.ColumnElement[bool]:
    return sa.and_(deliveries.c.consumer == delivery.consumer, deliveries.c.id == delivery.id)


def _held(delivery: Delivery) -> tuple[sa.ColumnElement[bool], ...]:
    return _this(delivery), deliveries.c.fence == delivery.fence


_FINISHED = AFTER.add_columns(events.c.job).where(
    events.c.move == "job_moved", events.c.to.in_(SETTLED_JOB_STATES)
)
