"""What a joiner needs to know of each row: read here, or by any executor in byte ranges of the file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from langbatch.parallel import in_order
from langbatch.results.failures import Failures
from langbatch.results.pieces import MAX_ROW_BYTES, piece_blocks
from langbatch.results.rows import GarbledRow, Row, ids_in_garbage, quick_success, read_row
from langbatch.results.skeletons import PlainRows, Rows, Shelf, Skeleton

if TYPE_CHECKING:
    from concurrent.futures import Executor

#: About what a range holds; a smaller file is read here, whatever executor there is.
RANGE_BYTES: Final = 4 << 20
_SEARCH_BYTES: Final = 1 << 16

#: Where the row lies, its bytes, whose it is, where our own keys go into a row that is otherwise copied
#: (0: it is built anew), its usage object, and the row itself where `quick_success` did not know it.
#: Of a row that cannot be read: the ids that still can, and no row; its splice is `OVERSIZED` or 0.
Fact = tuple[int, int, str | tuple[str, ...], int, bytes | None, Row | None]
OVERSIZED: Final = 1


def facts(
    file: BinaryIO, max_row_bytes: int, start: int = 0, end: int | None = None, *, by_columns: bool = True
) -> Iterator[list[Fact] | PlainRows]:
    """The facts of all rows, or of those between two places where rows begin, in order, many at a time.

    `PlainRows` only `by_columns`.
    """
    shelf, failures = Shelf(), Failures()
    for offset, text, oversized_bytes in piece_blocks(file, max_row_bytes, start, end):
        if oversized_bytes:
            yield [(offset, oversized_bytes, ids_in_garbage(text), OVERSIZED, None, None)]
            continue
        if shelf.is_empty:
            # What one row is like tells what to hold the others against.
            first = text.find(b"\n") + 1 or len(text)
            yield _facts_of_row(text[:first], offset, shelf, failures)
            offset, text = offset + first, text[first:]
        skeleton, cut = shelf.cut(text)
        plain = skeleton.all_of(cut, text, offset) if skeleton is not None and by_columns else None
        yield plain or _facts_one_by_one(skeleton, cut, text, offset, shelf, failures)


def _facts_one_by_one(
    skeleton: Skeleton | None, cut: Rows, text: bytes, offset: int, shelf: Shelf, failures: Failures
) -> list[Fact]:
    found: list[Fact] = []
    rows = iter(cut)
    at, size = 0, len(text)
    while (at := shelf.run(skeleton, rows, text, at, offset, found.append)) < size:
        newline = text.find(b"\n", at)
        end_of_row = newline + 1 if newline >= 0 else size
        found += _facts_of_row(text[at:end_of_row], offset + at, shelf, failures)
        at = end_of_row
    return found


def one_by_one(file: BinaryIO, rows: PlainRows) -> Iterator[Fact]:
    """The facts of each of these rows of the file."""
    for found in facts(file, MAX_ROW_BYTES, rows.start, rows.end, by_columns=False):
        assert not isinstance(found, PlainRows)
        yield from found


def _facts_of_row(line: bytes, offset: int, shelf: Shelf, failures: Failures) -> list[Fact]:
    """None for a blank line. White space around a row is no part of it."""
    data = line.strip(b" \t\r\n")
    if not data:
        return []
    offset += line.index(data[:1])
    row = failures.read(data)
    if row is not None:
        return [(offset, len(data), row.custom_id, 0, None, row)]
    plain = quick_success(data, shelf)
    if plain is not None:
        return [(offset, len(data), *plain, None)]
    try:
        row = read_row(data)
    except GarbledRow as garbled:
        return [(offset, len(data), garbled.custom_ids, 0, None, None)]
    failures.learn(data, row)
    return [(offset, len(data), row.custom_id, 0, row.usage, row)]


def facts_of_range(path: Path, max_row_bytes: int, start: int, end: int) -> list[list[Fact] | PlainRows]:
    """For a worker."""
    with open(path, "rb", buffering=0) as file:
        return list(facts(file, max_row_bytes, start, end))


def facts_of_files(
    executor: Executor, files: Sequence[tuple[BinaryIO, Path]], max_row_bytes: int, range_bytes: int
) -> Iterator[Iterator[list[Fact] | PlainRows]]:
    """As `facts` of each file, read by workers that see it under the same path; to be taken in their order,
    each as a whole."""
    ranges = [list(_ranges(file, max(range_bytes, 1))) for file, _ in files]
    tasks = (
        (path, max_row_bytes, start, end)
        for (_, path), its_ranges in zip(files, ranges, strict=True)
        for start, end in its_ranges
    )
    found = in_order(executor, facts_of_range, tasks)
    for its_ranges in ranges:
        yield chain.from_iterable(islice(found, len(its_ranges)))


def _ranges(file: BinaryIO, range_bytes: int) -> Iterator[tuple[int, int]]:
    """Stretches of about that many bytes that begin and end where rows do."""
    size = os.fstat(file.fileno()).st_size
    start = 0
    while start < size:
        end = _row_start(file, min(start + range_bytes, size), size)
        yield start, end
        start = end


def _row_start(file: BinaryIO, offset: int, size: int) -> int:
    """Where the first row begins that does not begin before `offset`."""
    at = offset - 1
    while block := os.pread(file.fileno(), _SEARCH_BYTES, at):
        found = block.find(b"\n")
        if found >= 0:
            return at + found + 1
        at += len(block)
    return size
