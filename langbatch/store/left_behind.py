"""Jobs that bear this store's id at a service, but are not in it (yet): nobody may tidy them away."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from langbatch.store.schema import store_facts
from langbatch.store.store import JobStore

_PREFIX = "left:"


def leave(store: JobStore, job_ids: Iterable[str]) -> None:
    """A recovery has seen these jobs, and has not brought them back."""
    with store._writing() as tx:
        for job_id in job_ids:
            this = store_facts.c.name == _PREFIX + job_id
            if tx.execute(sa.select(store_facts.c.name).where(this)).first() is None:
                tx.execute(store_facts.insert().values(name=_PREFIX + job_id, value="seen"))


def bring_back(store: JobStore, job_id: str) -> None:
    """This one is in the store now."""
    with store._writing() as tx:
        tx.execute(store_facts.delete().where(store_facts.c.name == _PREFIX + job_id))


def left_behind(store: JobStore) -> frozenset[str]:
    """The ids of all such jobs."""
    names = sa.select(store_facts.c.name).where(store_facts.c.name.startswith(_PREFIX, autoescape=True))
    with store._reading() as connection:
        return frozenset(name.removeprefix(_PREFIX) for name in connection.execute(names).scalars())
