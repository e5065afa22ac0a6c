"""A cheap proof that a line is sound, by comparing it with one that was read exactly.

Files are written by programs, so their lines share everything but the values: the same keys in the same
order with the same spacing. A *frame* is that skeleton, taken from a line the exact scanner has read. For
any other line, msgspec cuts out the values unread; if frame and values, put together again, give the very
bytes of the line, then the line has exactly the frame's keys: none repeated, none unknown, none hidden.
What remains is to look at the values. Nothing is guessed: whatever does not fit goes to the exact scanner.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Raw

from langbatch.requests.jsonscan import Member, Scanned, repeated

Note = TypeVar("Note")

#: The request object's own keys; every one of them, and no other, makes a frame.
REQUEST_KEYS = ("custom_id", "method", "url", "body")
#: Skeletons kept at once. A file with more is written by hand or by an adversary.
MAX_FRAMES = 32


class _Envelope(msgspec.Struct, gc=False):
    custom_id: Raw
    method: Raw
    url: Raw
    body: dict[str, Raw]


decode_envelope: Callable[[bytes], _Envelope] = msgspec.json.Decoder(_Envelope).decode
#: What decoding unproven bytes can raise; none of it is a verdict.
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Frame:
    """One skeleton: literal bytes at even places, values at odd ones.

    `keys[i]` names the value at place `2 * i + 1`; the first three found by `decode_envelope` are the
    request's own, the body's follow in the order of its keys.
    """

    __slots__ = ("_order", "_pieces", "count", "keys", "places")

    def __init__(self, pieces: list[Any], keys: tuple[str, ...], order: tuple[int, ...]) -> None:
        self._pieces = pieces
        self._order: Callable[[tuple[Any, ...]], tuple[Any, ...]] | None = (
            None if order == tuple(range(len(order))) else itemgetter(*order)
        )
        self.keys = keys
        self.count = len(keys) - 3
        self.places = {key: 2 * index + 1 for index, key in enumerate(keys)}

    def fit(self, line: bytes, envelope: _Envelope) -> list[Any] | None:
        """The line cut into pieces, if it is exactly this frame around its values."""
        body = envelope.body
        if len(body) != self.count:
            return None
        values = (envelope.custom_id, envelope.method, envelope.url, *body.values())
        pieces = self._pieces[:]
        pieces[1::2] = values if self._order is None else self._order(values)
        return pieces if b"".join(pieces) == line else None


def body_place(key: str) -> str:
    """A body key's name in `Frame.places`, where the request's own keys stand plain."""
    return f"body.{key}"


def frame_of(line: bytes, scanned: Scanned) -> Frame | None:
    """The skeleton of an exactly read line; None where the line has other keys than the four, or repeats."""
    body = scanned.body
    if not body or len(scanned.members) != 4 or repeated(scanned.members) or repeated(body):
        return None
    if {member.key for member in scanned.members} != set(REQUEST_KEYS):
        return None
    spans: list[tuple[Member, str, int]] = []
    for member in scanned.members:
        if member.key == "body":
            spans += [(inner, body_place(inner.key), 3 + index) for index, inner in enumerate(body)]
        else:
            spans.append((member, member.key, REQUEST_KEYS.index(member.key)))
    pieces: list[Any] = []
    at = 0
    for member, _, _ in spans:
        pieces += [line[at : member.value_start], b""]
        at = member.value_end
    pieces.append(line[at:])
    return Frame(pieces, tuple(name for _, name, _ in spans), tuple(order for _, _, order in spans))


class FrameShelf(Generic[Note]):
    """The frames seen so far, each with what its owner noted about it. Bounded."""

    __slots__ = ("_latest", "_shelf")

    def __init__(self) -> None:
        self._shelf: list[tuple[Frame, Note]] = []
        self._latest: tuple[Frame, Note] | None = None

    def add(self, frame: Frame, note: Note) -> None:
        if len(self._shelf) >= MAX_FRAMES:
            self._shelf = []
        self._latest = (frame, note)
        self._shelf.append(self._latest)

    def take(self, line: bytes) -> tuple[Note, list[Any]] | None:
        """The note on the frame that a line has, with its pieces. The last that fitted is tried first."""
        try:
            envelope = decode_envelope(line)
        except UNREADABLE:
            return None
        latest = self._latest
        if latest is not None and (pieces := latest[0].fit(line, envelope)) is not None:
            return latest[1], pieces
        for entry in self._shelf:
            if entry is not latest and (pieces := entry[0].fit(line, envelope)) is not None:
                self._latest = entry
                return entry[1], pieces
        return None
