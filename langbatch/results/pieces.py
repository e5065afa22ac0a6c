"""The rows of a downloaded file, in flat memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Final

#: A longer row is not held in memory; it goes to quarantine as it streams by.
MAX_ROW_BYTES: Final = 64 << 20

_BLOCK_BYTES: Final = 1 << 18
#: So much of an oversized row is kept, to search for its `custom_id`.
_HEAD_BYTES: Final = 64 << 10
_BOM: Final = b"\xef\xbb\xbf"


def piece_rows(
    file: BinaryIO, quarantine: BinaryIO, max_row_bytes: int = MAX_ROW_BYTES
) -> Iterator[tuple[int, bytes, bool]]:
    """(offset, row, True) for each row that is not blank, white space around it left out.

    Split on `\\n` bytes alone: U+2028 and its kin stand raw inside JSON strings. A row over the limit is
    written to `quarantine` while it is read and given as (offset, its first bytes, False).
    """
    pending: list[bytes] = []
    pending_bytes = 0
    start = 0
    oversized: bytes | None = None
    while True:
        block = file.read(_BLOCK_BYTES)
        at_end = not block
        if start == 0 and not pending and oversized is None and block.startswith(_BOM):
            block = block[len(_BOM) :]
            start = len(_BOM)
        if at_end:
            lines = [b""] if pending or oversized is not None else []
        else:
            lines = block.split(b"\n")
            if len(lines) == 1:
                lines = []
                rest = block
            else:
                rest = lines.pop()
        for line in lines:
            if oversized is not None:
                quarantine.write(line + b"\n")
                yield start, oversized, False
                start += pending_bytes + len(line) + 1
                oversized = None
                pending_bytes = 0
                continue
            if pending:
                pending.append(line)
                line = b"".join(pending)
                pending = []
                pending_bytes = 0
            length = len(line)
            if length > max_row_bytes:
                quarantine.write(line + b"\n")
                yield start, line[:_HEAD_BYTES], False
            elif length and line[0] == 0x7B and line[-1] == 0x7D:
                yield start, line, True
            elif row := line.strip(b" \t\r"):
                yield start + line.index(row[:1]), row, True
            start += length + 1
        if at_end:
            return
        if rest and oversized is None:
            pending.append(rest)
        elif rest:
            quarantine.write(rest)
        pending_bytes += len(rest)
        if oversized is None and pending_bytes > max_row_bytes:
            head = b"".join(pending)
            quarantine.write(head)
            oversized = head[:_HEAD_BYTES]
            pending = []
