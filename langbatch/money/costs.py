"""Tokens and a price → money, and whether a budget has room. Pure.

A cost is None where it is not known; a limit on money never lets an unknown cost pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import TYPE_CHECKING, Final, Literal

from langbatch.errors import SetupError
from langbatch.records import Usage

if TYPE_CHECKING:  # the store needs budgets at every start, and none of these
    from langbatch.money.estimates import Estimate
    from langbatch.money.prices import Price

#: Amounts of money are stored as whole billionths: sums of them are exact in every database.
NANOS: Final = 10**9


@dataclass(frozen=True, slots=True)
class CostRange:
    """Before sending: input between its bounds, output between nothing and its bound.

    `low` is the input alone; `high` is None where the output has no bound, or some input is elsewhere.
    """

    low: Decimal
    high: Decimal | None
    currency: str


def cost_of_tokens(price: Price, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> Decimal:
    """In a batch, discounted. `cached_tokens` are part of `input_tokens`, as services report them."""
    cached = min(max(cached_tokens, 0), input_tokens)
    cached_price = price.input if price.cached_input is None else price.cached_input
    full = (input_tokens - cached) * price.input + cached * cached_price
    full += output_tokens * (price.output or Decimal(0))
    return full * (1 - price.batch_discount) / price.per_tokens


def cost_of_usage(usage: Usage, price: Price | None) -> Decimal | None:
    """What answers have cost. Reasoning tokens are part of the output, as services report them.

    None where the price is unknown, or no service reported any tokens.
    """
    if price is None or (usage.input_tokens is None and usage.output_tokens is None):
        return None
    return cost_of_tokens(price, usage.input_tokens or 0, usage.output_tokens or 0, usage.cached_tokens or 0)


def cost_estimate(estimate: Estimate, price: Price | None) -> CostRange | None:
    """None where the price is unknown."""
    if price is None:
        return None
    output = 0 if price.output is None else estimate.output_tokens_at_most
    if estimate.elsewhere is not None:
        output = None
    return CostRange(
        cost_of_tokens(price, estimate.low, 0),
        None if output is None else cost_of_tokens(price, estimate.high, output),
        price.currency,
    )


def nanos(amount: Decimal) -> int:
    """In billionths, rounded up: what is reserved must never be too little."""
    return int((amount * NANOS).to_integral_value(ROUND_CEILING))


def of_nanos(amount: int) -> Decimal:
    return Decimal(amount) / NANOS


def exact_text(amount: Decimal) -> str:
    """For programs: to the billionth, two decimals at least, never an exponent."""
    whole, _, rest = f"{amount:.9f}".partition(".")
    return f"{whole}.{rest.rstrip('0'):0<2}"


def short_text(amount: Decimal) -> str:
    """For people: two decimals; small amounts with two digits that say something."""
    if amount >= 1 or amount == 0:
        return f"{amount:.2f}"
    return f"{amount.quantize(Decimal(1).scaleb(min(amount.adjusted() - 1, -2))):f}"


# ---------------------------------------------------------------- budgets


@dataclass(frozen=True, slots=True)
class Budget:
    """`--max-tokens`, input and output together, and `--max-cost`. None: no limit."""

    max_tokens: int | None = None
    max_cost: Decimal | None = None

    @property
    def limits_anything(self) -> bool:
        return self.max_tokens is not None or self.max_cost is not None

    @classmethod
    def of(cls, max_cost: Decimal | float | str | None, max_tokens: int | None) -> Budget:
        """As users give it; `SetupError` for what is no amount above 0."""
        cost = None
        if max_cost is not None:
            try:
                cost = Decimal(str(max_cost))
            except InvalidOperation:
                cost = Decimal(0)
            if not cost.is_finite() or cost <= 0 or cost >= Decimal(2**63) / NANOS:
                raise SetupError(
                    f"max_cost is {str(max_cost)[:40]!r}, not an amount above 0", hint="25 or 0.50"
                )
        if max_tokens is not None and (isinstance(max_tokens, bool) or not 0 < max_tokens < 2**63):
            raise SetupError(f"max_tokens is {max_tokens!r}, not a whole number above 0")
        return cls(max_tokens, cost)


@dataclass(frozen=True, slots=True)
class Commitment:
    """What is used up or spoken for, at most. None: it cannot be said.

    A shard's is reserved in the transaction of its create and replaced by what it used once it has ended.
    """

    tokens: int | None = 0
    cost: Decimal | None = Decimal(0)

    def __add__(self, other: Commitment) -> Commitment:
        return Commitment(
            None if self.tokens is None or other.tokens is None else self.tokens + other.tokens,
            None if self.cost is None or other.cost is None else self.cost + other.cost,
        )


def commitment(estimate: Estimate, price: Price | None) -> Commitment:
    """The most that these requests can use: the input's upper end, and the output's bound."""
    output = estimate.output_tokens_at_most
    cost = cost_estimate(estimate, price)
    return Commitment(None if output is None else estimate.high + output, None if cost is None else cost.high)


def spent(usage: Usage, price: Price | None) -> Commitment:
    """What an ended shard has used. Tokens that no service reported cannot be said."""
    if usage.input_tokens is None and usage.output_tokens is None:
        return Commitment(None, None)
    return Commitment((usage.input_tokens or 0) + (usage.output_tokens or 0), cost_of_usage(usage, price))


@dataclass(frozen=True, slots=True)
class BudgetRefusal:
    """Why these requests may not be sent. `*_exceeded` may pass by itself: shards end below their bounds."""

    code: Literal["unknown_price", "unbounded_output", "max_tokens_exceeded", "max_cost_exceeded"]
    message: str
    hint: str


def budget_refusal(budget: Budget, committed: Commitment, wanted: Commitment) -> BudgetRefusal | None:
    """Whether `wanted` still fits, with `committed` spent or reserved already; None: it does.

    What cannot be said does not fit.
    """
    sum_of_both = committed + wanted
    if budget.max_tokens is not None:
        if sum_of_both.tokens is None:
            return _unbounded("max-tokens")
        if sum_of_both.tokens > budget.max_tokens:
            return BudgetRefusal(
                "max_tokens_exceeded",
                f"this may take {wanted.tokens:,} tokens; "
                f"{committed.tokens:,} of {budget.max_tokens:,} are gone",
                "raise --max-tokens, lower max_tokens in the requests, or send fewer requests",
            )
    if budget.max_cost is not None:
        if sum_of_both.cost is None:
            if wanted.tokens is None or committed.tokens is None:
                return _unbounded("max-cost")
            return BudgetRefusal(
                "unknown_price",
                "--max-cost is set, but what this model costs is unknown",
                "in prices.toml, name the deployment's model under [deployments], or add its price",
            )
        if sum_of_both.cost > budget.max_cost:
            return BudgetRefusal(
                "max_cost_exceeded",
                f"this may cost {wanted.cost:.2f}; {committed.cost:.2f} of {budget.max_cost:.2f} are gone",
                "raise --max-cost, lower max_tokens in the requests, or send fewer requests",
            )
    return None


def _unbounded(option: str) -> BudgetRefusal:
    return BudgetRefusal(
        "unbounded_output",
        f"--{option} is set, but some requests do not bound their output, nor is the model's bound known",
        "set max_completion_tokens (max_output_tokens for responses) in every request, or "
        "most_output_tokens for the model in prices.toml",
    )
