"""What a refusal teaches and where a shard goes: values in, values out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langbatch.records import Account, Target
from langbatch.running import quota
from langbatch.targets import account_label

NOW = 1_000.0


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        (
            "The number of enqueued tokens has surpassed the configured limit of 30K for the deployment.",
            30_000,
        ),
        ("surpassed the configured limit of 1.5M for the deployment", 1_500_000),
        ("a limit of 5B tokens", 5_000_000_000),
        ("limit of 90,000 enqueued tokens", 90_000),
        ("limit of 250.", 250),
        ("the quota is full", None),
        ("limit of none", None),
        ("limit of 0", None),
        (
            "Enqueued token limit reached for gpt-4o-mini in organization org-x. Limit: 2,000,000 enqueued tokens. "
            "Please try again once some in_progress batches have been completed.",
            2_000_000,
        ),
        ("the time limit 30", None),
    ],
)
def test_the_limit_is_read_off_the_services_words(text: str, limit: int | None) -> None:
    assert quota.limit_in_text(text) == limit


def test_each_refusal_in_a_row_is_waited_out_longer_up_to_the_cap() -> None:
    account = Account("a")
    spans = []
    for _ in range(12):
        account = quota.after_refusal(account, None, NOW, 60.0, roll=1.0)
        spans.append(account.hold_until - NOW)
    assert spans == sorted(spans)
    assert spans[-1] == 60.0
    assert quota.after_refusal(account, None, NOW, 60.0, roll=0.0).hold_until - NOW == 30.0


def test_a_limit_that_was_told_replaces_the_one_that_was_known() -> None:
    held = quota.after_refusal(Account("a", 500), 400, NOW, 60.0, 0.5)
    assert held.limit_tokens == 400
    assert quota.after_refusal(held, None, NOW, 60.0, 0.5).limit_tokens == 400


def options(*facts: tuple[int | None, int, float]) -> list[quota.Option]:
    return [
        quota.Option(place, Account(f"d{place}", limit), held, weight)
        for place, (limit, held, weight) in enumerate(facts)
    ]


def test_a_shard_goes_to_the_target_with_the_lightest_load_by_weight() -> None:
    assert quota.place(10, options((None, 30, 1.0), (None, 40, 2.0)), NOW, 60) == quota.Go(1)
    assert quota.place(10, options((None, 30, 1.0), (None, 80, 2.0)), NOW, 60) == quota.Go(0)


def test_a_full_target_is_passed_over_and_with_all_full_the_shard_waits() -> None:
    assert quota.place(10, options((35, 30, 1.0), (100, 90, 1.0)), NOW, 60) == quota.Go(1)
    waiting = quota.place(10, options((35, 30, 1.0), (99, 90, 1.0)), NOW, 60)
    assert isinstance(waiting, quota.Hold)
    assert waiting.until == NOW + 60


def test_only_what_exceeds_every_limit_is_too_large() -> None:
    assert quota.place(50, options((40, 0, 1.0), (45, 0, 1.0)), NOW, 60) == quota.TooLarge(45)
    assert isinstance(quota.place(50, options((40, 0, 1.0), (60, 20, 1.0)), NOW, 60), quota.Hold)
    assert quota.place(50, options((40, 0, 1.0), (None, 0, 1.0)), NOW, 60) == quota.Go(1)


def test_a_target_in_trouble_is_left_alone_while_there_is_another() -> None:
    sick = Account("sick", hold_until=NOW + 100, hold_reason="trouble")
    well = Account("well", 100)
    both = [quota.Option(0, sick, 0), quota.Option(1, well, 50)]
    assert quota.place(10, both, NOW, 60) == quota.Go(1)
    assert isinstance(quota.place(60, both, NOW, 60), quota.Hold)
    assert quota.place(110, both, NOW, 60) == quota.TooLarge(100)
    assert quota.place(110, both, NOW + 101, 60) == quota.Go(0)
    assert quota.place(10, both[:1], NOW, 60) == quota.Go(0)


@given(
    st.integers(1, 100),
    st.lists(
        st.tuples(st.one_of(st.none(), st.integers(1, 200)), st.integers(0, 200), st.floats(0.1, 10)),
        min_size=1,
        max_size=5,
    ),
)
def test_no_placement_passes_a_known_limit(need: int, facts: list[tuple[int | None, int, float]]) -> None:
    choices = options(*facts)
    placed = quota.place(need, choices, NOW, 60)
    if isinstance(placed, quota.Go):
        limit, held, _ = facts[placed.place]
        assert limit is None or held + need <= limit
    else:
        assert all(limit is not None and held + need > limit for limit, held, _ in facts)


def test_the_quota_is_the_deployments_whoever_names_it() -> None:
    named = Target("azure", "h", "chat_completions", "dep")
    unnamed = Target("azure", "h", "chat_completions", None)
    assert account_label(named, "other") == account_label(unnamed, "dep") == "azure/h/dep"
