"""Why requests of a job ended without success, counted where they are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import sqlalchemy as sa

from langbatch.error_codes import FailureCount
from langbatch.records import Unsuccessful
from langbatch.store.schema import unsuccessful
from langbatch.store.store import JobStore


def counted(store: JobStore, job: int) -> list[FailureCount]:
    """Requests without success by code and outcome, the most frequent first."""
    times = sa.func.count()
    query = (
        sa.select(unsuccessful.c.code, unsuccessful.c.outcome, times)
        .where(unsuccessful.c.job == job)
        .group_by(unsuccessful.c.code, unsuccessful.c.outcome)
        .order_by(times.desc(), unsuccessful.c.code, unsuccessful.c.outcome)
    )
    with store._reading() as connection:
        return [FailureCount(*row) for row in connection.execute(query)]


def count(items: Iterable[tuple[Unsuccessful, int]]) -> list[FailureCount]:
    """As `counted`, of these, each with how many requests it stands for."""
    found: Counter[tuple[str, str]] = Counter()
    for item, times in items:
        found[item.code, item.outcome] += times
    order = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
    return [FailureCount(code, outcome, times) for (code, outcome), times in order]
