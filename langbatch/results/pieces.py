"""The rows of a downloaded file, in flat memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO, Final

#: A longer row is not held in memory; it goes to quarantine as it streams by.
MAX_ROW_BYTES: Final = 64 << 20

_BLOCK_BYTES: Final = 64 << 10
#: So much of an oversized row is kept, to search for its `custom_id`.
_HEAD_BYTES: Final = 64 << 10
_BOM: Final = b"\xef\xbb\xbf"


def piece_blocks(
    file: BinaryIO, max_row_bytes: int = MAX_ROW_BYTES, start: int = 0, end: int | None = None
) -> Iterator[tuple[int, bytes, int]]:
    """(offset, what lies there, 0), block by block: whole rows, each with its newline, blank rows and white
    space included. Only the last row of all may lack it.

    Rows end at `\\n` bytes alone: U+2028 and its kin stand raw inside JSON strings. A row over the limit is
    not held: it comes alone, as (offset, its first bytes, its length). `start` and `end` are places where
    rows begin.
    """
    begun = _Begun(max_row_bytes)
    # Not by the file's own position: others read it meanwhile.
    descriptor, at = file.fileno(), start
    while block := os.pread(descriptor, _BLOCK_BYTES if end is None else min(_BLOCK_BYTES, end - at), at):
        at += len(block)
        if start == 0 and not begun.size and block.startswith(_BOM):
            block = block[len(_BOM) :]
            start = len(_BOM)
        last = block.rfind(b"\n") + 1
        if not last:
            begun.add(block)
            continue
        first = block.index(b"\n") + 1 if begun.size else 0
        length = begun.size + first - 1
        whole = memoryview(block)
        if length > max_row_bytes:
            yield start, begun.end(whole[:first])[:_HEAD_BYTES], length
            start += length + 1
        else:
            first = 0
        if first < last:
            text = begun.end(whole[first:last])
            yield from _whole_rows(start, text, max_row_bytes)
            start += len(text)
        begun.add(block[last:])
    if begun.size:
        length = begun.size
        row = begun.end()
        yield (start, row[:_HEAD_BYTES], length) if length > max_row_bytes else (start, row, 0)


def _whole_rows(start: int, text: bytes, max_row_bytes: int) -> Iterator[tuple[int, bytes, int]]:
    if max_row_bytes >= _BLOCK_BYTES:
        yield start, text, 0
        return
    for row in text.split(b"\n")[:-1]:
        if len(row) > max_row_bytes:
            yield start, row[:_HEAD_BYTES], len(row)
        else:
            yield start, row + b"\n", 0
        start += len(row) + 1


class _Begun:
    """A row whose end has not been read yet. Of one that is too long, only the first bytes are kept."""

    def __init__(self, max_bytes: int) -> None:
        self.size = 0
        self._max_bytes = max_bytes
        self._parts: list[bytes | memoryview] = []

    def add(self, part: bytes) -> None:
        if part and self.size <= self._max_bytes:
            self._parts.append(part)
            if self.size + len(part) > self._max_bytes:
                self._parts = [b"".join(self._parts)[:_HEAD_BYTES]]
        self.size += len(part)

    def end(self, rest: bytes | memoryview = b"") -> bytes:
        """The row with the rest of it, or its first bytes; then there is none."""
        if self.size <= self._max_bytes:
            self._parts.append(rest)
        row = b"".join(self._parts)
        self._parts, self.size = [], 0
        return row
