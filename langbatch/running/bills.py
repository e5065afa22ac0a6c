"""What jobs have cost by the price list, and what is left of their budgets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from langbatch.errors import SetupError
from langbatch.money.costs import exact_text
from langbatch.money.prices import Price, PriceList, read_prices
from langbatch.money.pricing import price_of_answers, usage_cost
from langbatch.records import Attempt, Job, Shard, Usage
from langbatch.status import BudgetStatus, CostStatus, budget_status
from langbatch.store.budgets import Spending, committed_by, spendings
from langbatch.store.store import JobStore


@dataclass
class Bills:
    """For any number of jobs, read at once; `job`: for this one only."""

    store: JobStore
    home: Path
    job: int | None = None

    @cached_property
    def _prices(self) -> PriceList | None:
        try:
            return read_prices(self.home)
        except SetupError:
            return None  # a damaged price file must not keep a status from being told

    @cached_property
    def _spendings(self) -> Mapping[int, Sequence[Spending]]:
        return spendings(self.store, self.job)

    def cost(self, job: Job, shards: Iterable[tuple[Shard, Attempt | None]]) -> CostStatus | None:
        """None where it is not known. Before any usage is, nothing is read for it."""
        used = job.usage
        if (used.input_tokens is None and used.output_tokens is None) or self._prices is None:
            return None
        prices = self._prices
        parts: list[tuple[Usage, Price | None]] = []
        for part in self._spendings.get(job.key, ()):
            target = job.targets[part.place]
            parts.append((part.usage, price_of_answers(prices, target, part.model, part.answer_model)))
        known = sum((usage.input_tokens or 0) + (usage.output_tokens or 0) for usage, _ in parts)
        if known != (used.input_tokens or 0) + (used.output_tokens or 0):
            # Attempts of a job that was recovered have no sums of their own.
            models = {shard.model for shard, _ in shards}
            if len(models) > 1 or len(job.targets) > 1:
                return None
            parts = [(used, price_of_answers(prices, job.target, models.pop() if models else None, None))]
        found = usage_cost(parts)
        if found is None:
            return None
        amount, currency, as_of = found
        return CostStatus(exact_text(amount), currency, None if as_of is None else as_of.isoformat())

    def budget(self, job: Job) -> BudgetStatus | None:
        """None where there is none."""
        return budget_status(job, committed_by(self.store, job.key)) if job.has_budget else None
