"""One row of a provider's output or error file: what it says of its request.

Facts from the wire reference, section 5: a row is `{id?, custom_id, response, error}`. A request that
failed over HTTP has `error: null` and tells its story in `response.body.error`; one that never ran has
`response: null`. Success is `error` null and a status of 2xx, nothing else.

Two readers give the same answer. `quick_success` takes rows as services write them today, by comparison
(see `skeletons`); whatever it does not know for certain goes to `read_row`, which is exact and slower.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from langbatch.redaction import mask_secrets
from langbatch.results.members import SPACE, STRING, UNREADABLE, NotARow, members
from langbatch.results.skeletons import Plain, Shelf

if TYPE_CHECKING:
    from langbatch.records import Outcome

_EXPIRED_CODES: Final = frozenset({"batch_expired", "expired"})
#: The name of the cancelled code is unverified (wire reference, section 4), so a family is taken.
_CANCELLED_CODE: Final = re.compile(r"(?:^|_)cancell?ed$", re.IGNORECASE)
#: Of a row's own keys these are ours in the record; a provider's field of that name gives way.
_OUR_KEYS: Final = frozenset({"custom_id", "outcome", "line", "attempt", "response", "error", "request"})
#: A code goes into the database and onto terminals: printable ASCII, this many characters.
_CODE_CHARACTERS: Final = 100

_CUSTOM_ID = re.compile(rb'"custom_id"' + SPACE + rb":" + SPACE + rb"(" + STRING + rb")")
_INTEGER = re.compile(rb"-?[0-9]{1,9}")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


class GarbledRow(Exception):
    """The bytes are no row. `custom_ids` are those that can still be read out of them."""

    def __init__(self, custom_ids: tuple[str, ...] = ()) -> None:
        super().__init__("not a row of a batch's output")
        self.custom_ids = custom_ids


class Row(msgspec.Struct, frozen=True, gc=False):
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


# ---------------------------------------------------------------- the quick reader


def quick_success(line: bytes, shelf: Shelf | None = None) -> Plain | None:
    """What a plain successful row says, else None: by a skeleton of the shelf's, or by one that goes there.

    `line` has no white space around it.
    """
    return (shelf or Shelf()).read(line)


# ---------------------------------------------------------------- the exact reader

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
        spans = members(line)
    except UNREADABLE:
        raise GarbledRow(_readable_ids(line)) from None
    custom_id = _text(spans.get("custom_id"))
    if custom_id is None:
        raise GarbledRow
    try:
        return _classify(custom_id, spans)
    except UNREADABLE:
        raise GarbledRow((custom_id,)) from None


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
            raise NotARow
        parts = members(response)
        code = parts.get("status_code", b"")
        if _INTEGER.fullmatch(code) is None:
            raise NotARow
        status = int(code)
        raw_body = parts.get("body", b"")
        if raw_body[:1] == b"{":
            body = members(raw_body)
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
        said = members(source)
    else:
        said = {"message": source}

    raw_code = said.get("code", b"null")
    code = _text(raw_code) if raw_code[:1] == b'"' else raw_code.decode()
    if raw_code[:1] in (b"", b"n", b"{", b"[", b"t", b"f"):
        code = None
    # Masked before it is cut: half a key is no less a secret.
    cleaned = _UNPRINTABLE.sub("", (code or "")[: 10 * _CODE_CHARACTERS])
    printable = mask_secrets(cleaned)[:_CODE_CHARACTERS].strip()
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
