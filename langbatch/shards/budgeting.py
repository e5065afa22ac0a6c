"""A budget for a job: whether it can be kept at all, and the bounds that its shards reserve."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from langbatch.errors import SetupError
from langbatch.folders import JobFolder
from langbatch.money.costs import Budget, Commitment, budget_refusal, cost_of_usage, nanos, of_nanos
from langbatch.money.prices import read_prices
from langbatch.money.pricing import Pricing, bounds_of, price_of_answers
from langbatch.records import Attempt, Bounds, Job, OnProgress, Progress, Shard, Target
from langbatch.shards.sharding import ShardPlan
from langbatch.shards.snapshot import Snapshot
from langbatch.targets import account_label

if TYPE_CHECKING:
    from langbatch.store.store import JobStore

#: Requests; counting a few thousand takes a second.
_TELL_EVERY = 500
#: Ends of attempts that certainly had no batch.
_UNPAID_ENDS = frozenset(
    {"quota_bounced", "cancelled_unsent", "moved_away", "upload_lost", "file_unusable", "no_batch"}
)


def pricing_for(
    store: JobStore | None, home: Path, targets: Sequence[Target], models: Sequence[str | None]
) -> Pricing:
    """Prices, and what is known of these targets' models. `store` None: there is none yet. Raises
    `SetupError` for a price file that cannot be read."""
    prices = read_prices(home)
    if store is None:
        return Pricing(prices)
    from langbatch.store.budgets import learnt_models

    labels = {account_label(target, model) for target in targets for model in (models or [None])}
    return Pricing(prices, learnt_models(store, sorted(labels)))


def currency_of(targets: Sequence[Target], models: Sequence[str | None], pricing: Pricing) -> str | None:
    """Of the prices of everything that may be sent; None where a price is unknown, or they differ."""
    prices = [pricing.price_at(target, model) for target in targets for model in (models or [None])]
    found = {None if price is None else price.currency for price in prices}
    return found.pop() if len(found) == 1 else None


def require_currency(
    budget: Budget, targets: Sequence[Target], models: Sequence[str | None], pricing: Pricing
) -> str | None:
    """The currency of what is sent, None where its price is not known; that is a `SetupError` where money is
    limited."""
    currency = currency_of(targets, models, pricing)
    if currency is None and budget.max_cost is not None:
        _refuse(Budget(max_cost=budget.max_cost), Bounds(input_tokens=0, tokens=0, cautious_tokens=0))
    return currency


def bound_plans(
    snapshot: Snapshot,
    plans: Sequence[ShardPlan],
    targets: Sequence[Target],
    budget: Budget,
    pricing: Pricing,
    on_progress: OnProgress | None = None,
) -> list[ShardPlan]:
    """The plans with their bounds. `SetupError` where the budget could never be kept: a price is unknown, or
    an output has no bound."""
    bounded: list[ShardPlan] = []
    for plan in plans:
        lines = snapshot.lines(plan.first, plan.count, plan.byte_start)
        bounds = bounds_of(_told(lines, plan.first, snapshot.total, on_progress), targets, pricing)
        _refuse(budget, bounds)
        bounded.append(replace(plan, bounds=bounds))
    return bounded


def bound_draft(
    store: JobStore,
    home: Path,
    job: Job,
    snapshot: Snapshot,
    plans: Sequence[ShardPlan],
    on_progress: OnProgress | None,
) -> list[ShardPlan]:
    """As `bound_plans`, for a draft that was given a budget before it had shards."""
    pricing = pricing_for(store, home, job.targets, [plan.model for plan in plans])
    cost = None if job.max_cost_nanos is None else of_nanos(job.max_cost_nanos)
    return bound_plans(snapshot, plans, job.targets, Budget(job.max_tokens, cost), pricing, on_progress)


def bounds_of_pending(
    store: JobStore, snapshot: Snapshot, job: Job, shard: Shard, pricing: Pricing
) -> Bounds:
    """Of the requests that the shard's next attempt sends: all, or those that have no success."""
    failed = store.unsuccessful(job.key, shard.first, shard.requests)
    wanted = {item.ordinal for item in failed} if failed else None
    lines = snapshot.lines(shard.first, shard.requests, shard.byte_start)
    return bounds_of(_chosen(lines, shard.first, wanted), job.targets, pricing)


def change_budget(
    store: JobStore, home: Path, job: Job, budget: Budget, on_progress: OnProgress | None = None
) -> None:
    """Give a stored job a budget, or another one. `SetupError` where it could not be kept; nothing is
    changed then. What was sent before counts with what it used, or else with its bound."""
    from langbatch.store.budgets import Change, commitments, set_budget, used_by_attempts

    pairs = store.shards(job.key)
    models = sorted({shard.model for shard, _ in pairs if shard.model})
    pricing = pricing_for(store, home, job.targets, models)
    currency = require_currency(budget, job.targets, models, pricing)
    if budget.max_cost is not None and job.currency not in (None, currency):
        raise SetupError(
            f"this job's costs are counted in {job.currency}, and prices are in {currency} now",
            hint="change the price file back, or cancel the job and submit it anew",
        )
    snapshot = Snapshot(JobFolder.of(home, job.id).path)
    known, used = commitments(store, job.key), used_by_attempts(store, job.key)
    bounds: dict[int, Bounds] = {}
    committed: dict[tuple[int, int], tuple[int | None, int | None]] = {}
    for shard, _ in pairs:
        if shard.state != "done" and _is_short(budget, shard.bounds):
            bounds[shard.index] = bounds_of_pending(store, snapshot, job, shard, pricing)
            _refuse(budget, bounds[shard.index])
        for attempt in store.attempts(job.key, shard.index):
            place = (shard.index, attempt.number)
            tokens, cost = known[place]
            if tokens is not None and (cost is not None or budget.max_cost is None):
                continue
            answers, usage = used[place]
            target = job.targets[attempt.target]
            if _unpaid(shard, attempt):
                committed[place] = (0, 0)
            elif attempt.ended_as == "harvested" and shard.tally.missing == shard.tally.unreadable == 0:
                price = price_of_answers(pricing.prices, target, shard.model, answers)
                spent = cost_of_usage(usage, price)
                in_all = (usage.input_tokens or 0) + (usage.output_tokens or 0)
                free = usage.input_tokens is None and usage.output_tokens is None
                committed[place] = (in_all, 0 if free else None if spent is None else nanos(spent))
            else:
                whole = bounds_of(snapshot.lines(shard.first, shard.requests), job.targets, pricing)
                committed[place] = (whole.cautious_tokens, whole.cautious_cost_nanos)
    set_budget(store, job.key, Change(budget, currency, bounds, committed))


def _is_short(budget: Budget, bounds: Bounds) -> bool:
    return bounds.tokens is None or (budget.max_cost is not None and bounds.cost_nanos is None)


def _unpaid(shard: Shard, attempt: Attempt) -> bool:
    if attempt.ended_as in _UNPAID_ENDS or (attempt.ended_as == "refused" and attempt.batch_id is None):
        return True
    return attempt.ended_at is None and shard.attempt == attempt.number and shard.state == "waiting"


def _refuse(budget: Budget, bounds: Bounds) -> None:
    """Raise what no waiting would mend. Shards that are too large may be cut; those wait."""
    cost = None if bounds.cautious_cost_nanos is None else of_nanos(bounds.cautious_cost_nanos)
    refusal = budget_refusal(budget, Commitment(), Commitment(bounds.cautious_tokens, cost))
    if refusal is not None and refusal.code in ("unknown_price", "unbounded_output"):
        raise SetupError(
            f"{refusal.message}; nothing was sent",
            hint=f"{refusal.hint}. `langbatch prices` shows the file and what it knows",
            code=refusal.code,
        )


def _chosen(lines: Iterator[bytes], first: int, wanted: Container[int] | None) -> Iterator[bytes]:
    return (line for ordinal, line in enumerate(lines, first) if wanted is None or ordinal in wanted)


def _told(lines: Iterator[bytes], first: int, total: int, on_progress: OnProgress | None) -> Iterator[bytes]:
    for number, line in enumerate(lines, first + 1):
        yield line
        if on_progress is not None and (number % _TELL_EVERY == 0 or number == total):
            on_progress(Progress("count", number, total, "requests"))
