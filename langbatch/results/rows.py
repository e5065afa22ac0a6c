"""One row of a provider's output or error file: what it says of its request.

Facts from the wire reference, section 5: a row is `{id?, custom_id, response, error}`. A request that
failed over HTTP has `error: null` and tells its story in `response.body.error`; one that never ran has
`response: null`. Success is `error` null and a status of 2xx, nothing else.

Two readers give the same answer. `quick_success` takes rows as services write them today, at the speed
of one scan; whatever it does not know for certain goes to `read_row`, which is exact and slower.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import msgspec

from langbatch.records import Outcome, Usage

_EXPIRED_CODES: Final = frozenset({"batch_expired", "expired"})
#: The name of the cancelled code is unverified (wire reference, section 4), so a family is taken.
_CANCELLED_CODE: Final = re.compile(r"(?:^|_)cancell?ed$", re.IGNORECASE)
#: Of a row's own keys these are ours in the record; a provider's field of that name gives way.
_OUR_KEYS: Final = frozenset({"custom_id", "outcome", "line", "attempt", "response", "error", "request"})
#: A code goes into the database and onto terminals: printable ASCII, this many characters.
_CODE_CHARACTERS: Final = 100

# Possessive, so that a string of megabytes costs no backtracking points.
_SPACE = rb"[ \t\r\n]*+"
_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_KEY = re.compile(_SPACE + rb",?" + _SPACE + rb"(" + _STRING + rb")" + _SPACE + rb":" + _SPACE)
_CUSTOM_ID = re.compile(rb'"custom_id"' + _SPACE + rb":" + _SPACE + rb"(" + _STRING + rb")")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}|\\.", re.DOTALL)
_INTEGER = re.compile(rb"-?[0-9]{1,9}")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


class _NotARow(Exception):
    """Valid JSON, but a key came twice or a part has the wrong type."""


UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, _NotARow)


class GarbledRow(Exception):
    """The bytes are no row. `custom_ids` are those that can still be read out of them."""

    def __init__(self, custom_ids: tuple[str, ...] = ()) -> None:
        super().__init__("not a row of a batch's output")
        self.custom_ids = custom_ids


@dataclass(frozen=True, slots=True)
class Row:
    """A row that could be read. `response`, `error` and `extras` are JSON as it came, byte for byte.

    `error` is `null` exactly when `outcome` is `succeeded`; `code` is then empty.
    """

    custom_id: str
    outcome: Outcome
    code: str
    response: bytes | None
    error: bytes
    usage: bytes | None = None
    extras: tuple[tuple[bytes, bytes], ...] = ()


# ---------------------------------------------------------------- tokens


class _Details(msgspec.Struct, gc=False):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _UsageObject(msgspec.Struct, gc=False):
    """Both spellings: chat, completions and embeddings first, Responses after."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None


_usage_decoder: Final = msgspec.json.Decoder(_UsageObject)
_usages_decoder: Final = msgspec.json.Decoder(list[_UsageObject])
_USAGE_BATCH: Final = 64


def read_usage(raw: bytes | msgspec.Raw) -> Usage | None:
    """A response's `usage` object in langbatch's words; None where it says nothing or is unusual."""
    tokens = UsageSum()
    tokens.add(bytes(raw))
    usage = tokens.total()
    return None if usage == _NO_USAGE else usage


_NO_USAGE: Final = Usage()


class UsageSum:
    """Adds up tokens; a kind that no row reported stays None."""

    __slots__ = ("_seen", "_waiting")

    def __init__(self) -> None:
        self._seen: list[int | None] = [None, None, None, None]
        self._waiting: list[bytes] = []

    def add(self, raw: bytes) -> None:
        """Count a response's `usage` object; one that is not as documented counts nothing."""
        # Many at once decode in half the time.
        self._waiting.append(raw)
        if len(self._waiting) == _USAGE_BATCH:
            self._settle()

    def total(self) -> Usage:
        self._settle()
        return Usage(*self._seen)

    def _settle(self) -> None:
        waiting, self._waiting = self._waiting, []
        try:
            usages = _usages_decoder.decode(b"[%b]" % b",".join(waiting))
        except UNREADABLE:
            usages = []
            for raw in waiting:
                with suppress(*UNREADABLE):
                    usages.append(_usage_decoder.decode(raw))
        for place, counts in enumerate(_columns(usages)):
            try:
                self._seen[place] = sum(counts, self._seen[place] or 0)  # type: ignore[arg-type]
            except TypeError:  # some rows do not report it
                reported = [count for count in counts if count is not None]
                if reported:
                    self._seen[place] = sum(reported, self._seen[place] or 0)


def _columns(usages: list[_UsageObject]) -> tuple[list[int | None], ...]:
    if not usages:
        return ()
    given = [usage.prompt_tokens_details or usage.input_tokens_details for usage in usages]
    taken = [usage.completion_tokens_details or usage.output_tokens_details for usage in usages]
    return (
        [u.prompt_tokens if u.input_tokens is None else u.input_tokens for u in usages],
        [u.completion_tokens if u.output_tokens is None else u.output_tokens for u in usages],
        [None if details is None else details.cached_tokens for details in given],
        [None if details is None else details.reasoning_tokens for details in taken],
    )


# ---------------------------------------------------------------- the quick reader


#: Default of a part that may be absent. (`Raw | None` would make msgspec take `null` alone.)
_ABSENT: Final = msgspec.Raw(b"")


class _QuickResponse(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    status_code: int
    body: dict[str, msgspec.Raw]
    request_id: msgspec.Raw = _ABSENT


class _QuickRow(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    custom_id: str
    response: _QuickResponse
    error: None
    id: msgspec.Raw = _ABSENT


_decode_quick: Final = msgspec.json.Decoder(_QuickRow).decode

# What the punctuation and the keys of a row take, its body's braces included, and how many of its `,` and
# `:` may have a space behind them. A body of n keys adds n pairs of quotes and n `:`, n - 1 `,`.
_PLAIN_BYTES: Final = len('{"custom_id":"","response":{"status_code":200,"body":{}},"error":null}')
_PLAIN_GAPS: Final = len(":::,,") + len("::,")


def quick_success(line: bytes) -> tuple[str, int, bytes | None] | None:
    """(custom_id, offset of the key `response`, the usage object) of a plain successful row, else None.

    A JSON decoder drops repeated keys silently. Here the lengths of all that it saw must add up to the
    length of the line, so a key that came twice in the row, its response or its body cannot hide.
    `line` has no white space around it.
    """
    try:
        row = _decode_quick(line)
        if not line.isascii():
            # The decoder does not look inside strings that it was not asked for.
            line.decode()
    except UNREADABLE:
        return None
    custom_id, response, id_ = row.custom_id, row.response, row.id
    body, request_id = response.body, response.request_id
    if not (200 <= response.status_code < 300 and body):
        return None

    # A quote inside a string is written \", so `"response":` can only be a key; the one before which
    # a single brace has been opened is the row's own.
    at = line.find(b'"response":')
    if at < 0 or line.find(b"{", 1, at) >= 0:
        return None
    body_at = line.find(b'"body":', at) + 8
    count = len(body)
    # `Raw` has no length of its own, and joining is the cheapest way to ask many at once.
    expected = len(custom_id) + len("".join(body)) + len(b"".join((*body.values(), request_id, id_)))
    expected += _PLAIN_BYTES + 4 * count - 1
    outer = _PLAIN_GAPS
    if id_ is not _ABSENT:
        expected += len('"id":,')
        outer += 2
    if request_id is not _ABSENT:
        expected += len('"request_id":,')
        outer += 2
    if line[at + 11] == 0x20:
        expected += outer
    if line[line.find(b'":', body_at) + 2] == 0x20:
        expected += 2 * count - 1
    if expected != len(line):
        return None
    usage = body.get("usage")
    # Copied, since a `Raw` keeps its whole row in memory.
    return custom_id, at, None if usage is None else bytes(usage)


def _object_length(members: dict[str, msgspec.Raw], gap: int) -> int:
    """Bytes of a JSON object that writes each member once, with plain ASCII keys.

    `gap` is the width of `:` and `,`: 2 with a space after them, as Python's `json` writes, else 1.
    """
    count = len(members)
    punctuation = 2 + count * (2 + gap) + (count - 1) * gap
    # `Raw` has no length of its own, and joining is the cheapest way to ask many at once.
    return punctuation + len("".join(members)) + len(b"".join(members.values()))


# ---------------------------------------------------------------- the exact reader

_members_decoder: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_string_decoder: Final = msgspec.json.Decoder(str)


def read_row(line: bytes) -> Row:
    """What the row says; raises `GarbledRow` for anything a strict reader would not take.

    That includes invalid UTF-8, NaN, and a key that comes twice in the row, its response, its body or
    its error. A lone surrogate escape inside an answer is let through: Python's own reader takes it, and
    the row was paid for.
    """
    try:
        line.decode()
    except UnicodeDecodeError:
        raise GarbledRow(_readable_ids(line)) from None
    try:
        spans = members_of(line)
    except UNREADABLE:
        raise GarbledRow(_readable_ids(line)) from None
    custom_id = _text(spans.get("custom_id"))
    if custom_id is None:
        raise GarbledRow
    try:
        return _classify(custom_id, spans)
    except UNREADABLE:
        raise GarbledRow((custom_id,)) from None


def _without_surrogate(match: re.Match[bytes]) -> bytes:
    """Same length, so that what is found in the shadow lies at the same place in the row."""
    return rb"\ufffd" if len(match[0]) == 6 else match[0]


def members_of(data: bytes) -> dict[str, bytes]:
    """The members of the JSON object `data`, values as they stand: also where msgspec would stumble over a
    lone surrogate escape within. Raises one of `UNREADABLE`."""
    shadow = data
    try:
        decoded = _members_decoder.decode(data)
    except msgspec.DecodeError:
        shadow = _SURROGATE.sub(_without_surrogate, data)
        if shadow == data:
            raise
        decoded = _members_decoder.decode(shadow)
    if shadow is data and decoded:
        gap = 2 if data[data.find(b'":') + 2] == 0x20 else 1
        if len(data) == _object_length(decoded, gap):
            return {key: bytes(value) for key, value in decoded.items()}
    spans: dict[str, bytes] = {}
    at = shadow.index(b"{") + 1
    for key, value in decoded.items():
        named = _KEY.match(shadow, at)
        if named is None:
            raise _NotARow
        at = named.end() + len(memoryview(value))
        spans[key] = data[named.end() : at]
    # The decoder kept one value per key: anything left over belongs to a key that came twice.
    if shadow[at:].strip() != b"}":
        raise _NotARow
    return spans


def _text(raw: bytes | None) -> str | None:
    """The string that the JSON token holds; None for any other token."""
    if raw is None or raw[:1] != b'"':
        return None
    try:
        return _string_decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _classify(custom_id: str, spans: dict[str, bytes]) -> Row:
    response = _given(spans.get("response"))
    error = _given(spans.get("error"))
    status: int | None = None
    body: dict[str, bytes] = {}
    if response is not None:
        if response[:1] != b"{":
            raise _NotARow
        parts = members_of(response)
        code = parts.get("status_code", b"")
        if _INTEGER.fullmatch(code) is None:
            raise _NotARow
        status = int(code)
        raw_body = parts.get("body", b"")
        if raw_body[:1] == b"{":
            body = members_of(raw_body)
    extras = tuple((msgspec.json.encode(key), raw) for key, raw in spans.items() if key not in _OUR_KEYS)
    if error is None and status is not None and 200 <= status < 300:
        return Row(custom_id, "succeeded", "", response, b"null", body.get("usage"), extras)

    code_text, token = _failure(status, error, body)
    outcome: Outcome = "errored"
    if response is None and code_text.lower() in _EXPIRED_CODES:
        outcome = "expired"
    elif response is None and _CANCELLED_CODE.search(code_text):
        outcome = "cancelled"
    return Row(custom_id, outcome, code_text, response, token, None, extras)


def _given(raw: bytes | None) -> bytes | None:
    return None if raw is None or raw == b"null" else raw


def _failure(status: int | None, error: bytes | None, body: dict[str, bytes]) -> tuple[str, bytes]:
    """(code, the JSON error object) of a row without success."""
    source = error if error is not None else _given(body.get("error"))
    if source is None:
        # Entra's 401 comes without an `error` wrapper (wire reference, section 6).
        said: dict[str, bytes] = body
    elif source[:1] == b"{":
        said = members_of(source)
    else:
        said = {"message": source}

    raw_code = said.get("code", b"null")
    code = _text(raw_code) if raw_code[:1] == b'"' else raw_code.decode()
    if raw_code[:1] in (b"", b"n", b"{", b"[", b"t", b"f"):
        code = None
    printable = _UNPRINTABLE.sub("", code or "")[:_CODE_CHARACTERS].strip()
    message = said.get("message", b"")
    if error is not None and source is error and raw_code[:1] == b'"' == message[:1] and printable:
        return printable, error
    if not printable:
        printable = code = f"http_{status or 0}"
    if message[:1] != b'"':
        message = msgspec.json.encode(_plain_message(status))
    return printable, b'{"code": %b, "message": %b}' % (msgspec.json.encode(code), message)


def _plain_message(status: int | None) -> str:
    if status is None:
        return "the service's row holds neither a response nor a readable error"
    return f"the service answered with HTTP status {status} and no message"


def _readable_ids(line: bytes) -> tuple[str, ...]:
    """Custom ids that stand complete in broken bytes. Two rows run together have two."""
    found = (_text(match[1]) for match in _CUSTOM_ID.finditer(line))
    return tuple(dict.fromkeys(custom_id for custom_id in found if custom_id is not None))


def ids_in_garbage(head: bytes) -> tuple[str, ...]:
    """As `GarbledRow.custom_ids`, for a row too long to be read as a whole."""
    return _readable_ids(head)
