"""Jobs that were purged: that they were, and which of their files the services still have."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from langbatch.records import Target
from langbatch.store.rows import targets_of, targets_text
from langbatch.store.schema import attempts, deliveries, events, jobs, shards, store_facts, unsuccessful
from langbatch.store.store import JobStore
from langbatch.store.transitions import Writing

_PREFIX = "purged:"

#: A target, and the ids of files there.
Owed = Sequence[tuple[Target, Sequence[str]]]


def purge(store: JobStore, job: int, job_id: str, owed: Owed) -> None:
    """Forget a job: every row about it, its events, too. `owed` is still to be deleted at the services."""
    with store._writing() as tx:
        for table in (unsuccessful, attempts, shards, events, deliveries):
            tx.execute(table.delete().where(table.c.job == job))
        tx.execute(jobs.delete().where(jobs.c.key == job))
        _write(tx, job_id, owed)


def purged(store: JobStore) -> Mapping[str, Owed]:
    """The ids of all jobs that were purged, with what is still to be deleted of each."""
    mine = store_facts.c.name.startswith(_PREFIX, autoescape=True)
    with store._reading() as connection:
        rows = connection.execute(sa.select(store_facts.c.name, store_facts.c.value).where(mine)).all()
    return {row.name.removeprefix(_PREFIX): _owed_of(row.value) for row in rows}


def settle(store: JobStore, job_id: str, owed: Owed) -> None:
    """From now on this much is left to be deleted of a purged job."""
    with store._writing() as tx:
        _write(tx, job_id, owed)


def _write(tx: Writing, job_id: str, owed: Owed) -> None:
    value = json.dumps([[targets_text((target,)), list(ids)] for target, ids in owed])
    this = store_facts.c.name == _PREFIX + job_id
    if not tx.execute(store_facts.update().where(this).values(value=value)).rowcount:
        tx.execute(store_facts.insert().values(name=_PREFIX + job_id, value=value))


def _owed_of(text: str) -> Owed:
    return [(targets_of(target)[0], ids) for target, ids in json.loads(text)]
