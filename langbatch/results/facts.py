"""What a joiner needs to know of each row: read here, or by any executor in byte ranges of the file."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from langbatch.results.pieces import piece_blocks
from langbatch.results.rows import GarbledRow, Row, ids_in_garbage, quick_success, read_row

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

#: About what a range holds; a smaller file is read here, whatever executor there is.
RANGE_BYTES: Final = 4 << 20
_SEARCH_BYTES: Final = 1 << 16

#: Where the row lies, its bytes, whose it is, where our own keys go into a row that is otherwise copied
#: (0: it is built anew), its usage object, and the row itself where `quick_success` did not know it.
#: Of a row that cannot be read: the ids that still can, and no row; its splice is `OVERSIZED` or 0.
Fact = tuple[int, int, str | tuple[str, ...], int, bytes | None, Row | None]
OVERSIZED: Final = 1


def facts(file: BinaryIO, max_row_bytes: int, start: int = 0, end: int | None = None) -> Iterator[Fact]:
    """The facts of all rows, or of those between two places where rows begin, in order."""
    for offset, lines, oversized_bytes in piece_blocks(file, max_row_bytes, start, end):
        if oversized_bytes:
            yield offset, oversized_bytes, ids_in_garbage(lines[0]), OVERSIZED, None, None
            continue
        at = offset
        for line in lines:
            length = len(line)
            offset, at = at, at + length + 1
            if not length or line[0] != 0x7B or line[-1] != 0x7D:
                # White space around a row is no part of it.
                stripped = line.strip(b" \t\r")
                if not stripped:
                    continue
                offset += line.index(stripped[:1])
                line, length = stripped, len(stripped)
            quick = quick_success(line)
            if quick is not None:
                yield offset, length, *quick, None
                continue
            try:
                row = read_row(line)
            except GarbledRow as garbled:
                yield offset, length, garbled.custom_ids, 0, None, None
            else:
                yield offset, length, row.custom_id, 0, row.usage, row


def facts_of_range(path: Path, max_row_bytes: int, start: int, end: int) -> list[Fact]:
    """For a worker."""
    with open(path, "rb", buffering=0) as file:
        return list(facts(file, max_row_bytes, start, end))


def facts_in_ranges(
    executor: Executor, file: BinaryIO, path: Path, max_row_bytes: int, range_bytes: int
) -> Iterator[Fact]:
    """As `facts`, read by workers that see the file under the same path. Not much more is under way at once
    than keeps the machine's cores busy."""
    size = os.fstat(file.fileno()).st_size
    most = 2 * (os.cpu_count() or 1) + 1
    waiting: deque[Future[list[Fact]]] = deque()
    start = 0
    try:
        while start < size or waiting:
            while start < size and len(waiting) < most:
                end = _row_start(file, min(start + max(range_bytes, 1), size), size)
                waiting.append(executor.submit(facts_of_range, path, max_row_bytes, start, end))
                start = end
            yield from waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _row_start(file: BinaryIO, offset: int, size: int) -> int:
    """Where the first row begins that does not begin before `offset`."""
    at = offset - 1
    while block := os.pread(file.fileno(), _SEARCH_BYTES, at):
        found = block.find(b"\n")
        if found >= 0:
            return at + found + 1
        at += len(block)
    return size
