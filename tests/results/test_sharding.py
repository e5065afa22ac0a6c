"""Cutting requests into shards."""

from __future__ import annotations

import tracemalloc
from array import array
from collections.abc import Iterator
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langbatch.errors import BatchValidationError
from langbatch.records import Limits
from langbatch.shards.sharding import ShardPlan, plan_shards

small_limits = st.builds(
    Limits,
    requests=st.integers(1, 8),
    file_bytes=st.integers(100, 400),
    embedding_inputs=st.none() | st.integers(5, 12),
)


@given(
    st.lists(st.tuples(st.integers(2, 60), st.integers(1, 5)), max_size=40),
    st.integers(0, 30),
    small_limits,
    st.none() | st.integers(1, 10),
)
def test_plans_cover_every_request_once_and_fit_the_limits(
    sizes: list[tuple[int, int]], growth: int, limits: Limits, max_requests: int | None
) -> None:
    lengths = [length for length, _ in sizes]
    inputs = [holds for _, holds in sizes]
    plans = plan_shards(
        iter(lengths), growth, limits, max_requests=max_requests, embedding_inputs=iter(inputs)
    )

    assert [plan.index for plan in plans] == list(range(len(plans)))
    assert list(chain.from_iterable(range(p.first, p.first + p.count) for p in plans)) == list(
        range(len(sizes))
    )
    room = limits.file_bytes * 95 // 100
    most = min(limits.requests, max_requests or limits.requests)

    def fits(first: int, count: int) -> bool:
        taken = slice(first, first + count)
        return (
            count <= most
            and sum(lengths[taken]) + growth * count <= room
            and (limits.embedding_inputs is None or sum(inputs[taken]) <= limits.embedding_inputs)
        )

    for plan in plans:
        assert plan.count > 0
        assert plan.byte_start == sum(lengths[: plan.first])
        assert plan.bytes == sum(lengths[plan.first : plan.first + plan.count])
        assert fits(plan.first, plan.count)
        is_last = plan.first + plan.count == len(sizes)
        assert is_last or not fits(plan.first, plan.count + 1)


def test_bad_34_bytes_are_planned_at_95_percent_and_requests_in_full() -> None:
    limits = Limits(requests=100, file_bytes=1000)
    assert [plan.count for plan in plan_shards([10] * 200, 0, limits)] == [95, 95, 10]
    assert [plan.count for plan in plan_shards([5] * 200, 0, limits)] == [100, 100]


def test_the_targets_edits_count_against_the_limit_but_not_in_the_snapshot() -> None:
    plans = plan_shards([10] * 10, 9, Limits(requests=100, file_bytes=100))
    assert plans == [ShardPlan(0, 0, 5, 0, 50), ShardPlan(1, 5, 5, 50, 50)]


def test_edits_that_shorten_lines_make_no_larger_shards() -> None:
    plans = plan_shards([10] * 10, -9, Limits(requests=100, file_bytes=100))
    assert [plan.count for plan in plans] == [9, 1]


def test_embedding_inputs_count_by_array_element() -> None:
    limits = Limits(requests=50_000, file_bytes=10**9, embedding_inputs=50_000)
    plans = plan_shards([100] * 100, 0, limits, embedding_inputs=[2048] * 100)
    assert [plan.count for plan in plans] == [24, 24, 24, 24, 4]


@pytest.mark.parametrize(
    ("lengths", "inputs"),
    [([10, 96, 10], [1, 1, 1]), ([10, 10, 10], [1, 11, 1])],
)
def test_bad_34_one_request_over_the_limit_is_refused_with_its_place(
    lengths: list[int], inputs: list[int]
) -> None:
    limits = Limits(requests=10, file_bytes=100, embedding_inputs=10)
    with pytest.raises(BatchValidationError, match="request 2 ") as refusal:
        plan_shards(lengths, 0, limits, embedding_inputs=inputs)
    assert refusal.value.problems[0].byte_offset == 10


def test_counts_of_inputs_must_be_as_many_as_requests() -> None:
    with pytest.raises(ValueError, match="shorter"):
        plan_shards([10, 10], 0, Limits(10, 100, 10), embedding_inputs=[1])


def test_no_requests_make_no_shards() -> None:
    assert plan_shards([], 0, Limits(10, 100)) == []


def test_planning_reads_a_stream_of_chunks_in_flat_memory() -> None:
    def lengths() -> Iterator[int]:
        return chain.from_iterable(array("I", [1000]) * 10_000 for _ in range(30))

    tracemalloc.start()
    try:
        plans = plan_shards(lengths(), 40, Limits(100_000, 200_000_000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [plan.count for plan in plans] == [100_000, 100_000, 100_000]
    assert peak < 500_000
