"""The second pass of a join: requests that follow one another → their records. By any executor.

Rows are read straight to where they are written from, with a gap for our own keys.
"""

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
_REQUESTS: Final = 512
_BYTES: Final = 1 << 20


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


def records_of(sources: Sequence[tuple[Path | None, int]], stretch: Stretch) -> bytearray:
    """The stretch's records, whose sources are pieces (or None) and attempts.

    Raises `BatchResultsError` where a piece no longer has its rows.
    """
    ours = [
        b'"outcome": "succeeded", "line": %d, "attempt": %d, ' % (line, sources[source][1])
        for line, source in zip(stretch.lines, stretch.sources, strict=True)
    ]
    size = sum(stretch.lengths) + sum(map(len, ours)) + len(ours)
    for place, record in stretch.built.items():
        size += len(record) - stretch.lengths[place] - len(ours[place]) - 1
    buffer = bytearray(size)
    view = memoryview(buffer)
    at = 0
    with ExitStack() as stack:
        descriptors = {}
        for source in set(stretch.sources):
            path, _ = sources[source]
            if path is not None:
                descriptors[source] = stack.enter_context(open(path, "rb", buffering=0)).fileno()
        # Looked up once: this loop runs for every row that there is.
        preadv = os.preadv
        rows = zip(stretch.sources, stretch.offsets, stretch.lengths, stretch.splices, ours, strict=True)
        for place, (source, offset, length, splice, keys) in enumerate(rows):
            if not splice:
                record = stretch.built[place]
                view[at : at + len(record)] = record
                at += len(record)
                continue
            head = at + splice
            rest = head + len(keys)
            end = rest + length - splice
            if preadv(descriptors[source], (view[at:head], view[rest:end]), offset) != length:
                raise piece_changed()
            view[head:rest] = keys
            buffer[end] = 0x0A
            at = end + 1
    return buffer


def piece_changed() -> BatchResultsError:
    return BatchResultsError("a downloaded file changed while it was read", code="piece_changed")
