"""What is reserved of each token quota, and what is known of it, inside a transaction.

Reservations have no table of their own: they are read off the newest attempts, in the transaction that adds
one, so that they can not drift from what is really under way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from langbatch.errors import BatchStateError
from langbatch.records import Account
from langbatch.store.schema import accounts, attempts, shards
from langbatch.store.transitions import Writing

#: In these states a batch holds quota, or may.
HOLDING = ("creating", "uncertain", "fencing", "active")
#: In these it does, or soon will.
RESERVING = ("uploading", "uploaded", *HOLDING)

#: For so long the service's word about a quota is taken for what it is.
LIMIT_SECONDS = 86_400.0


class NoRoom(BatchStateError):
    """Another process took the room in the moment before. Nothing was written."""

    code = "no_room"


def require_room(
    tx: Writing, label: str, tokens: int, but: tuple[int, int], states: Sequence[str] = RESERVING
) -> None:
    """Raise `NoRoom` where `tokens` more would pass what is known of the quota, or it is on hold."""
    known = account(tx.connection, label, tx.now)
    if known.hold_reason == "quota" and known.hold_until > tx.now:
        raise NoRoom(f"{label} is on hold")
    if known.limit_tokens is None:
        return
    if reserved(tx.connection, label, but=but, states=states) + tokens > known.limit_tokens:
        raise NoRoom(f"{label} has no room for {tokens} tokens")


def account(connection: Connection, label: str, now: float) -> Account:
    """What is known of a quota. A limit that the service has not named for a day is doubted: quotas are
    raised, and nobody tells. It costs one refusal to learn that this one was not."""
    row = connection.execute(_ONE, {"label": label}).one_or_none()
    if row is None:
        return Account(label)
    doubted = row.limit_from == "service" and row.at < now - LIMIT_SECONDS
    limit = None if doubted else row.limit_tokens
    return Account(label, limit, row.hold_until, row.hold_reason, row.refusals)


def reserved(
    connection: Connection,
    label: str,
    *,
    but: tuple[int, int] | None = None,
    states: Sequence[str] = RESERVING,
) -> int:
    """Tokens reserved of a quota; `but`: by all except this shard (job, index)."""
    job, index = but or (-1, -1)
    values = {"label": label, "job": job, "index": index, "states": list(states)}
    return int(connection.execute(_RESERVED, values).scalar() or 0)


def write(tx: Writing, known: Account, limit_from: str | None) -> None:
    """Keep what is known of a quota; `limit_from` None leaves who said the limit as it was."""
    values: dict[str, Any] = {
        "limit_tokens": known.limit_tokens,
        "hold_until": known.hold_until,
        "hold_reason": known.hold_reason,
        "refusals": known.refusals,
        "at": tx.now,
    }
    if limit_from is not None:
        values["limit_from"] = limit_from
    changed = tx.execute(accounts.update().where(accounts.c.label == known.label).values(**values))
    if not changed.rowcount:
        tx.execute(accounts.insert().values(label=known.label, **values))


def lift_hold(tx: Writing, label: str | None) -> None:
    """One of our batches there has ended: there is room again. Shards that wait for it look at once."""
    if label is None:
        return
    tx.execute(
        accounts.update()
        .where(accounts.c.label == label, accounts.c.hold_reason == "quota")
        .values(hold_until=0.0, hold_reason=None, refusals=0)
    )
    tx.execute(_WAKE)


_ONE = sa.select(accounts).where(accounts.c.label == sa.bindparam("label"))
_RESERVED = (
    sa.select(sa.func.sum(attempts.c.tokens))
    .select_from(
        attempts.join(
            shards,
            sa.and_(
                shards.c.job == attempts.c.job,
                shards.c.index == attempts.c.shard,
                shards.c.attempt == attempts.c.number,
            ),
        )
    )
    .where(
        attempts.c.account == sa.bindparam("label"),
        attempts.c.ended_at.is_(None),
        shards.c.state.in_(sa.bindparam("states", expanding=True)),
        sa.or_(shards.c.job != sa.bindparam("job"), shards.c.index != sa.bindparam("index")),
    )
)
_WAKE = (
    shards.update()
    .where(shards.c.waits_for == "quota", shards.c.state.in_(("waiting", "uploaded")))
    .values(due_at=0.0)
)
