"""The rows of a downloaded file, in flat memory."""

from __future__ import annotations

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
) -> Iterator[tuple[int, list[bytes], int]]:
    """(offset, what lies there in parts, 0), block by block. A part holds whole rows, each with its newline:
    blank rows and white space included. Only the last row of all may lack it.

    Rows end at `\\n` bytes alone: U+2028 and its kin stand raw inside JSON strings. A row over the limit is
    not held: it comes alone, as (offset, [its first bytes], its length). `start` and `end` are places where
    rows begin.
    """
    begun = _Begun(max_row_bytes)
    file.seek(start)
    left = None if end is None else end - start
    while block := file.read(_BLOCK_BYTES if left is None else min(_BLOCK_BYTES, left)):
        if left is not None:
            left -= len(block)
        if start == 0 and not begun.size and block.startswith(_BOM):
            block = block[len(_BOM) :]
            start = len(_BOM)
        last = block.rfind(b"\n") + 1
        parts = [block[:last]] if last else []
        if last and begun.size:
            first = block.index(b"\n") + 1
            parts = [block[first:last]] if first < last else []
            length = begun.size + first - 1
            row = begun.end(block[:first])
            if length > max_row_bytes:
                yield start, [row[:_HEAD_BYTES]], length
                start += length + 1
            else:
                parts.insert(0, row)
        if parts:
            yield from _whole_rows(start, parts, max_row_bytes)
            start += sum(map(len, parts))
        begun.add(block[last:])
    if begun.size:
        length = begun.size
        row = begun.end()
        yield (start, [row[:_HEAD_BYTES]], length) if length > max_row_bytes else (start, [row], 0)


def _whole_rows(start: int, parts: list[bytes], max_row_bytes: int) -> Iterator[tuple[int, list[bytes], int]]:
    if max_row_bytes >= _BLOCK_BYTES:
        yield start, parts, 0
        return
    for row in b"".join(parts).split(b"\n")[:-1]:
        if len(row) > max_row_bytes:
            yield start, [row[:_HEAD_BYTES]], len(row)
        else:
            yield start, [row + b"\n"], 0
        start += len(row) + 1


class _Begun:
    """A row whose end has not been read yet. Of one that is too long, only the first bytes are kept."""

    def __init__(self, max_bytes: int) -> None:
        self.size = 0
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []

    def add(self, part: bytes) -> None:
        if part and self.size <= self._max_bytes:
            self._parts.append(part)
            if self.size + len(part) > self._max_bytes:
                self._parts = [b"".join(self._parts)[:_HEAD_BYTES]]
        self.size += len(part)

    def end(self, rest: bytes = b"") -> bytes:
        """The row with the rest of it, or its first bytes; then there is none."""
        if self.size <= self._max_bytes:
            self._parts.append(rest)
        row = b"".join(self._parts)
        self._parts, self.size = [], 0
        return row
