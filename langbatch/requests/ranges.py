"""An input judged in byte ranges by any `concurrent.futures` executor: threads, processes, a cluster.

A range is judged without knowing what stands before it, once the first good line has set what all lines
must have in common. Findings come back in the order of the file, so that adding them up gives what one
pass over the whole file gives.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from langbatch.requests.examine import Agreement, Rules
from langbatch.requests.judging import Judge, Judged
from langbatch.requests.lines import InputFile, file_changed, open_input

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

#: About what a range holds. A worker holds a block of it at a time, and what it found.
RANGE_BYTES = 4 << 20
#: As many cores as are kept busy at most: bounds what has been found and waits to be added up.
_MOST_CORES = 8


@dataclass(frozen=True, slots=True)
class Range:
    """What a worker is given. `identity` tells whether it opens the file that was meant."""

    path: Path
    identity: tuple[int, ...]
    start: int
    end: int
    rules: Rules
    agreed: Agreement


def judge_range(task: Range) -> list[Judged] | None:
    """The findings on a range's blocks, in order; None where the file is not the one that was meant."""
    with open_input(task.path, gzip=task.rules.gzip) as file:
        if file.identity != task.identity:
            return None
        judge = Judge(task.rules, replace(task.agreed))
        return [
            judge.judge(block, 1) for block in file.blocks(task.rules.max_line_bytes, task.start, task.end)
        ]


def judge_ranges(
    executor: Executor,
    file: InputFile,
    path: Path,
    rules: Rules,
    agreed: Agreement,
    start: int,
    range_bytes: int,
) -> Iterator[Judged]:
    """The findings on all from `start`, where a line begins, in order. Workers open the file as `path`.

    Not much more is under way at once than keeps the machine's cores busy. What a worker that died, or none,
    was to judge is judged here. Raises `BatchValidationError` where the file changed.
    """
    most = 2 * min(os.cpu_count() or 1, _MOST_CORES) + 1
    waiting: deque[tuple[Range, Future[list[Judged] | None] | None]] = deque()
    try:
        while start < file.size_bytes or waiting:
            while start < file.size_bytes and len(waiting) < most:
                end = file.line_start(min(start + max(range_bytes, 1), file.size_bytes))
                task = Range(path, file.identity, start, end, rules, agreed)
                waiting.append((task, _begun(executor, task)))
                start = end
            task, future = waiting.popleft()
            try:
                found = judge_range(task) if future is None else future.result()
            except BrokenExecutor:
                found = judge_range(task)
            if found is None:
                raise file_changed()
            yield from found
    finally:
        for _, future in waiting:
            if future is not None:
                future.cancel()


def _begun(executor: Executor, task: Range) -> Future[list[Judged] | None] | None:
    """None where the executor takes nothing (any more): it is broken, or the program is ending."""
    try:
        return executor.submit(judge_range, task)
    except RuntimeError:  # BrokenExecutor is one
        return None
