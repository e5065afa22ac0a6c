"""A job's budget inside a transaction: what is used up or spoken for, and whether another attempt fits.

Each attempt carries its own commitment: its bound from the upload's intent on, nothing once it is certain
that no batch of it can cost anything, and what it used once that is known. So the sum over a job's attempts
is the most that will have to be paid, whatever crashes in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from langbatch.errors import BatchStateError
from langbatch.lifecycle import Move
from langbatch.money.costs import Budget, Commitment, budget_refusal, of_nanos, short_text
from langbatch.records import Bounds
from langbatch.store.rows import BOUNDS
from langbatch.store.schema import attempts, jobs, shards
from langbatch.store.transitions import Claim, Writing

#: After these it is certain that the newest attempt has no batch that could cost anything.
RELEASING: Final[frozenset[Move]] = frozenset(
    {
        "upload_not_now",
        "upload_lost",
        "upload_refused",
        "file_unusable",
        "moved_away",
        "create_refused",
        "batch_ruled_out",
        "quota_bounced",
        "stopped_by_fence",
        "cancelled_unsent",
    }
)
#: What such an attempt's row says.
NOTHING: Final = {"committed_tokens": 0, "committed_cost_nanos": 0}


class OverBudget(BatchStateError):
    """The budget has no room for an attempt. Nothing was written. The message is for people."""

    code = "budget"


@dataclass(frozen=True, slots=True)
class _Limits:
    budget: Budget
    currency: str
    counts_agree: bool


def reserve(tx: Writing, claim: Claim, number: int, bounds: Bounds) -> dict[str, Any]:
    """The columns that commit attempt `number` to its bounds; `OverBudget` where they do not fit."""
    limits = _limits(tx.connection, claim.job, _BUDGET_TO_SPEND)
    if limits is None:
        return {"committed_tokens": None, "committed_cost_nanos": None}
    tokens, cost = amounts(bounds, limits.counts_agree)
    _require(tx.connection, limits, claim, number, tokens, cost)
    return {
        "committed_tokens": tokens,
        "committed_cost_nanos": cost,
        "counted_input_tokens": bounds.input_tokens,
    }


def confirm(tx: Writing, claim: Claim) -> dict[str, Any]:
    """As `reserve`, for the newest attempt as it was reserved: the budget may be another by now."""
    limits = _limits(tx.connection, claim.job, _BUDGET_TO_SPEND)
    if limits is None:
        return {}
    row = tx.execute(_NEWEST, {"job": claim.job, "index": claim.index}).one()
    bounds = Bounds(*(row._mapping[name] for name in BOUNDS))
    if row.committed_tokens is None:  # the job had no budget when it was uploaded
        return reserve(tx, claim, row.number, bounds)
    cost = row.committed_cost_nanos
    if cost is None:
        _, cost = amounts(bounds, limits.counts_agree)
    _require(tx.connection, limits, claim, row.number, row.committed_tokens, cost)
    return {"committed_cost_nanos": cost}


def commit_unasked(tx: Writing, claim: Claim) -> dict[str, Any]:
    """The columns of an attempt that turns out to have a batch, whether it fits the budget or not."""
    limits = _limits(tx.connection, claim.job)
    if limits is None:
        return {}
    row = tx.execute(_NEWEST, {"job": claim.job, "index": claim.index}).one()
    tokens, cost = amounts(Bounds(*(row._mapping[name] for name in BOUNDS)), counts_agree=False)
    return {"committed_tokens": tokens, "committed_cost_nanos": cost}


def require_room(connection: Connection, claim: Claim, number: int, bounds: Bounds) -> None:
    """As `reserve`, without writing: before a payload is made that could not be sent."""
    limits = _limits(connection, claim.job)
    if limits is not None:
        _require(connection, limits, claim, number, *amounts(bounds, limits.counts_agree))


def amounts(bounds: Bounds, counts_agree: bool) -> tuple[int | None, int | None]:
    """Tokens and billionths to reserve."""
    if counts_agree:
        return bounds.tokens, bounds.cost_nanos
    return bounds.cautious_tokens, bounds.cautious_cost_nanos


def committed(connection: Connection, job: int, but: tuple[int, int] = (-1, -1)) -> Commitment:
    """By all attempts of a job, except one (shard, number)."""
    shard, number = but
    row = connection.execute(_SUMS, {"job": job, "shard": shard, "number": number}).one()
    cost = None if row.costs < row.attempts else of_nanos(int(row.cost or 0))
    return Commitment(None if row.tokens_known < row.attempts else int(row.tokens or 0), cost)


def wake(tx: Writing, job: int) -> None:
    """Something was given back: shards that wait for the budget look at once."""
    tx.execute(_WAKE, {"of_job": job})


def note_counts(tx: Writing, job: int, agree: bool) -> None:
    """Whether a service counted no more input than we had; one that ever did is not trusted again."""
    trusted = sa.or_(jobs.c.counts_agree.is_(None), jobs.c.counts_agree.is_(True))
    tx.execute(jobs.update().where(jobs.c.key == job, trusted).values(counts_agree=agree))


def _limits(connection: Connection, job: int, query: sa.Select[Any] | None = None) -> _Limits | None:
    row = connection.execute(_BUDGET if query is None else query, {"job": job}).one()
    if row.max_tokens is None and row.max_cost_nanos is None:
        return None
    cost = None if row.max_cost_nanos is None else of_nanos(row.max_cost_nanos)
    return _Limits(Budget(row.max_tokens, cost), row.currency or "", bool(row.counts_agree))


def _require(
    connection: Connection, limits: _Limits, claim: Claim, number: int, tokens: int | None, cost: int | None
) -> None:
    wanted = Commitment(tokens, None if cost is None else of_nanos(cost))
    gone = committed(connection, claim.job, (claim.index, number))
    refusal = budget_refusal(limits.budget, gone, wanted)
    if refusal is None:
        return
    if refusal.code == "max_cost_exceeded":
        assert limits.budget.max_cost is not None
        assert gone.cost is not None
        assert wanted.cost is not None
        raise OverBudget(
            _words(
                f"{short_text(limits.budget.max_cost)} {limits.currency}",
                None if gone.cost == Decimal(0) else short_text(gone.cost),
                f"cost {short_text(wanted.cost)}",
            )
        )
    if refusal.code == "max_tokens_exceeded":
        used = f"{gone.tokens:,}" if gone.tokens else None
        raise OverBudget(_words(f"{limits.budget.max_tokens:,} tokens", used, f"take {wanted.tokens:,}"))
    raise OverBudget(f"{refusal.message}: {refusal.hint}")


def _words(budget: str, gone: str | None, may: str) -> str:
    if gone is None:
        return f"the budget of {budget} is too small: one shard may {may}"
    return f"the budget of {budget} is used up or reserved: {gone} are gone, and a further shard may {may}"


_BUDGET = sa.select(jobs.c.max_tokens, jobs.c.max_cost_nanos, jobs.c.currency, jobs.c.counts_agree).where(
    jobs.c.key == sa.bindparam("job")
)
#: Two writers at once are possible on servers; SQLite, which has one, ignores the lock.
_BUDGET_TO_SPEND = _BUDGET.with_for_update()
_NEWEST = (
    sa.select(
        attempts.c.number,
        attempts.c.committed_tokens,
        attempts.c.committed_cost_nanos,
        *(shards.c[name] for name in BOUNDS),
    )
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
    .where(shards.c.job == sa.bindparam("job"), shards.c.index == sa.bindparam("index"))
)
_SUMS = sa.select(
    sa.func.count().label("attempts"),
    sa.func.count(attempts.c.committed_tokens).label("tokens_known"),
    sa.func.count(attempts.c.committed_cost_nanos).label("costs"),
    sa.func.sum(attempts.c.committed_tokens).label("tokens"),
    sa.func.sum(attempts.c.committed_cost_nanos).label("cost"),
).where(
    attempts.c.job == sa.bindparam("job"),
    sa.or_(attempts.c.shard != sa.bindparam("shard"), attempts.c.number != sa.bindparam("number")),
)
_WAKE = (
    shards.update()
    .where(
        shards.c.job == sa.bindparam("of_job"),
        shards.c.waits_for == "budget",
        shards.c.state.in_(("waiting", "uploaded")),
    )
    .values(due_at=0.0, blocker=None)
)
