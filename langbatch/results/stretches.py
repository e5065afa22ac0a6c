"""The second pass of a join: requests that follow one another → their records. By any executor."""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Final

from langbatch.errors import BatchResultsError

#: A stretch is so many requests at most, and about so many bytes; a longer row comes alone.
_REQUESTS: Final = 1024
_BYTES: Final = 2 << 20

#: Our own keys, as they go into the row of a success.
_OURS: Final = '"outcome": "succeeded", "line": %%d, "attempt": %d, '

#: By number: a piece, or None for what is none, and the attempt.
Sources = Sequence[tuple[Path | None, int]]


@dataclass(frozen=True, slots=True)
class Stretch:
    """For each of its requests: the line in the user's file, the source of its row, and where that lies.

    A `splice` is where our own keys go into a row, which is else copied; where it is 0, the record is
    `built`, by place in the stretch.
    """

    lines: Sequence[int]
    sources: array[int]
    offsets: array[int]
    lengths: array[int]
    splices: array[int]
    built: Mapping[int, bytes]


def stretch_ends(lengths: array[int]) -> Iterator[int]:
    """Where each stretch ends; the last of all with the last of the rows."""
    start = 0
    while start < len(lengths):
        ends = list(accumulate(lengths[start : start + _REQUESTS]))
        start += max(1, bisect_right(ends, _BYTES))
        yield start


def records_of(sources: Sources, stretch: Stretch) -> bytes:
    """The stretch's records.

    Raises `BatchResultsError` where a piece no longer has its rows.
    """
    parts: list[bytes | memoryview] = []
    with ExitStack() as stack:
        descriptors = {}
        for source in set(stretch.sources):
            path, _ = sources[source]
            if path is not None:
                descriptors[source] = stack.enter_context(open(path, "rb", buffering=0)).fileno()
        ours = [(_OURS % attempt).encode() for _, attempt in sources]
        # Looked up once: this loop runs for every row that there is.
        pread, built = os.pread, stretch.built
        rows = zip(
            stretch.lines, stretch.sources, stretch.offsets, stretch.lengths, stretch.splices, strict=True
        )
        for place, (line, source, offset, length, splice) in enumerate(rows):
            if not splice:
                parts.append(built[place])
                continue
            row = pread(descriptors[source], length, offset)
            if len(row) != length:
                raise piece_changed()
            parts += (row[:splice], ours[source] % line, memoryview(row)[splice:], b"\n")
    return b"".join(parts)


def size_of(sources: Sources, stretch: Stretch) -> int:
    """The bytes of the stretch's records, without reading its rows."""
    lines = stretch.lines
    # What is ours in each record: its newline, and the keys. Numbers differ little in their digits.
    ours = [len((_OURS % attempt).replace("%d", "")) + 1 for _, attempt in sources]
    our_bytes = sum(map(ours.__getitem__, stretch.sources))
    if len(shortest := str(min(lines))) == len(str(max(lines))):
        our_bytes += len(shortest) * len(lines)
    else:
        our_bytes += sum(map(len, map(str, lines)))
    size = sum(stretch.lengths) + our_bytes
    for place, record in stretch.built.items():
        size += len(record) - stretch.lengths[place] - ours[stretch.sources[place]] - len(str(lines[place]))
    return size


def write_records(path: Path, at: int, size: int, sources: Sources, stretch: Stretch) -> int:
    """Put the stretch's records where they belong in a file, which is there: `size` bytes from `at` on."""
    left = memoryview(records_of(sources, stretch))
    assert len(left) == size, "records that lie between others have to fit"
    with open(path, "r+b", buffering=0) as file:
        while left:
            written = os.pwrite(file.fileno(), left, at)
            left, at = left[written:], at + written
    return size


def piece_changed() -> BatchResultsError:
    return BatchResultsError("a downloaded file changed while it was read", code="piece_changed")
