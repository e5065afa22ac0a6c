"""An input judged in byte ranges by any `concurrent.futures` executor: threads, processes, a cluster.

A range is judged without knowing what stands before it, once the first good line has set what all lines
must have in common. Findings come back in the order of the file, so that adding them up gives what one
pass over the whole file gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from langbatch.parallel import in_order
from langbatch.requests.examine import Agreement, Rules
from langbatch.requests.judging import Judge, Judged
from langbatch.requests.lines import InputFile, file_changed, open_input

if TYPE_CHECKING:
    from concurrent.futures import Executor

#: About what a range holds. A worker holds a block of it at a time, and what it found.
RANGE_BYTES = 4 << 20


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

    Raises `BatchValidationError` where the file changed.
    """

    def tasks() -> Iterator[tuple[Range]]:
        at = start
        while at < file.size_bytes:
            end = file.line_start(min(at + max(range_bytes, 1), file.size_bytes))
            yield (Range(path, file.identity, at, end, rules, agreed),)
            at = end

    for found in in_order(executor, judge_range, tasks()):
        if found is None:
            raise file_changed()
        yield from found
