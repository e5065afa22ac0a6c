"""What has been measured on an endpoint (`doctor --canary`), kept for every later run."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from langbatch.store.schema import endpoint_facts
from langbatch.store.store import JobStore


def remember(store: JobStore, provider: str, host: str, facts: Mapping[str, str]) -> None:
    """Store facts by name; what is known under other names stays."""
    this = (endpoint_facts.c.provider == provider, endpoint_facts.c.host == host)
    with store._writing() as tx:
        for fact, value in facts.items():
            tx.execute(endpoint_facts.delete().where(*this, endpoint_facts.c.fact == fact))
            tx.execute(
                endpoint_facts.insert().values(
                    provider=provider, host=host, fact=fact, value=value, at=tx.now
                )
            )


def recall(store: JobStore, provider: str, host: str) -> dict[str, str]:
    """All facts of an endpoint; empty where nobody has measured it."""
    with store._reading() as connection:
        found = connection.execute(_FACTS, {"provider": provider, "host": host})
        return {row.fact: row.value for row in found}


_FACTS = sa.select(endpoint_facts.c.fact, endpoint_facts.c.value).where(
    endpoint_facts.c.provider == sa.bindparam("provider"), endpoint_facts.c.host == sa.bindparam("host")
)
