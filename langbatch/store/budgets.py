"""A job's budget: set, looked at, waited for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import sqlalchemy as sa

from langbatch.money.costs import Budget, Commitment, nanos
from langbatch.records import Bounds, Usage
from langbatch.store import rows
from langbatch.store.commitments import committed, require_room, wake
from langbatch.store.schema import attempts, jobs, shards
from langbatch.store.store import JobStore
from langbatch.store.transitions import Claim


@dataclass(frozen=True, slots=True)
class Spending:
    """What the attempts of one target and model used, as far as it was reported."""

    #: The target's place among the job's.
    place: int
    #: The model that the lines name.
    model: str | None
    #: The model that the answers name.
    answer_model: str | None
    usage: Usage


@dataclass(frozen=True, slots=True)
class Change:
    """What a budget brings with it: bounds of shards by index, and commitments of attempts that were made
    without one, by shard and number."""

    budget: Budget
    currency: str | None = None
    bounds: Mapping[int, Bounds] = field(default_factory=dict)
    committed: Mapping[tuple[int, int], tuple[int | None, int | None]] = field(default_factory=dict)


def set_budget(store: JobStore, job: int, change: Change) -> None:
    """Limit a job from now on; a limit that `change` leaves out stays as it was."""
    budget = change.budget
    values: dict[str, object] = {"currency": sa.func.coalesce(jobs.c.currency, change.currency)}
    if budget.max_tokens is not None:
        values["max_tokens"] = budget.max_tokens
    if budget.max_cost is not None:
        values["max_cost_nanos"] = nanos(budget.max_cost)
    with store._writing() as tx:
        tx.execute(jobs.update().where(jobs.c.key == job).values(**values))
        for index, bounds in change.bounds.items():
            this = (shards.c.job == job, shards.c.index == index)
            tx.execute(shards.update().where(*this).values(**rows.from_bounds(bounds)))
        for (shard, number), (tokens, cost) in change.committed.items():
            attempt = (attempts.c.job == job, attempts.c.shard == shard, attempts.c.number == number)
            facts = {"committed_tokens": tokens, "committed_cost_nanos": cost}
            tx.execute(attempts.update().where(*attempt).values(**facts))
        wake(tx, job)
        note = f"{budget.max_tokens or ''} {budget.max_cost or ''} {change.currency or ''}".strip()
        tx.log(job, None, None, "budget_set", None, None, note)
        if tx.execute(sa.select(jobs.c.state).where(jobs.c.key == job)).scalar() != "draft":
            tx.refresh_job(job)


def committed_by(store: JobStore, job: int) -> Commitment:
    """What is used up or reserved of a job's budget."""
    with store._reading() as connection:
        return committed(connection, job)


def commitments(store: JobStore, job: int) -> dict[tuple[int, int], tuple[int | None, int | None]]:
    """Tokens and billionths of each attempt, by shard and number."""
    query = sa.select(
        attempts.c.shard, attempts.c.number, attempts.c.committed_tokens, attempts.c.committed_cost_nanos
    ).where(attempts.c.job == job)
    with store._reading() as connection:
        return {(row[0], row[1]): (row[2], row[3]) for row in connection.execute(query)}


def used_by_attempts(store: JobStore, job: int) -> dict[tuple[int, int], tuple[str | None, Usage]]:
    """The answers' model and the usage of each attempt, by shard and number."""
    query = sa.select(
        attempts.c.shard,
        attempts.c.number,
        attempts.c.answer_model,
        attempts.c.input_tokens,
        attempts.c.output_tokens,
        attempts.c.cached_tokens,
    ).where(attempts.c.job == job)
    with store._reading() as connection:
        return {(row[0], row[1]): (row[2], Usage(*row[3:6])) for row in connection.execute(query)}


def check_room(store: JobStore, claim: Claim, number: int, bounds: Bounds) -> None:
    """`OverBudget` where attempt `number` would not fit now."""
    with store._reading() as connection:
        require_room(connection, claim, number, bounds)


def wait_for_room(store: JobStore, claim: Claim, attention: str, due_at: float) -> None:
    """The claimed shard waits for the budget. Where nothing else of the job can give anything back, all that
    wait are blocked: only a person can raise it."""
    with store._writing() as tx:
        row = tx.require(claim)
        facts = {"waits_for": "budget", "attention": attention, "due_at": due_at, "blocker": None}
        tx.patch(claim, row.attempt, {**facts, "troubles": 0, "crashes": 0, "not_before": 0.0}, {})
        waiting = (shards.c.job == claim.job, shards.c.waits_for == "budget", shards.c.state != "done")
        moving = tx.execute(_MOVING, {"job": claim.job}).scalar_one()
        if not moving:
            tx.execute(shards.update().where(*waiting).values(blocker="budget", due_at=due_at))
        tx.refresh_job(claim.job)


def spendings(store: JobStore, job: int | None = None) -> dict[int, list[Spending]]:
    """By job, of all or of this one: what its attempts used, summed by target and model. Attempts without
    any report are left out."""
    query = _SPENDINGS if job is None else _SPENDINGS.where(attempts.c.job == job)
    found: dict[int, list[Spending]] = {}
    with store._reading() as connection:
        for row in connection.execute(query):
            usage = Usage(*(None if sum_ is None else int(sum_) for sum_ in row[4:7]))
            found.setdefault(row.job, []).append(Spending(row.target, row.model, row.answer_model, usage))
    return found


def learnt_models(store: JobStore, labels: list[str]) -> dict[str, str]:
    """The model that each deployment's newest answers named, by the name of its quota."""
    newest = sa.select(sa.func.max(attempts.c.ended_at)).where(
        attempts.c.account == sa.bindparam("label"), attempts.c.answer_model.is_not(None)
    )
    query = sa.select(attempts.c.answer_model).where(
        attempts.c.account == sa.bindparam("label"),
        attempts.c.answer_model.is_not(None),
        attempts.c.ended_at == newest.scalar_subquery(),
    )
    found: dict[str, str] = {}
    with store._reading() as connection:
        for label in labels:
            model = connection.execute(query.limit(1), {"label": label}).scalar()
            if model is not None:
                found[label] = str(model)
    return found


#: Shards that may yet end, and give back what they did not use.
_MOVING = (
    sa.select(sa.func.count())
    .select_from(shards)
    .where(
        shards.c.job == sa.bindparam("job"),
        shards.c.state.not_in(("done", "needs_operator")),
        sa.or_(shards.c.waits_for.is_(None), shards.c.waits_for != "budget"),
    )
)
_SPENDINGS = (
    sa.select(
        attempts.c.job,
        attempts.c.target,
        shards.c.model,
        attempts.c.answer_model,
        sa.func.sum(attempts.c.input_tokens).label("inputs"),
        sa.func.sum(attempts.c.output_tokens).label("outputs"),
        sa.func.sum(attempts.c.cached_tokens).label("cached"),
    )
    .select_from(
        attempts.join(shards, sa.and_(shards.c.job == attempts.c.job, shards.c.index == attempts.c.shard))
    )
    .where(sa.or_(attempts.c.input_tokens.is_not(None), attempts.c.output_tokens.is_not(None)))
    .group_by(attempts.c.job, attempts.c.target, shards.c.model, attempts.c.answer_model)
)
