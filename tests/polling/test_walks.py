"""Walks over pages for batches known by their ids: what they find, what they cost, when they stop."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langbatch.errors import FateUnknown
from langbatch.records import BatchCounts, BatchFault, BatchPage, RemoteBatch
from langbatch.running.decisions import says_enough
from langbatch.running.reconcile import sight_batches

NOW = 1_000_000.0


def batches(count: int, *, apart_seconds: float = 60.0) -> list[RemoteBatch]:
    return [
        RemoteBatch(f"b{n}", "in_progress", f"file-{n}", created_at=NOW - n * apart_seconds)
        for n in range(count)
    ]


class Pages:
    """A list of batches by the page, which counts its calls."""

    def __init__(
        self,
        listed: list[RemoteBatch],
        size: int,
        *,
        has_more: Callable[[bool], bool | None] = bool,
        fails_at: int | None = None,
        ahead_seconds: float = 0.0,
    ) -> None:
        self.listed, self.size, self.has_more = listed, size, has_more
        self.fails_at, self.ahead_seconds = fails_at, ahead_seconds
        self.calls = 0

    def __call__(self, after: str | None) -> BatchPage:
        self.calls += 1
        if self.calls == self.fails_at:
            raise FateUnknown("the list broke off")
        start = 0 if after is None else [b.id for b in self.listed].index(after) + 1
        more = start + self.size < len(self.listed)
        return BatchPage(
            tuple(self.listed[start : start + self.size]), self.has_more(more), NOW + self.ahead_seconds
        )


@given(st.integers(0, 60), st.integers(1, 7), st.sets(st.integers(0, 80), max_size=20), st.data())
def test_a_walk_shows_only_what_was_wanted_and_costs_no_more_than_a_call_for_each(
    count: int, size: int, wanted: set[int], data: st.DataObject
) -> None:
    pages = Pages(batches(count), size, fails_at=data.draw(st.none() | st.integers(1, 9)))
    ids = {f"b{n}" for n in wanted}
    sighting = sight_batches(pages, ids, NOW - 10**6, NOW)
    assert sighting.seen.keys() <= ids
    assert all(name == batch.id for name, batch in sighting.seen.items())
    assert sighting.pages == pages.calls <= len(ids)
    assert (sighting.error is not None) == (pages.calls == pages.fails_at)


@given(st.integers(1, 80), st.integers(1, 100))
def test_all_of_ours_are_seen_by_as_few_pages_as_hold_them(count: int, size: int) -> None:
    pages = Pages(batches(count), size)
    sighting = sight_batches(pages, {f"b{n}" for n in range(count)}, NOW - 10**6, NOW)
    assert len(sighting.seen) == count
    assert sighting.pages == -(-count // size)


def test_a_walk_ends_with_the_last_that_was_wanted() -> None:
    pages = Pages(batches(50), 5)
    assert sight_batches(pages, {"b0", "b3", "b7"}, NOW - 10**6, NOW).seen.keys() == {"b0", "b3", "b7"}
    assert pages.calls == 2


@pytest.mark.parametrize("ahead", [0.0, 86_400.0, -86_400.0])
def test_a_page_made_before_the_oldest_that_was_wanted_ends_the_walk_by_the_services_own_clock(
    ahead: float,
) -> None:
    shown = [
        RemoteBatch(b.id, b.status, created_at=(b.created_at or 0) + ahead)
        for b in batches(100, apart_seconds=600.0)
    ]
    pages = Pages(shown, 5, ahead_seconds=ahead)
    wanted = {"b0", "b1", "b2", *(f"absent{n}" for n in range(90))}
    assert len(sight_batches(pages, wanted, NOW - 1_500.0, NOW).seen) == 3
    # Of ten batches in 100 minutes the fifth and later ones are older than 25, with 15 to spare.
    assert pages.calls == 2


def test_a_list_that_repeats_its_page_is_left() -> None:
    first = tuple(batches(3))
    calls: list[str | None] = []

    def stuck(after: str | None) -> BatchPage:
        calls.append(after)
        return BatchPage(first, True, NOW)

    sighting = sight_batches(stuck, {"b0", *(f"absent{n}" for n in range(50))}, NOW - 10**6, NOW)
    assert sighting.seen.keys() == {"b0"}
    assert len(calls) == 2


def test_a_list_that_never_says_whether_more_follow_is_walked_to_its_empty_page() -> None:
    pages = Pages(batches(6), 3, has_more=lambda _: None)
    sighting = sight_batches(pages, {"b0", "b5", *(f"absent{n}" for n in range(50))}, NOW - 10**6, NOW)
    assert sighting.seen.keys() == {"b0", "b5"}
    assert pages.calls == 3


def test_what_was_seen_before_an_error_counts() -> None:
    pages = Pages(batches(50), 5, fails_at=3)
    sighting = sight_batches(pages, {f"b{n}" for n in range(50)}, NOW - 10**6, NOW)
    assert len(sighting.seen) == 10
    assert isinstance(sighting.error, FateUnknown)


REASON = (BatchFault("model_not_found", "no such deployment"),)
SOME, NONE = BatchCounts(4, 2, 1), BatchCounts(4, 0, 0)


@pytest.mark.parametrize(
    ("batch", "enough"),
    [
        (RemoteBatch("b", "completed", output_file_id="f"), True),
        (RemoteBatch("b", "completed", error_file_id="f"), True),
        (RemoteBatch("b", "completed", counts=NONE), False),
        (RemoteBatch("b", "completed", counts=SOME), False),
        (RemoteBatch("b", "failed"), False),
        (RemoteBatch("b", "failed", faults=REASON), True),
        (RemoteBatch("b", "expired"), False),
        (RemoteBatch("b", "expired", counts=SOME), False),
        (RemoteBatch("b", "expired", counts=NONE), True),
        (RemoteBatch("b", "cancelled", counts=SOME, output_file_id="f"), True),
    ],
)
def test_an_entry_that_leaves_out_files_or_reasons_is_not_enough(batch: RemoteBatch, enough: bool) -> None:
    assert says_enough(batch) == enough
