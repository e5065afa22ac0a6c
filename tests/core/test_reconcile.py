"""Walks over lists: found, absent, or unknown."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from langbatch.records import BatchPage, FilePage, RemoteBatch, RemoteFile
from langbatch.running.reconcile import file_is_listed, search_batches, search_file

NOW = 1_000_000.0


def paged(batches: list[RemoteBatch], size: int = 2, **flaws: bool) -> Callable[[str | None], BatchPage]:
    def list_batches(after: str | None) -> BatchPage:
        ids = [b.id for b in batches]
        start = 0 if after is None or flaws.get("stuck") else ids.index(after) + 1
        rows = tuple(batches[start : start + size])
        more: bool | None = start + size < len(batches)
        return BatchPage(rows, None if flaws.get("silent") else more, NOW)

    return list_batches


def some(count: int) -> list[RemoteBatch]:
    return [RemoteBatch(f"b{i}", "validating", f"file-{i}", created_at=NOW - i * 60) for i in range(count)]


@given(st.integers(0, 20), st.integers(1, 5), st.integers(0, 25))
def test_a_walk_over_an_honest_list_finds_what_is_there_and_knows_what_is_not(
    count: int, size: int, wanted: int
) -> None:
    found = search_batches(
        paged(some(count), size), lambda b: b.input_file_id == f"file-{wanted}", NOW - 10**6, NOW
    )
    assert found.complete
    assert len(found.found) == (wanted < count)


def test_bad_47_a_list_that_repeats_its_cursor_is_unknown_and_not_absent() -> None:
    assert not search_batches(paged(some(9), 3, stuck=True), lambda b: False, 0, NOW).complete


def test_a_list_without_has_more_is_walked_until_nothing_new_comes() -> None:
    batches = some(4)
    search = search_batches(paged(batches, 2, silent=True), lambda b: b.id == "b3", NOW - 10**6, NOW)
    assert [b.id for b in search.found] == ["b3"]
    assert search.complete


def test_a_walk_ends_behind_the_intent_and_not_before() -> None:
    calls: list[str | None] = []
    pages = paged(some(100), 10)

    def counted(after: str | None) -> BatchPage:
        calls.append(after)
        return pages(after)

    assert search_batches(counted, lambda b: False, NOW - 600, NOW).complete
    # 100 batches a minute apart; the border lies 600 s + 900 s back, in the third page.
    assert len(calls) == 4


def test_a_clock_that_runs_ahead_of_ours_is_taken_off() -> None:
    """The service's clock is a day behind ours: batches look a day old, and are still looked at."""
    behind = 86_400.0
    old = [RemoteBatch(f"b{i}", "validating", "f", created_at=NOW - behind - i) for i in range(4)]

    def list_batches(after: str | None) -> BatchPage:
        page = paged(old, 2)(after)
        return BatchPage(page.batches, page.has_more, NOW - behind)

    assert len(search_batches(list_batches, lambda b: b.input_file_id == "f", NOW - 5, NOW).found) == 4


def test_a_file_is_found_by_its_exact_name_and_size_only() -> None:
    files = (RemoteFile("f1", "processed", 5, "lb-a"), RemoteFile("f2", "processed", 7, "lb-b"))

    def list_files(after: str | None) -> FilePage:
        return FilePage(files if after is None else (), False, NOW)

    found = search_file(list_files, "lb-b", 7)
    assert found is not None
    assert found.id == "f2"
    assert search_file(list_files, "lb-b", 8) is None
    assert search_file(list_files, "renamed", 7) is None


def test_a_file_is_looked_for_no_further_than_it_is_found() -> None:
    files = [RemoteFile(f"f{number}", "processed", 5, "lb-a") for number in range(6)]
    calls: list[str | None] = []

    def list_files(after: str | None) -> FilePage:
        calls.append(after)
        start = 0 if after is None else int(after[1:]) + 1
        return FilePage(tuple(files[start : start + 2]), start + 2 < len(files), NOW)

    assert file_is_listed(list_files, "f3") is True
    assert calls == [None, "f1"]
    assert file_is_listed(list_files, "elsewhere") is False
    assert len(calls) == 2 + 3
