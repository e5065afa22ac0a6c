"""Pieces read in ranges, by threads or processes, join to what one reading joins to: to the byte."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from langbatch.pool import ProcessPool
from langbatch.results.facts import facts_of_range
from langbatch.results.stretches import records_of
from results.joining import Tried, chat_body, encoded, http_failure, join, success
from results.test_join_properties import IDS, tries


@pytest.fixture(scope="module", params=["threads", "processes", "our processes"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    pool: Executor
    match request.param:
        case "threads":
            pool = ThreadPoolExecutor(2)
        case "processes":
            pool = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))
        case _:
            pool = ProcessPool(2)
    with pool:
        yield pool


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    tried=st.lists(tries, max_size=3),
    range_bytes=st.integers(0, 400),
    max_row_bytes=st.sampled_from([1 << 20, 150]),
)
def test_ranges_cut_anywhere_join_to_what_one_reading_joins_to(
    executor: Executor, tried: list[Tried], range_bytes: int, max_row_bytes: int
) -> None:
    with TemporaryDirectory() as folder:
        here = join(Path(folder), IDS, *tried, max_row_bytes=max_row_bytes)
        there = join(
            Path(folder), IDS, *tried, max_row_bytes=max_row_bytes, executor=executor, range_bytes=range_bytes
        )
    assert there == here


class _Counting(ThreadPoolExecutor):
    """Counts what is submitted, by function."""

    def __init__(self) -> None:
        super().__init__(2)
        self.taken: Counter[object] = Counter()

    def submit(self, function: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        self.taken[function] += 1
        return super().submit(function, *arguments, **named)


def _five_failed_of(count: int, text: str) -> tuple[list[str], Tried]:
    """So many requests, and what came back for them: in another order, and not for the first five."""
    ids = [f"r{number}" for number in range(count)]
    rows = [encoded(success(custom_id, chat_body(text))) for custom_id in reversed(ids[5:])]
    return ids, Tried(rows, [encoded(http_failure(custom_id, 400)) for custom_id in ids[:5]])


def test_pieces_are_read_in_ranges_if_one_of_them_is_longer(tmp_path: Path) -> None:
    ids, tried = _five_failed_of(400, "x" * 500)
    here = join(tmp_path, ids, tried)
    with _Counting() as executor:
        there = join(tmp_path, ids, tried, executor=executor, range_bytes=20_000)
        size = (tmp_path / "00000-1-output.jsonl").stat().st_size
        assert executor.taken[facts_of_range] == pytest.approx(size / 20_000 + 1, rel=0.1)
        assert executor.taken[records_of] == 1
    assert there == here
    assert there.report.tally.succeeded == 395


class _Dying(ThreadPoolExecutor):
    """Every second task's worker dies: before it has done anything, or after."""

    def __init__(self) -> None:
        super().__init__(1)
        self.tasks = 0
        self.begun: set[object] = set()

    def submit(self, function: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        self.tasks += 1
        self.begun.add(function)
        if self.tasks % 2:
            return super().submit(function, *arguments, **named)
        if self.tasks % 4:
            function(*arguments, **named)
        dead: Future[Any] = Future()
        dead.set_exception(BrokenExecutor())
        return dead


def test_what_workers_that_die_were_to_read_and_write_is_done_here(tmp_path: Path) -> None:
    ids, tried = _five_failed_of(5_000, "x" * 100)
    here = join(tmp_path, ids, tried)
    with _Dying() as executor:
        there = join(tmp_path, ids, tried, executor=executor, range_bytes=20_000)
    assert executor.begun == {facts_of_range, records_of}
    assert there == here
    with ProcessPool(2) as pool:
        pool.submit(os._exit, 3)
        assert join(tmp_path, ids, tried, executor=pool, range_bytes=20_000) == here


def test_joins_start_processes_by_themselves_where_there_is_enough_to_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"r{number}" for number in range(3_000)]
    rows = [encoded(success(custom_id, chat_body("x" * 100))) for custom_id in reversed(ids)]
    here = join(tmp_path, ids, Tried(rows))
    begun: list[int] = []

    class Told(ProcessPool):
        def __init__(self, processes: int) -> None:
            begun.append(processes)
            super().__init__(processes)

    monkeypatch.setattr("langbatch.pool.ProcessPool", Told)
    monkeypatch.setattr("langbatch.results.join.WORTH_RESULT_BYTES", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(3))
    assert join(tmp_path, ids, Tried(rows), range_bytes=20_000) == here
    assert begun == [2]


#: Rows of which a block of a piece holds many, and a range of a few hundred bytes one.
ALIKE = [encoded(success(f"r{number}", chat_body("x" * 900))) for number in range(220)]


UNKNOWN = encoded(success("unknown", chat_body("x" * 900)))
NONE: frozenset[int] = frozenset()
ALL = frozenset(range(220))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    lines=st.lists(st.sampled_from(ALIKE), max_size=3)
    | st.lists(
        st.sampled_from(ALIKE).map(lambda line: line.replace(b"xxx", b"yyy"))
        | st.sampled_from([UNKNOWN, encoded(http_failure("r7"))]),
        max_size=3,
    ),
    # Where they go among the others; many of which may not have been sent.
    place=st.integers(0, 220),
    again=st.frozensets(st.integers(0, 219), max_size=3) | st.just(ALL),
    unsent=st.frozensets(st.integers(0, 219), max_size=3),
    failed_before=st.frozensets(st.integers(0, 219), max_size=3) | st.just(ALL),
)
@example(lines=[ALIKE[3], ALIKE[150]], place=150, again=NONE, unsent=NONE, failed_before=NONE)
@example(lines=[UNKNOWN], place=150, again=NONE, unsent=NONE, failed_before=ALL)
@example(lines=[], place=0, again=ALL, unsent=frozenset({150}), failed_before=frozenset({3}))
def test_rows_taken_many_at_once_join_to_what_they_join_to_one_by_one(
    lines: list[bytes],
    place: int,
    again: frozenset[int],
    unsent: frozenset[int],
    failed_before: frozenset[int],
) -> None:
    ids = [f"r{number}" for number in reversed(range(220))]
    before = [Tried(error=[encoded(http_failure(f"r{number}", 429)) for number in sorted(failed_before)])]
    sent = ALL - unsent
    tried = [
        *(before if failed_before else []),
        Tried([*ALIKE[:place], *lines, *ALIKE[place:]], sent=sent if unsent else None),
        Tried([ALIKE[number] for number in sorted(again)]),
    ]
    with TemporaryDirectory() as folder, ThreadPoolExecutor(1) as executor:
        at_once = join(Path(folder), ids, *tried)
        one_by_one = join(Path(folder), ids, *tried, executor=executor, range_bytes=400)
    assert at_once == one_by_one
