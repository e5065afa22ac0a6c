"""Arrow arrays built a value at a time, laid out by hand.

`pyarrow.array` imports pandas and numpy wherever they are installed, to see whether it was given one of
theirs: 50 MB for a list of strings. The layouts are those of Arrow's columnar format, which is fixed.
"""

from __future__ import annotations

from array import array
from typing import Any, Final

from langbatch.results.tables import Kind, cell_text

#: Bytes 0 and 1 as the digits of a binary number.
_DIGITS: Final = bytes.maketrans(b"\0\1", b"01")


def arrow_type(arrow: Any, kind: Kind) -> Any:
    match kind:
        case "integer":
            return arrow.int64()
        case "float":
            return arrow.float64()
        case "boolean":
            return arrow.bool_()
        case "floats":
            return arrow.list_(arrow.float64())
        case "string" | "mixed":
            return arrow.string()


class ColumnBuilder:
    """One column's values until the next `take`. `bytes` is what they weigh, roughly."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._clear()

    def _clear(self) -> None:
        self._present = bytearray()
        self._numbers = array("q" if self._kind == "integer" else "d")
        self._truths = bytearray()
        self._text = bytearray()
        self._ends = array("i", [0])

    @property
    def bytes(self) -> int:
        return len(self._text) + 8 * (len(self._numbers) + len(self._ends))

    def append(self, value: Any) -> None:
        """`value` must be of the column's kind, or None."""
        self._present.append(value is not None)
        match self._kind:
            case "integer" | "float":
                self._numbers.append(value or 0)
            case "boolean":
                self._truths.append(bool(value))
            case "floats":
                self._numbers.extend(value or ())
                self._ends.append(len(self._numbers))
            case "string" | "mixed":
                if value is not None:
                    self._text += (cell_text(value) or "").encode()
                self._ends.append(len(self._text))

    def take(self, arrow: Any) -> Any:
        """The values as an array; the builder is empty after it."""
        count = len(self._present)
        children = []
        buffers: list[Any]
        match self._kind:
            case "integer" | "float":
                buffers = [self._numbers]
            case "boolean":
                buffers = [_bits(self._truths)]
            case "floats":
                buffers = [self._ends]
                numbers = [None, arrow.py_buffer(self._numbers)]
                children = [arrow.Array.from_buffers(arrow.float64(), len(self._numbers), numbers)]
            case "string" | "mixed":
                buffers = [self._ends, self._text]
        made = arrow.Array.from_buffers(
            arrow_type(arrow, self._kind),
            count,
            [arrow.py_buffer(buffer) for buffer in (_bits(self._present), *buffers)],
            children=children,
        )
        # Arrow reads the buffers where they are: they are left to it, not emptied.
        self._clear()
        return made


def _bits(truths: bytearray) -> bytes:
    """One bit a value, the first in the lowest."""
    written = truths[::-1].translate(_DIGITS)
    return int(written or b"0", 2).to_bytes((len(truths) + 7) // 8, "little")
