"""Pieces read in ranges, by threads or processes, join to what one reading joins to: to the byte."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from results.joining import Tried, chat_body, encoded, http_failure, join, success
from results.test_join_properties import IDS, tries


@pytest.fixture(scope="module", params=["threads", "processes"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    pool: Executor
    if request.param == "threads":
        pool = ThreadPoolExecutor(2)
    else:
        pool = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))
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
    taken = 0

    def submit(self, *arguments: Any, **named: Any) -> Future[Any]:
        self.taken += 1
        return super().submit(*arguments, **named)


def test_a_long_piece_is_read_in_ranges_and_a_short_one_at_once(tmp_path: Path) -> None:
    ids = [f"r{number}" for number in range(400)]
    rows = [encoded(success(custom_id, chat_body("x" * 500))) for custom_id in reversed(ids[5:])]
    failed = [encoded(http_failure(custom_id, 400)) for custom_id in ids[:5]]
    here = join(tmp_path, ids, Tried(rows, failed))
    with _Counting(2) as executor:
        there = join(tmp_path, ids, Tried(rows, failed), executor=executor, range_bytes=20_000)
        size = (tmp_path / "00000-1-output.jsonl").stat().st_size
        assert executor.taken == pytest.approx(size / 20_000, rel=0.1)
    assert there == here
    assert there.report.tally.succeeded == 395
