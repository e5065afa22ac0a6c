"""What a job's requests will run on, at each of its targets, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Literal

from langbatch.errors import SetupError
from langbatch.money.costs import (
    CostRange,
    commitment,
    cost_estimate,
    cost_of_tokens,
    cost_of_usage,
    nanos,
)
from langbatch.money.estimates import Estimate, Estimator, total
from langbatch.money.prices import Price, PriceList
from langbatch.money.tokens import counter_for
from langbatch.records import Bounds, Target, Usage
from langbatch.targets import BYTES_PER_TOKEN, account_label, growth_bytes

Counter = Literal["counted", "estimated"]


@dataclass(frozen=True, slots=True)
class Pricing:
    """`learnt`: the model that a deployment's answers have named, by the name of its quota."""

    prices: PriceList
    learnt: Mapping[str, str] = field(default_factory=dict)

    def model_at(self, target: Target, named: str | None) -> str | None:
        """The model that runs lines which name `named`; None where nobody has said."""
        name = target.model or named
        if name is None:
            return None
        seen = self.learnt.get(account_label(target, named))
        return self.prices.model_of(
            name, learnt={name: seen} if seen else None, is_model=target.provider == "openai"
        )

    def price_at(self, target: Target, named: str | None) -> Price | None:
        return self.prices.price_of(self.model_at(target, named))

    def estimator(self, target: Target, *, count_all: bool = False) -> Estimator:
        """For lines that go to `target`."""
        behind = self.model_at(target, None)
        return Estimator(
            target.kind,
            model=behind,
            model_of=lambda name: self.model_at(target, name),
            count_all=count_all,
        )


# ---------------------------------------------------------------- bounds, for budgets


def bounds_of(lines: Iterable[bytes], targets: Sequence[Target], pricing: Pricing) -> Bounds:
    """The most that these request lines can use, at whichever of `targets` uses most. Each is counted.

    `SetupError` (`unbounded_input`) where some of their input is not in them: nobody can bound that."""
    distinct = _distinct(targets, pricing)
    estimators = [pricing.estimator(target, count_all=True) for target in distinct]
    requests = size = 0
    for line in lines:
        requests += 1
        size += len(line)
        for estimator in estimators:
            estimator.add(line, 0)
    finished = [
        estimator.finish(_never, most_output=pricing.prices.most_output_tokens) for estimator in estimators
    ]
    elsewhere = next((name for each in finished if (name := total(each).elsewhere)), None)
    if elsewhere is not None:
        raise SetupError(
            f"the job has a budget, but {elsewhere} brings input that is not in the requests and has no "
            "bound; nothing was sent",
            hint="write that input into the requests, or send them without --max-cost and --max-tokens",
            code="unbounded_input",
        )
    sent = size + requests * max(growth_bytes(target) for target in targets)
    least = -(-sent // BYTES_PER_TOKEN)
    found = [_bounds(each, pricing, least) for each in finished]
    return Bounds(
        _most(each.input_tokens for each in found),
        _most(each.tokens for each in found),
        _most(each.cost_nanos for each in found),
        _most(each.cautious_tokens for each in found),
        _most(each.cautious_cost_nanos for each in found),
    )


def _bounds(estimates: Mapping[str | None, Estimate], pricing: Pricing, least_input: int) -> Bounds:
    whole = total(estimates)
    prices = {model: pricing.prices.price_of(model) for model in estimates}
    costs = [commitment(estimate, prices[model]).cost for model, estimate in estimates.items()]
    cost = None if None in costs else sum((cost for cost in costs if cost is not None), Decimal(0))
    more = max(least_input - whole.high, 0)
    tokens = commitment(whole, None).tokens
    known = [price for price in prices.values() if price is not None]
    dearest = max((cost_of_tokens(price, more, 0) for price in known), default=Decimal(0))
    return Bounds(
        whole.high,
        tokens,
        None if cost is None else nanos(cost),
        None if tokens is None else tokens + more,
        None if cost is None else nanos(cost + dearest),
    )


def _most(values: Iterable[int | None]) -> int | None:
    given = list(values)
    known = [value for value in given if value is not None]
    return max(known) if known and len(known) == len(given) else None


def _never(offset: int, length: int) -> bytes:
    raise AssertionError("every request was counted while it passed")


def _distinct(targets: Sequence[Target], pricing: Pricing) -> list[Target]:
    """One target of each that would be estimated alike."""
    alike: dict[object, Target] = {}
    for target in targets:
        behind = pricing.model_at(target, None)
        alike.setdefault((behind,) if target.model else (target.provider, target.host), target)
    return list(alike.values())


# ---------------------------------------------------------------- forecasts, for people


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a file will use. `cost` is None where it is not known, and `cost_unknown` says why.

    `counter`: with the models' own vocabularies (`counted`), or by kinds of characters (`estimated`).
    """

    tokens: Estimate
    counter: Counter
    cost: CostRange | None
    as_of: date | None
    cost_unknown: str | None


def forecast(
    lines: Callable[[], Iterable[bytes]],
    read: Callable[[int, int], bytes],
    targets: Sequence[Target],
    pricing: Pricing,
) -> Forecast:
    """Small files are counted, of large ones a sample. `read(offset, length)` gives a line again. Where
    targets differ, tokens are those of the first and costs reach from the least to the most."""
    found = []
    for target in _distinct(targets, pricing):
        estimator = pricing.estimator(target)
        offset = 0
        for line in lines():
            estimator.add(line, offset)
            offset += len(line)
        found.append(estimator.finish(read, most_output=pricing.prices.most_output_tokens))
    exact = all(counter_for(model).high == 1.0 for models in found for model in models)
    costs = [
        cost_estimate(estimate, pricing.prices.price_of(model))
        for models in found
        for model, estimate in models.items()
    ]
    prices = [price for models in found for model in models if (price := pricing.prices.price_of(model))]
    dates = [price.as_of for price in prices if price.as_of is not None]
    unknown = None
    if None in costs:
        unknown = "nobody has said which model the deployment runs, or what that model costs"
    elif len({price.currency for price in prices}) > 1:
        unknown = "prices are in several currencies"
    cost = None
    if unknown is None and prices:
        sums = [_sum_of(models, pricing) for models in found]
        highs = [each.high for each in sums]
        cost = CostRange(
            min(each.low for each in sums),
            None if None in highs else max(high for high in highs if high is not None),
            prices[0].currency,
        )
    return Forecast(
        total(found[0]), "counted" if exact else "estimated", cost, min(dates, default=None), unknown
    )


def _sum_of(models: Mapping[str | None, Estimate], pricing: Pricing) -> CostRange:
    low, high, currency = Decimal(0), Decimal(0), ""
    bounded = True
    for model, estimate in models.items():
        cost = cost_estimate(estimate, pricing.prices.price_of(model))
        assert cost is not None
        low += cost.low
        bounded = bounded and cost.high is not None
        high += cost.high or 0
        currency = cost.currency
    return CostRange(low, high if bounded else None, currency)


# ---------------------------------------------------------------- what was spent


def price_of_answers(
    prices: PriceList, target: Target, named: str | None, answers: str | None
) -> Price | None:
    """Of answers that name the model `answers`; what the user says of the deployment beats it."""
    seen = {} if answers is None else {account_label(target, named): answers}
    return Pricing(prices, seen).price_at(target, named)


def usage_cost(parts: Iterable[tuple[Usage, Price | None]]) -> tuple[Decimal, str, date | None] | None:
    """The cost, its currency and its prices' date; None where something of it is not known."""
    amount, currency, as_of = Decimal(0), None, None
    for usage, price in parts:
        if not (usage.input_tokens or usage.output_tokens):
            continue  # answers that used nothing named no model either
        cost = cost_of_usage(usage, price)
        if cost is None or price is None or currency not in (None, price.currency):
            return None
        amount, currency = amount + cost, price.currency
        dates = [day for day in (as_of, price.as_of) if day is not None]
        as_of = min(dates, default=None)
    return None if currency is None else (amount, currency, as_of)
