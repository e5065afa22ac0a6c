"""Prices from files, deployments' models, what things cost, and budgets."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from langbatch.errors import SetupError
from langbatch.money.costs import (
    Budget,
    Commitment,
    CostRange,
    budget_refusal,
    commitment,
    cost_estimate,
    cost_of_usage,
    spent,
)
from langbatch.money.estimates import Estimate
from langbatch.money.prices import FILE_NAME, Price, PriceList, read_prices
from langbatch.records import Usage

PRICE = Price("m", input=Decimal(2), output=Decimal(8), cached_input=Decimal("0.5"))
MILLION = 1_000_000


def prices_with(home: Path, text: str) -> PriceList:
    (home / FILE_NAME).write_text(text)
    return read_prices(home)


# ---------------------------------------------------------------- the files


def test_the_shipped_prices_are_dated_and_each_is_sound() -> None:
    shipped = read_prices()
    assert shipped.models
    for name, price in shipped.models.items():
        assert isinstance(price.as_of, date), name
        assert price.source, name
        assert price.batch_discount == Decimal("0.5"), name
        assert price.cached_input is None or price.cached_input < price.input, name
        assert (price.output is None) == name.startswith("text-embedding"), name
        assert (price.most_output_tokens is None) == (price.output is None), name


def test_a_dated_version_has_its_familys_price() -> None:
    shipped = read_prices()
    assert shipped.price_of("gpt-4o-mini-2024-07-18") == shipped.models["gpt-4o-mini"]


def test_a_version_with_a_price_of_its_own_keeps_it() -> None:
    shipped = read_prices()
    assert shipped.price_of("gpt-4o-2024-05-13") != shipped.price_of("gpt-4o-2024-08-06")


@pytest.mark.parametrize("name", ["gpt-4o-audio-preview", "my-deployment", "gpt-4o-mini-2024", None])
def test_a_model_that_is_not_listed_has_no_price(name: str | None) -> None:
    assert read_prices().price_of(name) is None


def test_the_users_file_comes_before_the_shipped_one(tmp_path: Path) -> None:
    own = prices_with(
        tmp_path,
        """
[source]
currency = "EUR"
as_of = 2026-02-01
[batch]
discount = 0.4
[models."gpt-4o"]
input = 2
output = 9.5
[models.house]
also = ["house-large"]
input = 1
batch_discount = 0
""",
    )
    changed = own.price_of("gpt-4o")
    assert changed is not None
    assert (changed.input, changed.output, changed.currency) == (Decimal(2), Decimal("9.5"), "EUR")
    assert (changed.batch_discount, changed.as_of) == (Decimal("0.4"), date(2026, 2, 1))
    house = own.price_of("house-large")
    assert house is not None
    assert house.batch_discount == 0
    assert own.price_of("gpt-4o-mini") == read_prices().price_of("gpt-4o-mini")


def test_a_home_without_a_file_has_the_shipped_prices(tmp_path: Path) -> None:
    assert read_prices(tmp_path) == read_prices()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[models", "prices.toml"),
        ("[model.a]\ninput = 1", "'model'"),
        ("[models.a]\noutput = 1", "models.a.input"),
        ("[models.a]\ninput = '1'", "models.a.input"),
        ("[models.a]\ninput = -1", "models.a.input"),
        ("[models.a]\ninput = nan", "models.a.input"),
        ("[models.a]\ninput = true", "models.a.input"),
        ("[models.a]\ninput = 1\ninputs = 2", "'inputs'"),
        ("[models.a]\ninput = 1\nbatch_discount = 50", "0.5"),
        ("[models.a]\ninput = 1\nalso = 'b'", "also"),
        ("[models.a]\ninput = 1\nmost_output_tokens = 1.5", "most_output_tokens"),
        ("[models.gpt-4.1]\ninput = 1", "quotes"),
        ("[deployments]\na = 1", "deployments.a"),
        ("[source]\nas_of = 'May'", "as_of"),
        ("[source]\nper_tokens = 0", "per_tokens"),
        ("models = 1", "models"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_by_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SetupError, match=said):
        prices_with(tmp_path, text)


# ---------------------------------------------------------------- deployments


def test_the_users_mapping_beats_what_answers_have_shown(tmp_path: Path) -> None:
    own = prices_with(tmp_path, '[deployments]\ndep = "gpt-4o"')
    learnt = {"dep": "gpt-4o-mini-2024-07-18", "other": "gpt-4.1-2025-04-14"}
    assert own.model_of("dep", learnt=learnt, is_model=False) == "gpt-4o"
    assert own.model_of("other", learnt=learnt, is_model=False) == "gpt-4.1-2025-04-14"


def test_a_deployments_name_alone_proves_nothing() -> None:
    assert read_prices().model_of("gpt-4o", is_model=False) is None
    assert read_prices().model_of("gpt-4o", is_model=True) == "gpt-4o"


def test_a_profiles_deployments_fill_in_what_the_price_file_does_not_name(tmp_path: Path) -> None:
    own = prices_with(tmp_path, '[deployments]\na = "gpt-4o"').with_deployments({"a": "gpt-4.1", "b": "o3"})
    assert own.model_of("a", is_model=False) == "gpt-4o"
    assert own.model_of("b", is_model=False) == "o3"


def test_a_model_without_output_writes_none_and_an_unlisted_one_has_no_bound() -> None:
    assert read_prices().most_output_tokens("text-embedding-3-small") == 0
    assert read_prices().most_output_tokens("gpt-4o") == 16_384
    assert read_prices().most_output_tokens("unheard-of") is None


# ---------------------------------------------------------------- costs


def test_usage_costs_half_price_and_cached_input_less() -> None:
    usage = Usage(
        input_tokens=3 * MILLION, output_tokens=MILLION, cached_tokens=MILLION, reasoning_tokens=MILLION
    )
    # (2 x 2 + 1 x 0.5 + 1 x 8) / 2; reasoning is part of the output.
    assert cost_of_usage(usage, PRICE) == Decimal("6.25")


def test_cached_input_without_a_price_costs_what_input_costs() -> None:
    price = replace(PRICE, cached_input=None)
    assert cost_of_usage(Usage(MILLION, 0, MILLION), price) == Decimal(1)


def test_money_is_not_rounded_on_the_way() -> None:
    price = Price("m", input=Decimal("0.15"), output=Decimal("0.60"))
    assert cost_of_usage(Usage(1, 1), price) == Decimal("0.000000375")


def test_an_unknown_price_or_unreported_usage_has_no_cost() -> None:
    assert cost_of_usage(Usage(1, 1), None) is None
    assert cost_of_usage(Usage(), PRICE) is None
    assert cost_estimate(Estimate(), None) is None


ESTIMATE = Estimate(10, 1000, 2 * MILLION, MILLION, 3 * MILLION, MILLION, "sampled", 5)


def test_an_estimate_costs_between_its_lower_input_and_its_upper_all() -> None:
    assert cost_estimate(ESTIMATE, PRICE) == CostRange(Decimal(1), Decimal(7), "USD")


def test_unbounded_output_has_no_upper_cost_unless_the_model_writes_none() -> None:
    open_ended = replace(ESTIMATE, output_tokens_at_most=None)
    assert cost_estimate(open_ended, PRICE) == CostRange(Decimal(1), None, "USD")
    assert cost_estimate(open_ended, replace(PRICE, output=None)) == CostRange(Decimal(1), Decimal(3), "USD")


# ---------------------------------------------------------------- budgets


def test_a_commitment_is_the_most_that_can_be_used() -> None:
    assert commitment(ESTIMATE, PRICE) == Commitment(4 * MILLION, Decimal(7))
    assert spent(Usage(MILLION, MILLION), PRICE) == Commitment(2 * MILLION, Decimal(5))


@pytest.mark.parametrize(("limit", "code"), [(Decimal("7.00"), None), (Decimal("6.99"), "max_cost_exceeded")])
def test_a_cost_may_reach_the_limit_and_not_pass_it(limit: Decimal, code: str | None) -> None:
    refusal = budget_refusal(Budget(max_cost=limit), Commitment(), commitment(ESTIMATE, PRICE))
    assert (refusal.code if refusal else None) == code


@pytest.mark.parametrize(("limit", "code"), [(5 * MILLION, None), (5 * MILLION - 1, "max_tokens_exceeded")])
def test_what_is_committed_already_counts(limit: int, code: str | None) -> None:
    refusal = budget_refusal(Budget(max_tokens=limit), Commitment(MILLION), commitment(ESTIMATE, None))
    assert (refusal.code if refusal else None) == code


def test_an_unknown_price_never_passes_a_limit_on_money() -> None:
    refusal = budget_refusal(Budget(max_cost=Decimal(1000)), Commitment(), commitment(ESTIMATE, None))
    assert refusal is not None
    assert refusal.code == "unknown_price"
    assert "prices.toml" in refusal.hint


@pytest.mark.parametrize("budget", [Budget(max_tokens=10**9), Budget(max_cost=Decimal(1000))])
def test_unbounded_output_never_passes_a_limit(budget: Budget) -> None:
    wanted = commitment(replace(ESTIMATE, output_tokens_at_most=None), PRICE)
    refusal = budget_refusal(budget, Commitment(), wanted)
    assert refusal is not None
    assert refusal.code == "unbounded_output"


def test_what_an_earlier_shard_used_must_be_known_too() -> None:
    refusal = budget_refusal(
        Budget(max_cost=Decimal(1000)), spent(Usage(5, 5), None), commitment(ESTIMATE, PRICE)
    )
    assert refusal is not None
    assert refusal.code == "unknown_price"


def test_without_limits_everything_fits() -> None:
    assert not Budget().limits_anything
    assert budget_refusal(Budget(), Commitment(None, None), Commitment(None, None)) is None
