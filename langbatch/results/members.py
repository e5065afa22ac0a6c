"""The members of a JSON object: which of its bytes are whose. Exact, and no value is looked into."""

from __future__ import annotations

import re
from typing import Final

import msgspec

# Possessive, so that a string of megabytes costs no backtracking points.
SPACE: Final = rb"[ \t\r\n]*+"
STRING: Final = rb'"(?:[^"\\]++|\\.)*+"'
_KEY = re.compile(SPACE + rb",?" + SPACE + STRING + SPACE + rb":" + SPACE)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}|\\.", re.DOTALL)

_decode: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class NotARow(Exception):
    """Valid JSON, but a key came twice or a part has the wrong type."""


#: What reading bytes of unknown worth raises.
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, NotARow)


#: By the keys of an object that was read: the bytes around its values, at even places. Programs repeat
#: themselves.
_spellings: dict[tuple[str, ...], list[bytes]] = {}
_MAX_SPELLINGS: Final = 256
_MAX_SPELLING_BYTES: Final = 4096


def members(data: bytes) -> dict[str, bytes]:
    """The object's values by key, as they stand and in their order. Raises one of `UNREADABLE`."""
    try:
        decoded = _decode(data)
    except msgspec.DecodeError:
        return {key: data[start:end] for key, (start, end) in spans(data).items()}
    keys = tuple(decoded)
    spelling = _spellings.get(keys)
    if spelling is not None:
        values = list(map(bytes, decoded.values()))
        pieces = spelling[:]
        pieces[1::2] = values
        # An object that was spelled like this had every key once.
        if b"".join(pieces) == data:
            return dict(zip(keys, values, strict=True))
    found = spans(data)
    _learn_spelling(data, found)
    return {key: data[start:end] for key, (start, end) in found.items()}


def _learn_spelling(data: bytes, found: dict[str, tuple[int, int]]) -> None:
    pieces: list[bytes] = []
    at = 0
    for start, end in found.values():
        pieces += [data[at:start], b""]
        at = end
    pieces.append(data[at:])
    if sum(map(len, pieces)) <= _MAX_SPELLING_BYTES:
        if len(_spellings) >= _MAX_SPELLINGS:
            _spellings.clear()
        _spellings[tuple(found)] = pieces


def spans(data: bytes) -> dict[str, tuple[int, int]]:
    """Where the values of the object that `data` is lie in it, by key. Raises one of `UNREADABLE`.

    The decoder keeps one value of a key that comes twice. So the object is walked through: if each value that
    was kept stands where it must, and nothing is left over, there were no others.
    """
    shadow = data
    try:
        decoded = _decode(data)
    except msgspec.DecodeError:
        shadow = _SURROGATE.sub(_without_surrogate, data)
        if shadow == data:
            raise
        decoded = _decode(shadow)
    found: dict[str, tuple[int, int]] = {}
    at = shadow.index(b"{") + 1
    for key, value in decoded.items():
        named = _KEY.match(shadow, at)
        kept = bytes(value)
        if named is None or not shadow.startswith(kept, named.end()):
            raise NotARow
        start = named.end()
        at = start + len(kept)
        found[key] = (start, at)
    if shadow[at:].strip() != b"}":
        raise NotARow
    return found


def spans_within(data: bytes, within: tuple[int, int]) -> dict[str, tuple[int, int]]:
    """As `spans`, for an object that is a part of the data."""
    start, end = within
    return {key: (start + a, start + b) for key, (a, b) in spans(data[start:end]).items()}


def _without_surrogate(match: re.Match[bytes]) -> bytes:
    """Same length, so that what is found in the shadow lies at the same place in the row."""
    return rb"\ufffd" if len(match[0]) == 6 else match[0]
