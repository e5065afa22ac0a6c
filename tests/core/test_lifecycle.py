"""The table of states and moves."""

from __future__ import annotations

import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langbatch.lifecycle import (
    MAY_COST,
    MOVES,
    STATES,
    IllegalMove,
    Move,
    ShardSummary,
    batch_word,
    destination,
    job_state,
)
from langbatch.records import JobState, ShardState

ALL_MOVES = typing.get_args(Move)
ALL_STATES = typing.get_args(ShardState)


def test_the_table_names_every_state_and_every_move_once() -> None:
    assert set(STATES) == set(ALL_STATES)
    assert set(MOVES) == set(ALL_MOVES)


def test_every_state_can_be_reached_and_every_unfinished_one_left() -> None:
    reached = {"waiting"}
    while True:
        more = {rule.to for rule in MOVES.values() if rule.origins & reached} - reached
        if not more:
            break
        reached |= more
    assert reached == set(ALL_STATES)
    for state in set(ALL_STATES) - {"done"}:
        assert any(state in rule.origins for rule in MOVES.values()), state


def test_done_can_be_reached_from_every_state() -> None:
    reaching = {"done"}
    while True:
        more = {s for rule in MOVES.values() if rule.to in reaching for s in rule.origins} - reaching
        if not more:
            break
        reaching |= more
    assert reaching == set(ALL_STATES)


@given(st.sampled_from(ALL_STATES), st.sampled_from(ALL_MOVES))
def test_a_move_leads_where_the_table_says_or_raises(state: ShardState, move: Move) -> None:
    if state in MOVES[move].origins:
        assert destination(state, move) == MOVES[move].to
    else:
        with pytest.raises(IllegalMove):
            destination(state, move)


def test_a_new_create_is_possible_only_after_the_old_one_is_settled() -> None:
    """No chain of moves leads from a state in which a batch may exist to `creating`, except through a
    reply, a harvest, the fence, or a person."""
    settling: set[Move] = {
        "create_not_now",
        "file_unusable",
        "batch_ruled_out",
        "quota_bounced",
        "stopped_by_fence",
        "harvested",
        "create_refused",
        "batch_lost",
        "unsettled",
        "results_withheld",
        "parked",
    }
    reached = set(MAY_COST)
    while True:
        more = {
            rule.to for name, rule in MOVES.items() if name not in settling and rule.origins & reached
        } - reached
        if not more:
            break
        reached |= more
    assert "uploaded" not in reached
    assert "waiting" not in reached


def shard(state: ShardState, **facts: typing.Any) -> ShardSummary:
    values = {"blocker": None, "ended_as": None, "batch_status": None} | facts
    return ShardSummary(state, **values)


@pytest.mark.parametrize(
    ("shards", "expected"),
    [
        ([], "draft"),
        ([shard("waiting")], "running"),
        ([shard("done", ended_as="harvested"), shard("active")], "running"),
        ([shard("uploaded", blocker="access")], "paused"),
        ([shard("needs_operator"), shard("active")], "needs_operator"),
        ([shard("done", ended_as="harvested"), shard("done", ended_as="refused")], "completed"),
        ([shard("done", ended_as="refused")], "failed"),
        ([shard("done", ended_as="expired")], "completed"),
        ([shard("done", ended_as="harvested"), shard("done", ended_as="cancelled")], "cancelled"),
    ],
)
def test_a_jobs_state_is_read_off_its_shards(shards: list[ShardSummary], expected: JobState) -> None:
    assert job_state(shards) == expected


@pytest.mark.parametrize(
    ("state", "cancelling", "shards", "expected"),
    [
        ("running", False, [shard("waiting")], "validating"),
        ("running", False, [shard("active", batch_status="validating")], "validating"),
        ("running", False, [shard("active", batch_status="in_progress")], "in_progress"),
        ("running", True, [shard("active", batch_status="in_progress")], "cancelling"),
        ("running", False, [shard("harvesting", batch_status="completed")], "finalizing"),
        ("running", False, [shard("harvesting", batch_status="completed"), shard("waiting")], "in_progress"),
        ("completed", False, [shard("done", ended_as="harvested", batch_status="completed")], "completed"),
        ("completed", False, [shard("done", ended_as="expired", batch_status="expired")], "expired"),
        ("failed", False, [shard("done", ended_as="refused")], "failed"),
        ("cancelled", True, [shard("done", ended_as="cancelled")], "cancelled"),
    ],
)
def test_a_job_speaks_openais_eight_words(
    state: JobState, cancelling: bool, shards: list[ShardSummary], expected: str
) -> None:
    assert batch_word(state, cancelling, shards) == expected
