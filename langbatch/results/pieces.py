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
    """(offset, rows without their newlines, 0), block by block: blank rows and white space included.

    Split on `\\n` bytes alone: U+2028 and its kin stand raw inside JSON strings. A row over the limit is not
    held: it comes alone, as (offset, [its first bytes], its length). `start` and `end` are places where rows
    begin.
    """
    pending: list[bytes] = []
    pending_bytes = 0
    oversized: bytes | None = None
    file.seek(start)
    left = None if end is None else end - start
    while True:
        block = file.read(_BLOCK_BYTES if left is None else min(_BLOCK_BYTES, left))
        if left is not None:
            left -= len(block)
        if start == 0 and not pending and oversized is None and block.startswith(_BOM):
            block = block[len(_BOM) :]
            start = len(_BOM)
        lines = block.split(b"\n")
        rest = lines.pop()
        if not block:
            if pending or oversized is not None:
                lines = [b""]
            else:
                return
        if lines and (pending or oversized is not None):
            # The end of a row that began in an earlier block.
            length = pending_bytes + len(lines[0])
            if oversized is not None:
                yield start, [oversized], length
                del lines[0]
            elif length > max_row_bytes:
                yield start, [b"".join([*pending, lines[0]])[:_HEAD_BYTES]], length
                del lines[0]
            else:
                lines[0] = b"".join([*pending, lines[0]])
                length = -1
            start += length + 1
            pending, pending_bytes, oversized = [], 0, None
        if lines:
            if len(lines[0]) <= max_row_bytes >= _BLOCK_BYTES:
                yield start, lines, 0
                start += sum(map(len, lines)) + len(lines)
            else:
                for line in lines:
                    if len(line) > max_row_bytes:
                        yield start, [line[:_HEAD_BYTES]], len(line)
                    else:
                        yield start, [line], 0
                    start += len(line) + 1
        if not block:
            return
        if rest and oversized is None:
            pending.append(rest)
        pending_bytes += len(rest)
        if oversized is None and pending_bytes > max_row_bytes:
            oversized = b"".join(pending)[:_HEAD_BYTES]
            pending = []
