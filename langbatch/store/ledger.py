"""The token ledger: what each deployment's quota allows as far as known, and what is reserved of it."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from langbatch.records import Account
from langbatch.store.reservations import HOLDING, LIMIT_SECONDS, RESERVING, account, reserved, write
from langbatch.store.schema import accounts, attempts, shards
from langbatch.store.store import JobStore
from langbatch.store.transitions import with_newest_attempt


def known(
    store: JobStore, labels: Iterable[str], *, but: tuple[int, int] | None = None
) -> dict[str, tuple[Account, int]]:
    """Each quota with the tokens reserved of it, `but` not by this shard (job, index)."""
    now = store._clock.now()
    with store._reading() as connection:
        return {
            label: (account(connection, label, now), reserved(connection, label, but=but)) for label in labels
        }


def holds_nothing(store: JobStore, label: str, *, but: tuple[int, int]) -> bool:
    """Whether no batch of ours, `but` this shard's (job, index), holds any of a quota. Files that were
    only uploaded hold none."""
    with store._reading() as connection:
        return reserved(connection, label, but=but, states=HOLDING) == 0


def all_known(store: JobStore) -> list[tuple[Account, int]]:
    """Every quota that is in use or of which something is known, with the tokens reserved of it."""
    now = store._clock.now()
    with store._reading() as connection:
        labels = {
            *connection.execute(sa.select(accounts.c.label)).scalars(),
            *connection.execute(_LABELS_IN_USE).scalars(),
        }
        return [(account(connection, label, now), reserved(connection, label)) for label in sorted(labels)]


def remember(store: JobStore, learnt: Account, *, told: bool = False) -> None:
    """Keep what a call has taught. `told`: the limit is the service's own word."""
    with store._writing() as tx:
        write(tx, learnt, "service" if told else None)


def state_limit(store: JobStore, label: str, limit_tokens: int) -> None:
    """The user's own statement of a quota; what the service itself said within a day beats it."""
    with store._writing() as tx:
        query = sa.select(accounts.c.limit_from, accounts.c.at).where(accounts.c.label == label)
        row = tx.execute(query).first()
        if row is None or row.limit_from in (None, "user") or row.at < tx.now - LIMIT_SECONDS:
            now = account(tx.connection, label, tx.now)
            stated = Account(label, limit_tokens, now.hold_until, now.hold_reason, now.refusals)
            write(tx, stated, "user")


def forget(store: JobStore, labels: Iterable[str]) -> None:
    """Limits and holds are to be found out anew: a person says that they are no longer so."""
    with store._writing() as tx:
        for label in labels:
            write(tx, Account(label), "service")


_LABELS_IN_USE = (
    sa.select(attempts.c.account)
    .select_from(with_newest_attempt())
    .where(attempts.c.account.is_not(None), shards.c.state.in_(RESERVING))
    .distinct()
)
