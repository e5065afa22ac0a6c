"""Repeated ids are found by hash and proven by comparison."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from langbatch.requests.identities import Identities


def tokens(ids: list[str]) -> list[bytes]:
    return [json.dumps(one, ensure_ascii=False).encode() for one in ids]


def repeats(ids: list[str], registry: Identities) -> tuple[list[int], int]:
    registry.add(tokens(ids))
    suspects = registry.suspects()
    if suspects is None:
        return [], 0
    for number, (custom_id, token) in enumerate(zip(ids, tokens(ids), strict=True), 1):
        suspects.look(token, number, 0, custom_id)
    return [problem.line for problem in suspects.problems], suspects.similar


def test_different_ids_raise_no_suspicion() -> None:
    registry = Identities()
    registry.add(tokens([f"id-{number}" for number in range(200_000)]))
    assert registry.suspects() is None


def test_repeats_far_apart_are_found() -> None:
    ids = [f"id-{number}" for number in range(150_000)] + ["id-7", "id-149999", "id-7"]
    assert repeats(ids, Identities()) == ([150_001, 150_002, 150_003], 0)


@pytest.mark.parametrize("bits", [0, 1, 2])
def test_colliding_hashes_are_no_repeats(bits: int) -> None:
    registry = Identities(hashing=lambda token: len(token) & bits)
    assert repeats(["a", "b", "cc", "dd", "b", "A"], registry) == ([5], 1)


@given(st.lists(st.lists(st.sampled_from([1, 2, 3, 9, 10, 11, 100]), max_size=4).map(sorted), max_size=3))
@example([[1, 2], [3, 9, 10, 11], [100]])
@example([[1], [1]])
@example([[9, 10], [9]])
@example([[2, 3], [1, 2, 3]])
@example([[1, 1]])
@example([[10, 2], [10]])
def test_repeats_are_found_where_ids_ascend(blocks: list[list[int]]) -> None:
    registry = Identities()
    for block in blocks:
        registry.add(tokens([f"id-{number}" for number in block]))
    ids = [number for block in blocks for number in block]
    assert (registry.suspects() is None) == (len(set(ids)) == len(ids))


def test_ids_that_ascend_but_for_their_case_are_told_of() -> None:
    assert repeats(["A", "a", "b"], Identities()) == ([], 1)


@given(
    st.lists(st.sampled_from(["a", "A", "b", "ß", "SS", "ss", "é", "e\u0301", "É", "ﬁ", "fi"]), max_size=12)
)
def test_findings_are_those_of_a_plain_search(ids: list[str]) -> None:
    found, similar = repeats(ids, Identities())
    assert found == [number for number, one in enumerate(ids, 1) if one in ids[: number - 1]]
    groups = (("a", "A"), ("b",), ("ß", "SS", "ss"), ("é", "e\u0301", "É"), ("ﬁ", "fi"))
    kinds = {one: group for group in groups for one in group}
    assert similar == sum(
        one not in ids[:number] and any(kinds[two] == kinds[one] for two in ids[:number])
        for number, one in enumerate(ids)
    )
