"""An exact reader of JSON bytes that remembers where things are.

The quick path (`frames`) trusts msgspec for grammar; this scanner is the judge wherever quickness is not
enough: it names the fault, finds repeated keys, and gives byte spans so that one value can be replaced
while every other byte stays. RFC 8259, plus what every batch service also refuses: numbers that overflow a
double, surrogates without a partner, and nesting deeper than `MAX_DEPTH`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

#: Levels of `{` and `[`, the line's own object included. Recursive parsers give up somewhere above.
MAX_DEPTH = 100

# Possessive quantifiers keep the regex engine from saving a backtracking point per character, which would
# cost gigabytes on a megabyte string.
_SPACE = re.compile(rb"[ \t\r\n]*+")
_STRING = re.compile(rb'"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+"')
_SCALAR = re.compile(rb"(-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+)|true|false|null")
_NOT_A_NUMBER = re.compile(rb"-?(?:NaN|Infinity|nan|inf)")
_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)")


class Flaw(Exception):
    """Why some bytes are not acceptable JSON. The message never quotes them."""

    def __init__(self, code: str, message: str, position: int) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.position = position


@dataclass(frozen=True, slots=True)
class Member:
    """One key of an object, and where its value lies: `text[value_start:value_end]`."""

    key: str
    key_start: int
    value_start: int
    value_end: int


@dataclass(frozen=True, slots=True)
class Scanned:
    """A line that is one JSON object: its members, and those of its `body` where that is an object."""

    members: tuple[Member, ...]
    body: tuple[Member, ...] | None

    def member(self, key: str) -> Member | None:
        return find(self.members, key)


def find(members: Iterable[Member], key: str) -> Member | None:
    """The last member of that name, as parsers that tolerate repeats would have it."""
    found = None
    for member in members:
        if member.key == key:
            found = member
    return found


def repeated(members: Iterable[Member]) -> list[str]:
    """Keys that occur more than once, each named once, in order of the repeats."""
    seen: set[str] = set()
    twice: dict[str, None] = {}
    for member in members:
        if member.key in seen:
            twice[member.key] = None
        seen.add(member.key)
    return list(twice)


def scan_line(text: bytes) -> Scanned:
    """Members of the one object that `text` is. Raises `Flaw`; `not_an_object` for other sound JSON."""
    start = _skip(text, 0)
    if text[start : start + 1] != b"{":
        _end(text, _value(text, start, 1))
        raise Flaw("not_an_object", "the line is JSON, but not an object", start)
    members, body, end = _object(text, start)
    _end(text, end)
    return Scanned(members, body)


def check_value(text: bytes, depth: int = 1) -> None:
    """Raise `Flaw` unless `text` is one sound JSON value lying `depth` levels down."""
    _end(text, _value(text, _skip(text, 0), depth))


def string_at(text: bytes, start: int, end: int) -> str:
    """The string that a sound JSON token says."""
    if text.find(b"\\", start, end) < 0:
        return text[start + 1 : end - 1].decode()
    said: str = json.loads(text[start:end])
    return said


def _skip(text: bytes, at: int) -> int:
    if at < len(text) and text[at] > 0x20:
        return at
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _end(text: bytes, at: int) -> None:
    at = _skip(text, at)
    if at != len(text):
        raise Flaw("invalid_json_line", "there is more text behind the JSON value", at)


def _object(text: bytes, at: int) -> tuple[tuple[Member, ...], tuple[Member, ...] | None, int]:
    """The line's object, and its `body`'s members: two levels by hand, anything deeper by `_value`."""
    body: tuple[Member, ...] | None = None
    members: list[Member] = []
    at = _skip(text, at + 1)
    if text[at : at + 1] == b"}":
        return (), None, at + 1
    while True:
        key_start = at
        key, at = _key(text, at)
        if key == "body" and text[at : at + 1] == b"{":
            body, end = _flat_object(text, at, 2)
        else:
            end = _value(text, at, 2)
            body = None if key == "body" else body
        members.append(Member(key, key_start, at, end))
        at, done = _separator(text, end)
        if done:
            return tuple(members), body, at


def _flat_object(text: bytes, at: int, depth: int) -> tuple[tuple[Member, ...], int]:
    members: list[Member] = []
    at = _skip(text, at + 1)
    if text[at : at + 1] == b"}":
        return (), at + 1
    while True:
        key_start = at
        key, at = _key(text, at)
        end = _value(text, at, depth + 1)
        members.append(Member(key, key_start, at, end))
        at, done = _separator(text, end)
        if done:
            return tuple(members), at


def _key(text: bytes, at: int) -> tuple[str, int]:
    """A member's name and where its value starts."""
    end = _string(text, at)
    name = string_at(text, at, end)
    at = _skip(text, end)
    if text[at : at + 1] != b":":
        raise Flaw("invalid_json_line", "a key has no colon behind it", at)
    return name, _skip(text, at + 1)


def _separator(text: bytes, at: int) -> tuple[int, bool]:
    at = _skip(text, at)
    mark = text[at : at + 1]
    if mark == b"}":
        return at + 1, True
    if mark != b",":
        raise _unexpected(text, at)
    return _skip(text, at + 1), False


def _string(text: bytes, at: int) -> int:
    match = _STRING.match(text, at)
    if match is None:
        raise _unexpected(text, at)
    end = match.end()
    if text.find(b"\\u", at, end) >= 0:
        _check_surrogates(text, at, end)
    return end


def _check_surrogates(text: bytes, start: int, end: int) -> None:
    high_ends_at = -1
    for escape in _ESCAPE.finditer(text, start, end):
        unit = int(escape[1], 16) if escape[1] else 0
        low = 0xDC00 <= unit <= 0xDFFF
        if low != (high_ends_at == escape.start()) or (high_ends_at >= 0 and not low):
            break
        high_ends_at = escape.end() if 0xD800 <= unit <= 0xDBFF else -1
    else:
        if high_ends_at < 0:
            return
    raise Flaw(
        "lone_surrogate", "a \\u escape is half of a surrogate pair; write the character itself", start
    )


def _scalar(text: bytes, at: int) -> int:
    match = _SCALAR.match(text, at)
    if match is None:
        raise _unexpected(text, at)
    number = match[1]
    # Integers of any size are passed through as bytes; only fractions and exponents become doubles.
    if number and (b"e" in number or b"E" in number or b"." in number) and abs(float(number)) == float("inf"):
        raise Flaw("invalid_number", "a number is too large for a double", at)
    return match.end()


def _value(text: bytes, at: int, depth: int) -> int:
    """Where the value that starts at `at` ends. A loop with its own stack: input cannot exhaust ours.

    `depth` is the level an array or object starting here would have.
    """
    closers: list[int] = []
    # The keys so far of each open object; None for an array.
    keys: list[set[str] | None] = []
    while True:
        mark = text[at] if at < len(text) else 0
        if mark == 0x7B or mark == 0x5B:
            if depth + len(closers) > MAX_DEPTH:
                raise Flaw("too_deep", f"arrays and objects are nested more than {MAX_DEPTH} levels deep", at)
            closers.append(mark + 2)
            known: set[str] | None = set() if mark == 0x7B else None
            keys.append(known)
            at = _skip(text, at + 1)
            if text[at : at + 1] == bytes((mark + 2,)):
                closers.pop()
                keys.pop()
                at += 1
            else:
                if known is not None:
                    at = _new_key(text, at, known)
                continue
        elif mark == 0x22:
            at = _string(text, at)
        else:
            at = _scalar(text, at)
        while closers:
            at = _skip(text, at)
            mark = text[at] if at < len(text) else 0
            if mark == closers[-1]:
                closers.pop()
                keys.pop()
                at += 1
                continue
            if mark != 0x2C:
                raise _unexpected(text, at)
            at = _skip(text, at + 1)
            if (known := keys[-1]) is not None:
                at = _new_key(text, at, known)
            break
        else:
            return at


def _new_key(text: bytes, at: int, known: set[str]) -> int:
    """Where the value of the key at `at` starts; `known` are the object's keys before it, and gain it."""
    key, value_start = _key(text, at)
    if key in known:
        # Parsers keep one and drop the other without a word, and not all the same one.
        raise Flaw("duplicate_key", f"a key stands twice in one object, again at byte {at + 1}; keep one", at)
    known.add(key)
    return value_start


def _unexpected(text: bytes, at: int) -> Flaw:
    if at >= len(text):
        return Flaw("invalid_json_line", "the line ends before its JSON does", at)
    if text[at : at + 3] == b"\xef\xbb\xbf":
        return Flaw("byte_order_mark", "a byte order mark stands in the middle of the file; remove it", at)
    if _NOT_A_NUMBER.match(text, at):
        return Flaw("invalid_number", "NaN and Infinity are not JSON; use null or a number", at)
    if text[at] == 0x22:
        return Flaw(
            "invalid_json_line",
            f"the string at byte {at + 1} of the line is not closed or holds a bad character or escape",
            at,
        )
    return Flaw("invalid_json_line", f"the line is not JSON at its byte {at + 1}", at)
