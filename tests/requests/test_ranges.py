"""An input judged in ranges, by threads or processes, gives what one pass gives: to the byte."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from input_files import AZURE, OPENAI, chat, embedding, line, write
from langbatch.errors import BatchValidationError
from langbatch.pool import ProcessPool
from langbatch.requests.validation import Intake, Rules, read_requests
from langbatch.shards.snapshot import SnapshotWriter


@pytest.fixture(scope="module", params=["threads", "processes", "our own processes"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    pool: Executor
    if request.param == "threads":
        pool = ThreadPoolExecutor(2)
    elif request.param == "our own processes":
        pool = ProcessPool(2)
    else:
        pool = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))
    with pool:
        yield pool


def found(path: Path, rules: Rules, executor: Executor | None, range_bytes: int) -> tuple[Any, ...]:
    """Everything that a reading comes to: the intake or the refusal, and every file of the copy."""
    with TemporaryDirectory() as folder:
        kept = Path(folder) / "kept"
        intake: Intake | None = None
        refused: tuple[Any, ...] = ()
        try:
            with SnapshotWriter(kept) as writer:
                intake = read_requests(path, rules, into=writer, executor=executor, range_bytes=range_bytes)
            alone = read_requests(path, rules, executor=executor, range_bytes=range_bytes)
            assert (alone, alone.sha256) == (intake, intake.sha256)
        except BatchValidationError as error:
            refused = (error.message, error.problems)
        sha256 = None if intake is None else intake.sha256
        runs = None if intake is None else list(intake.model_runs())
        files = {file.name: file.read_bytes() for file in sorted(kept.glob("*"))} if kept.exists() else {}
        return intake, sha256, runs, refused, writer.written, files


GOOD = [
    line(chat("a", "one")),
    line(chat("b", "zwei ü 😀", seed=7)),
    line(chat("c", [{"type": "text", "text": "part"}])),
    line(chat("d", "x", model="other")),
    line(chat("A", "similar")),
    line(chat("e", "key sk-abcdefghijklmnopqrstuvwx")),
    line(chat("f", "x", odd=1)),
    line(embedding("g", ["one", "two"])),
]
BAD = [
    b"",
    b"   ",
    b"{",
    b'["no"]',
    line(chat("h")).replace(b"POST", b"GET"),
    line(chat("i")) + b"\r",
    b"  " + line(chat("j")) + b" ",
    line(chat("k", "x" * 900)),
    b"\xff",
]
LINES = st.integers(0, 40).map(lambda number: line(chat(f"n{number}", "text " * (number % 9))))


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    lines=st.lists(LINES | st.sampled_from(GOOD + BAD), min_size=1, max_size=40),
    start=st.sampled_from([b"", b"\xef\xbb\xbf"]),
    end=st.sampled_from([b"\n", b""]),
    range_bytes=st.integers(1, 3_000),
    rules=st.sampled_from(
        [
            AZURE,
            replace(AZURE, skip_invalid=True),
            replace(AZURE, split_by_model=True, skip_invalid=True),
            replace(AZURE, model="wanted", auto_id=True, skip_invalid=True),
            replace(AZURE, skip_invalid=True, limits=replace(AZURE.limits, file_bytes=700)),
            replace(OPENAI, skip_invalid=True),
        ]
    ),
)
def test_ranges_cut_anywhere_give_what_one_pass_gives(
    executor: Executor, lines: list[bytes], start: bytes, end: bytes, range_bytes: int, rules: Rules
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "input.jsonl"
        path.write_bytes(start + b"\n".join(lines) + end)
        assert found(path, rules, executor, range_bytes) == found(path, rules, None, 0)


def test_ranges_of_many_blocks_give_what_one_pass_gives(executor: Executor, tmp_path: Path) -> None:
    numbers = range(3_000)
    lines = [
        line(chat(f"n{number % 2_990}", "text " * (number * 37 % 400), seed=number)) for number in numbers
    ]
    path = write(tmp_path, lines)
    rules = replace(AZURE, skip_invalid=True)
    one_pass = found(path, rules, None, 0)
    assert one_pass[0].rejected == 10
    for range_bytes in (100_000, 700_001):
        assert found(path, rules, executor, range_bytes) == one_pass


class _Counting(ThreadPoolExecutor):
    """Tells how much was under way at once, at most."""

    def __init__(self) -> None:
        super().__init__(1)
        self.most = 0
        self._begun: list[Future[Any]] = []

    def submit(self, *arguments: Any, **named: Any) -> Future[Any]:
        self._begun = [future for future in self._begun if not future.done()]
        self._begun.append(super().submit(*arguments, **named))
        self.most = max(self.most, len(self._begun))
        return self._begun[-1]


def test_no_more_ranges_are_under_way_than_keep_the_cores_busy(tmp_path: Path) -> None:
    path = write(tmp_path, [chat(f"n{number}", "x" * 500) for number in range(2_000)])
    with _Counting() as executor:
        assert read_requests(path, AZURE, executor=executor, range_bytes=1_000).total == 2_000
        assert executor.most <= 2 * (os.cpu_count() or 1) + 8


def test_a_file_that_is_replaced_between_ranges_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, [chat(f"n{number}", "x" * 5_000) for number in range(200)])

    class Replacing(ThreadPoolExecutor):
        def submit(self, *arguments: Any, **named: Any) -> Future[Any]:
            # At no moment is there none: a worker may be opening it.
            write(tmp_path, [chat("other")], "other.jsonl").replace(path)
            return super().submit(*arguments, **named)

    with Replacing(1) as executor, pytest.raises(BatchValidationError) as caught:
        read_requests(path, AZURE, executor=executor, range_bytes=100_000)
    assert [problem.code for problem in caught.value.problems] == ["file_changed"]
