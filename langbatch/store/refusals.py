"""The deployments whose newest ended batch was refused as a whole, read off the attempts."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from langbatch.store.schema import attempts
from langbatch.store.store import JobStore


@dataclass(frozen=True, slots=True)
class Refusal:
    """`label` is the deployment's, as in quotas: `azure/my-resource.openai.azure.com/my-deployment`."""

    label: str
    code: str
    message: str
    at: float


def newest(store: JobStore, label_prefix: str) -> list[Refusal]:
    """Of every deployment under the prefix, what its newest ended batch was refused for; one that has run
    something since is not among them."""
    query = (
        sa.select(
            attempts.c.account,
            attempts.c.ended_as,
            attempts.c.batch_status,
            attempts.c.fault_code,
            attempts.c.fault_message,
            attempts.c.ended_at,
        )
        .where(attempts.c.account.startswith(label_prefix, autoescape=True))
        .where(attempts.c.ended_as.in_(("refused", "harvested")))
        .order_by(attempts.c.ended_at, attempts.c.job, attempts.c.shard, attempts.c.number)
    )
    with store._reading() as connection:
        last = {row.account: row for row in connection.execute(query)}
    return [
        Refusal(row.account, row.fault_code, row.fault_message or "", row.ended_at)
        for row in last.values()
        if row.fault_code and (row.ended_as == "refused" or row.batch_status == "failed")
    ]
