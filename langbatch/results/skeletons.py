"""A cheap proof that a row is a plain success, by comparing it with one that was read exactly.

A service writes its rows with a program, so they share everything but the values: the same keys in the same
order with the same spacing, the same status. That is a row's *skeleton*. msgspec cuts the values out of all
rows of a block at once; where skeleton and values, put together again, give the very bytes that lie there,
the row has the skeleton's keys, each once, and nothing else. It does not even matter whose the values were.
Nothing is guessed: whatever does not fit is for the exact reader.

Much of a body is the same in all rows, too: the model, the filters that found nothing. What did not vary so
far becomes part of the skeleton, which is then *tight*, and need not be cut out.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, repeat
from operator import add, attrgetter
from typing import Any, Final

import msgspec
from msgspec import Raw
from msgspec.structs import astuple

from langbatch.results.members import UNREADABLE, spans, spans_within
from langbatch.results.usage import UsageSum

#: Skeletons kept at once. A file with more is written by hand or by an adversary.
_MAX_SKELETONS: Final = 32
_MAX_LITERAL_BYTES: Final = 1 << 16
#: Rows that tell what does not vary: of at least and at most so many of a block.
_TELLING_ROWS: Final = (8, 32)
#: Rows that a tight skeleton may miss, each of which loosens it, before there is none any more.
_MAX_MISSES: Final = 32
_SUCCESS: Final = re.compile(rb"2[0-9][0-9]")
#: Keys that a plain row has, and that its response has; `id` and `request_id` may come with them.
_ROW_KEYS: Final = frozenset({"custom_id", "response", "error"})
_RESPONSE_KEYS: Final = frozenset({"status_code", "body"})
_RESPONSE_KEY: Final = b'"response":'
_ABSENT: Final = Raw(b"")
#: What the name of a struct's field may not hold.
_NO_FIELD_NAME: Final = re.compile(r'["\\\x00-\x1f]')

#: Whose the row is, where its key `response` begins, its usage object.
Plain = tuple[str, int, bytes | None]
#: Where a row lies, its length, and what it says, as `facts` tells it.
Found = tuple[int, int, str, int, bytes | None, None]
Add = Callable[[Found], object]


@dataclass(frozen=True, slots=True)
class PlainRows:
    """What rows say that lie one after another, at least one, each of them a plain success; by columns.

    `lengths` are without the newline that each has. `splices` are the lengths from a row's start to its key
    `response`. `usage` is that of all of them together.
    """

    offsets: array[int]
    lengths: array[int]
    custom_ids: list[str]
    splices: array[int]
    usage: UsageSum

    @property
    def start(self) -> int:
        return self.offsets[0]

    @property
    def end(self) -> int:
        return self.offsets[-1] + self.lengths[-1] + 1


# `Raw | None` would make msgspec take `null` alone. A key that is not named here is skipped unread: no row
# that has one gets past the comparison.
class _Response(msgspec.Struct, gc=False):
    body: dict[str, Raw]
    request_id: Raw = _ABSENT
    status_code: int = 0


class Values(msgspec.Struct, gc=False):
    custom_id: Raw
    response: _Response | None = None
    id: Raw = _ABSENT


#: `Values`, or what has its members, but with a struct for its body: see `_decoder_of`.
Rows = list[Any]

_decode_lines: Final = msgspec.json.Decoder(Values).decode_lines
_decode_string: Final = msgspec.json.Decoder(str).decode
_decode_strings: Final = msgspec.json.Decoder(list[str]).decode


def _in_order(body: dict[str, Raw]) -> Sequence[Raw]:
    return list(body.values())


@lru_cache(64)
def _decoder_of(keys: tuple[str, ...]) -> Callable[[bytes], list[Any]]:
    """As `_decode_lines`, for rows of whose bodies only these keys' values are wanted, in their order."""
    body = msgspec.defstruct(
        "Body",
        [(f"m{n}", Raw, msgspec.field(name=key, default=_ABSENT)) for n, key in enumerate(keys)],
        gc=False,
    )
    response = msgspec.defstruct("Response", [("body", body), ("request_id", Raw, _ABSENT)], gc=False)
    row = msgspec.defstruct(
        "Row", [("custom_id", Raw), ("response", response | None, None), ("id", Raw, _ABSENT)], gc=False
    )
    return msgspec.json.Decoder(row).decode_lines


class Skeleton:
    """Literal bytes at even places, values at odd ones; the values of the body follow one another.

    `start` is where the key `response` would begin if the values before it took no room. `keys` are those of
    the body's values; `constants`, in a tight skeleton, the values of other keys, which are literal.
    """

    __slots__ = (
        "_body",
        "_columns",
        "_custom_id",
        "_id",
        "_in_order",
        "_pieces",
        "_places",
        "_request_id",
        "_start",
        "_usage",
        "constants",
        "decode_lines",
        "keys",
    )

    def __init__(
        self,
        pieces: list[bytes | Raw],
        places: dict[str, int],
        keys: tuple[str, ...],
        start: int,
        constants: Mapping[str, bytes] | None = None,
    ) -> None:
        self._pieces = pieces
        self._places = places
        self._custom_id = places["custom_id"]
        self._id = places.get("id")
        self._request_id = places.get("request_id")
        self._body = slice(places["body"], places["body"] + 2 * len(keys), 2)
        self._start = start
        self._usage = keys.index("usage") if "usage" in keys else None
        self.keys = keys
        self.constants = constants or {}
        self.decode_lines = _decoder_of(keys) if constants else _decode_lines
        self._in_order: Callable[[Any], Sequence[Raw]] = astuple if constants else _in_order
        #: Takes the values out of a row of `decode_lines`, in the order of their places; where the skeleton
        #: is tight.
        self._columns: Callable[[Any], tuple[Raw, ...]] | None = None
        if constants:
            paths = {self._custom_id: "custom_id", self._id: "id", self._request_id: "response.request_id"}
            paths |= {places["body"] + 2 * n: f"response.body.m{n}" for n in range(len(keys))}
            self._columns = attrgetter(*(paths[place] for place in range(1, len(pieces), 2)))

    def tightened(self, constants: Mapping[str, bytes]) -> Skeleton:
        """This skeleton with those values of the body in it; at least one stays out."""
        names = dict.fromkeys(range(self._body.start, self._body.stop, 2), "body")
        names |= {place: name for name, place in self._places.items()}
        keys = dict(zip(range(self._body.start, self._body.stop, 2), self.keys, strict=True))
        pieces = self._pieces[:1]
        places: dict[str, int] = {}
        for place in range(1, len(self._pieces), 2):
            literal = bytes(self._pieces[place + 1])
            constant = constants.get(keys[place]) if place in keys else None
            if constant is not None:
                pieces[-1] = bytes(pieces[-1]) + constant + literal
            else:
                pieces += [b"", literal]
                places.setdefault(names[place], len(pieces) - 2)
        varying = tuple(key for key in self.keys if key not in constants)
        return Skeleton(pieces, places, varying, self._start, constants)

    def all_of(self, rows: list[Any], text: bytes, offset: int) -> PlainRows | None:
        """The rows that the text is, cut by `decode_lines`; None unless each of them is this skeleton around
        its values. The text lies at `offset`."""
        if self._columns is None or not rows:
            return None
        try:
            columns = list(zip(*map(self._columns, rows), strict=True))
        except AttributeError:
            return None  # a row without a response
        literals = [repeat(bytes(piece)) for piece in self._pieces[::2]]
        last = literals.pop()
        pairs = chain.from_iterable(zip(literals, columns, strict=True))
        if b"".join(chain.from_iterable(zip(*pairs, last, strict=False))) != text:
            return None
        offsets, lengths = _lines(text, offset)
        # A row ends at its first newline; msgspec takes one between values, too.
        if len(lengths) != len(rows):
            return None
        tokens = columns[self._custom_id // 2]
        try:
            custom_ids = _decode_strings(b"[%b]" % b",".join(tokens))
        except UNREADABLE:
            return None
        splices = [self._start + size for size in map(len, tokens)]
        if self._id is not None:
            splices = list(map(add, splices, map(len, columns[self._id // 2])))
        used = UsageSum()
        if self._usage is not None:
            used.add_all(columns[self._body.start // 2 + self._usage])
        return PlainRows(offsets, lengths, custom_ids, array("I", splices), used)

    def run(self, rows: Iterable[Any], text: bytes, at: int, offset: int, add: Add) -> int:
        """Add the rows of the text from `at` on, as long as they are this skeleton around the next of the
        values; where the first begins that is not. Its values are used up, too. The text lies at `offset`.
        """
        # Looked up once: this loop runs for every row that there is.
        pieces, body_places, custom_id_place = self._pieces, self._body, self._custom_id
        id_place, request_id_place, usage_place = self._id, self._request_id, self._usage
        members, literal_start, in_order = len(self.keys), self._start, self._in_order
        starts_with, find, join = text.startswith, text.find, b"".join
        for values in rows:
            response = values.response
            if response is None:
                break
            body = in_order(response.body)
            if len(body) != members:
                break
            pieces[custom_id_place] = token = bytes(values.custom_id)
            start = literal_start + len(token)
            if id_place is not None:
                pieces[id_place] = id_ = bytes(values.id)
                start += len(id_)
            if request_id_place is not None:
                pieces[request_id_place] = response.request_id
            pieces[body_places] = body
            line = join(pieces)
            # A row ends at its first newline; msgspec takes one between values, too.
            if not starts_with(line, at) or find(b"\n", at) != at + len(line) - 1:
                break
            try:
                custom_id = _decode_string(token)
            except UNREADABLE:
                break
            # Copied, since a `Raw` keeps its whole block in memory.
            usage = None if usage_place is None else bytes(body[usage_place])
            add((offset + at, len(line) - 1, custom_id, start, usage, None))
            at += len(line)
        return at


def skeleton_of(line: bytes) -> Skeleton | None:
    """The skeleton of a row, if that is a plain success: a 2xx, no error, a body, and no unusual key.

    Raises one of `UNREADABLE` for bytes that are no row.
    """
    row = spans(line)
    if not _ROW_KEYS <= row.keys() <= _ROW_KEYS | {"id"} or line[slice(*row["error"])] != b"null":
        return None
    response = spans_within(line, row["response"])
    if not _RESPONSE_KEYS <= response.keys() <= _RESPONSE_KEYS | {"request_id"}:
        return None
    body = spans_within(line, response["body"])
    if not body or _SUCCESS.fullmatch(line, *response["status_code"]) is None:
        return None
    values: list[tuple[tuple[int, int], str]] = [(span, "body") for span in body.values()]
    values += [(row[key], key) for key in ("custom_id", "id") if key in row]
    values += [(response[key], key) for key in ("request_id",) if key in response]
    pieces: list[bytes | Raw] = []
    places: dict[str, int] = {}
    at = 0
    for (start, end), name in sorted(values):
        pieces += [line[at:start], b""]
        places.setdefault(name, len(pieces) - 1)
        at = end
    pieces.append(line[at:] + b"\n")
    head = line[: row["response"][0]].rstrip(b" \t")
    if (
        not head.endswith(_RESPONSE_KEY)
        or sum(map(len, pieces)) > _MAX_LITERAL_BYTES
        or max(places["custom_id"], places.get("id", 0)) > places["body"]
    ):
        return None
    ids = sum(row[key][1] - row[key][0] for key in ("custom_id", "id") if key in row)
    start = len(head) - len(_RESPONSE_KEY) - ids
    return Skeleton(pieces, places, tuple(body), start)


class Shelf:
    """The skeletons of a file's rows, as they turn up. Bounded."""

    def __init__(self) -> None:
        self._shelf: dict[tuple[str, ...], Skeleton] = {}
        self._latest: Skeleton | None = None
        self._tight: Skeleton | None = None
        self._misses = 0

    @property
    def is_empty(self) -> bool:
        return self._latest is None

    def cut(self, text: bytes) -> tuple[Skeleton | None, Rows]:
        """The values of each row of the text, and the skeleton they are meant for, if it is one alone. Of
        none, if not all of them can be read."""
        tight = self._tight
        if self._latest is None:
            return None, []  # nothing yet that they could be held against
        try:
            if not text.isascii():
                # The decoder does not look inside strings that it was not asked for.
                text.decode()
            if tight is not None:
                return tight, tight.decode_lines(text)
            rows = _decode_lines(text)
        except UNREADABLE:
            return None, []
        if self._misses < _MAX_MISSES:
            self._tight = tight = _tight(self._latest, rows)
            if tight is not None:
                return tight, tight.decode_lines(text)
        return None, rows

    def run(
        self,
        skeleton: Skeleton | None,
        rows: Iterator[Any],
        text: bytes,
        at: int,
        offset: int,
        add: Add,
    ) -> int:
        """As `Skeleton.run`, by the skeleton the values are meant for, or else by the last that fitted."""
        skeleton = skeleton or self._latest
        if skeleton is None:
            return at
        return skeleton.run(rows, text, at, offset, add)

    def read(self, line: bytes) -> Plain | None:
        """What the plain success `line` says, by a skeleton that is known, or else by its own from now on."""
        text = line + b"\n"
        try:
            text.decode()
            rows = _decode_lines(text)
        except UNREADABLE:
            return None
        response = rows[0].response if rows else None
        if response is None or not 200 <= response.status_code < 300:
            return None
        keys = tuple(response.body)
        found: list[Found] = []
        known = self._shelf.get(keys)
        if known is not None:
            known.run(rows, text, 0, 0, found.append)
        if not found:
            try:
                known = skeleton_of(line)
            except UNREADABLE:
                return None
            if known is None:
                return None
            known.run(rows, text, 0, 0, found.append)
            if len(self._shelf) >= _MAX_SKELETONS:
                self._shelf.clear()
            self._shelf[keys] = known
        if not found or known is None:
            return None
        self._latest = known
        if self._tight is not None:
            self._loosen(self._tight, known, response.body)
        _, _, custom_id, start, usage, _ = found[0]
        return custom_id, start, usage

    def _loosen(self, tight: Skeleton, known: Skeleton, body: dict[str, Raw]) -> None:
        """A row was not of the tight skeleton, but of the `known` one: take back what varies after all."""
        self._misses += 1
        held = {key: value for key, value in tight.constants.items() if bytes(body.get(key, b"")) == value}
        if self._misses >= _MAX_MISSES or not held:
            self._tight = None
        elif tight.constants.keys() <= body.keys() and len(held) < len(tight.constants):
            self._tight = known.tightened(held)


def _tight(skeleton: Skeleton, rows: list[Values]) -> Skeleton | None:
    """The skeleton with what is the same in all of these rows that have its keys; None where that is nothing,
    or where there are too few to tell."""
    if any(map(_NO_FIELD_NAME.search, skeleton.keys)):
        return None
    least, most = _TELLING_ROWS
    bodies = [row.response.body for row in rows[:most] if row.response is not None]
    bodies = [body for body in bodies if tuple(body) == skeleton.keys]
    if len(bodies) < least:
        return None
    first = bodies[0]
    same = {
        key: bytes(value)
        for key, value in first.items()
        if key != "usage" and all(body[key] == value for body in bodies)
    }
    return skeleton.tightened(same) if 0 < len(same) < len(first) else None


def _lines(text: bytes, offset: int) -> tuple[array[int], array[int]]:
    """Where the lines of a text begin that lies at `offset` and ends with a newline, and their lengths."""
    offsets, lengths = array("Q"), array("I")
    add_offset, add_length, find, at = offsets.append, lengths.append, text.find, 0
    while (newline := find(b"\n", at)) >= 0:
        add_offset(offset + at)
        add_length(newline - at)
        at = newline + 1
    return offsets, lengths
