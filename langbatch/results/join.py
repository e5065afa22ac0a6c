"""Output and error rows of a shard's attempts → one record a request, in input order.

Which row wins, when a request has several:

- a success is never overwritten; of two different ones the first is kept;
- a success beats every failure;
- among failures the later attempt that says something wins. A row says something, even a garbled one that
  still shows its `custom_id`, and so does a verdict on a whole batch. `missing` and `cancelled` (never sent)
  say nothing about a request and only fill in where nothing else is known;
- within one attempt a row that can be read beats a garbled one, and of two the first is kept.

What does not win and is not a plain repetition goes to quarantine as it came, except rows that a later
attempt made obsolete: those are still in their pieces.

Two passes keep memory flat: the first reads every piece in blocks and remembers per request only where the
winning row lies; the second walks the requests in order and copies those rows.
"""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final, Literal

import msgspec

from langbatch.errors import BatchResultsError
from langbatch.records import Outcome, Tally, Unsuccessful, Usage
from langbatch.results.pieces import MAX_ROW_BYTES, piece_rows
from langbatch.results.rows import GarbledRow, Row, UsageSum, ids_in_garbage, quick_success, read_row

#: Records are written together, by count or, where they are long, by size.
_FLUSH_ROWS: Final = 512
_FLUSH_BYTES: Final = 1 << 20

Note = Literal[
    "unknown_id", "duplicate_identical", "duplicate_conflicting", "malformed", "oversized", "both_files"
]


@dataclass(frozen=True, slots=True)
class Piece:
    """A downloaded file."""

    attempt: int
    path: Path
    part: Literal["output", "error"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What requests of an attempt end with that the service gave no row."""

    attempt: int
    outcome: Outcome
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class AttemptPieces:
    """All there is from one attempt. `sent` holds the job's ordinals that it sent; None: all of the shard."""

    attempt: int
    pieces: tuple[Piece, ...]
    verdict: Verdict
    sent: Container[int] | None = None


@dataclass(frozen=True, slots=True)
class JoinReport:
    """What the records add up to.

    `quarantined` counts rows set aside, `notes` odd rows by reason, `silent` requests that no row of any
    attempt named, whatever they end with.
    """

    tally: Tally
    usage: Usage
    unsuccessful: list[Unsuccessful]
    quarantined: int
    notes: Mapping[Note, int]
    silent: int


def join_shard(
    ids: Sequence[str],
    line_numbers: Sequence[int],
    first_ordinal: int,
    attempts: Sequence[AttemptPieces],
    out: BinaryIO,
    quarantine: BinaryIO,
    on_progress: Callable[[int, int | None], None] | None = None,
    *,
    max_row_bytes: int = MAX_ROW_BYTES,
) -> JoinReport:
    """Write exactly one record for each of `ids`, in order, to `out`.

    `ids` are the shard's custom ids, all different; `line_numbers` their lines in the user's file.
    `on_progress(done, total)` counts records written.
    """
    if len(line_numbers) != len(ids):
        raise ValueError("every request has one id and one line number")
    with ExitStack() as stack:
        ledger = _Ledger(ids, first_ordinal, quarantine)
        for attempt in sorted(attempts, key=lambda item: item.attempt):
            ledger.open_attempt(attempt)
            for piece in attempt.pieces:
                file = stack.enter_context(open(piece.path, "rb", buffering=0))
                ledger.take_piece(piece, file, max_row_bytes)
            ledger.take_verdict(attempt)
        tally, unsuccessful = _write_records(ledger, line_numbers, out, on_progress)
    return JoinReport(
        tally,
        ledger.usage.total(),
        unsuccessful,
        ledger.quarantined,
        dict(ledger.notes),
        sum(ledger.known.count(known) for known in (_NOTHING, _SILENT, _RULED)),
    )


# ---------------------------------------------------------------- first pass: who wins

# How much is known of a request, least first; within one attempt the greater wins.
_NOTHING, _SILENT, _RULED, _GARBLED, _FAILED, _SUCCEEDED = range(6)

#: Verdicts that say nothing of the request itself.
_SILENT_OUTCOMES: Final = frozenset({"missing", "cancelled"})


@dataclass(frozen=True, slots=True)
class _Source:
    """Where knowledge of a request comes from: a piece, or an attempt's verdict."""

    attempt: int
    descriptor: int
    part: str
    ruling: Row


class _Ledger:
    """Per request: how much is known, from which source, and where its row lies. 25 bytes each."""

    def __init__(self, ids: Sequence[str], first_ordinal: int, quarantine: BinaryIO) -> None:
        count = len(ids)
        self.ids = ids
        self.first = first_ordinal
        self.sources: list[_Source] = []
        self.notes: Counter[Note] = Counter()
        self.usage = UsageSum()
        self.quarantined = 0
        self._quarantine = quarantine
        self._place_of = {custom_id: place for place, custom_id in enumerate(ids)}
        if len(self._place_of) != count:
            raise ValueError("custom ids of a shard must differ")
        self.known = bytearray(count)
        self.source = array("I", bytes(4 * count))
        self.offset = array("Q", bytes(8 * count))
        self.length = array("I", bytes(4 * count))
        #: Where our own keys go into a row that is otherwise copied; 0: the record is built anew.
        self.splice = array("I", bytes(4 * count))
        self._first_source = 0
        self._sent: Container[int] | None = None
        self._verdict = _unsent("")

    def open_attempt(self, attempt: AttemptPieces) -> None:
        """What is taken from here on comes from this attempt, until the next is opened."""
        self._first_source = len(self.sources)
        self._sent = attempt.sent
        verdict = attempt.verdict
        self._verdict = Row("", verdict.outcome, verdict.code, None, _error_token(verdict))

    def take_piece(self, piece: Piece, file: BinaryIO, max_row_bytes: int) -> None:
        number = len(self.sources)
        self.sources.append(_Source(piece.attempt, file.fileno(), piece.part, self._verdict))
        sent, first = self._sent, self.first
        # Looked up once: this loop runs for every row that there is.
        place_of, add_usage = self._place_of.get, self.usage.add
        known, source, offsets = self.known, self.source, self.offset
        lengths, splices = self.length, self.splice
        usage: bytes | msgspec.Raw | None
        for offset, line, whole in piece_rows(file, self._quarantine, max_row_bytes):
            if not whole:
                self.quarantined += 1
                self.notes["oversized"] += 1
                self._take_garbled(number, ids_in_garbage(line))
                continue
            quick = quick_success(line)
            if quick is not None:
                custom_id, splice, usage = quick
                knows = _SUCCEEDED
            else:
                try:
                    row = read_row(line)
                except GarbledRow as garbled:
                    self.notes["malformed"] += 1
                    self._set_aside(line)
                    self._take_garbled(number, garbled.custom_ids)
                    continue
                custom_id, splice, usage = row.custom_id, 0, row.usage
                knows = _SUCCEEDED if row.outcome == "succeeded" else _FAILED
            request = place_of(custom_id)
            if request is None or (sent is not None and first + request not in sent):
                self.notes["unknown_id"] += 1
                self._set_aside(line)
                continue
            if known[request] and not self._displaces(request, knows, line, piece.part):
                continue
            known[request] = knows
            source[request] = number
            offsets[request] = offset
            lengths[request] = len(line)
            splices[request] = splice
            if usage is not None:
                add_usage(usage)

    def take_verdict(self, attempt: AttemptPieces) -> None:
        """Rule on the requests of an attempt that no row of it named."""
        number = len(self.sources)
        self.sources.append(_Source(attempt.attempt, -1, "", self._verdict))
        says_nothing = self._verdict.outcome in _SILENT_OUTCOMES
        for request, known in enumerate(self.known):
            if known == _SUCCEEDED or self._is_from_here(request):
                continue
            if self._sent is not None and self.first + request not in self._sent:
                continue
            if says_nothing and known > _SILENT:
                continue
            self.known[request] = _SILENT if says_nothing else _RULED
            self.source[request] = number

    def stored_row(self, request: int) -> bytes:
        """The winning row's bytes."""
        length = self.length[request]
        descriptor = self.sources[self.source[request]].descriptor
        row = os.pread(descriptor, length, self.offset[request])
        if len(row) != length:
            raise _piece_changed()
        return row

    def _is_from_here(self, request: int) -> bool:
        """Whether what is known comes from the attempt being taken. Its rows lose only to one another,
        or to a success, so this tells whether it has named the request at all."""
        return self.known[request] > _NOTHING and self.source[request] >= self._first_source

    def _displaces(self, request: int, knows: int, line: bytes, part: str) -> bool:
        """Whether a new readable row takes the place of what is known; sets aside what loses."""
        old = self.known[request]
        here = self._is_from_here(request)
        if old <= _GARBLED or (old == _FAILED and not here):
            return True
        stored = self.stored_row(request)
        if stored == line:
            self.notes["duplicate_identical"] += 1
            return False
        across = here and self.sources[self.source[request]].part != part
        self.notes["both_files" if across else "duplicate_conflicting"] += 1
        if knows > old:
            self._set_aside(stored)
            return True
        self._set_aside(line)
        return False

    def _take_garbled(self, number: int, custom_ids: tuple[str, ...]) -> None:
        for custom_id in custom_ids:
            request = self._place_of.get(custom_id)
            if request is None or (self._sent is not None and self.first + request not in self._sent):
                continue
            known = self.known[request]
            if known == _SUCCEEDED or self._is_from_here(request):
                continue
            self.known[request] = _GARBLED
            self.source[request] = number

    def _set_aside(self, line: bytes) -> None:
        self._quarantine.write(line)
        self._quarantine.write(b"\n")
        self.quarantined += 1


def _piece_changed() -> BatchResultsError:
    return BatchResultsError("a downloaded file changed while it was read", code="piece_changed")


# ---------------------------------------------------------------- second pass: the records

_GARBLED_ERROR: Final = (
    b'{"code": "unreadable", "message": "the service\'s row for this request cannot be read;'
    b' its bytes are in quarantine"}'
)
_UNSENT_ERROR: Final = b'{"code": "missing", "message": "no attempt has sent this request"}'


def _unsent(custom_id: str) -> Row:
    return Row(custom_id, "missing", "missing", None, _UNSENT_ERROR)


def _write_records(
    ledger: _Ledger,
    line_numbers: Sequence[int],
    out: BinaryIO,
    on_progress: Callable[[int, int | None], None] | None,
) -> tuple[Tally, list[Unsuccessful]]:
    count = len(ledger.ids)
    outcomes: Counter[str] = Counter()
    unsuccessful: list[Unsuccessful] = []
    parts: list[bytes] = []
    waiting_bytes = waiting_rows = 0
    splices, sources, source = ledger.splice, ledger.sources, ledger.source
    offsets, lengths, pread = ledger.offset, ledger.length, os.pread
    for request, (known, line_number) in enumerate(zip(ledger.known, line_numbers, strict=True)):
        attempt = sources[source[request]].attempt if known else 0
        splice = splices[request]
        if known == _SUCCEEDED and splice:
            length = lengths[request]
            row = pread(sources[source[request]].descriptor, length, offsets[request])
            if len(row) != length:
                raise _piece_changed()
            ours = b'"outcome": "succeeded", "line": %d, "attempt": %d, ' % (line_number, attempt)
            parts += (row[:splice], ours, row[splice:], b"\n")
            waiting_bytes += length
        else:
            found = (
                read_row(ledger.stored_row(request))
                if known >= _FAILED
                else _row_without_reply(ledger, request)
            )
            record = _record(found, line_number, attempt)
            parts.append(record)
            waiting_bytes += len(record)
            if known != _SUCCEEDED:
                outcomes[found.outcome] += 1
                unsuccessful.append(
                    Unsuccessful(ledger.first + request, line_number, found.outcome, found.code, attempt)
                )
        waiting_rows += 1
        if waiting_rows == _FLUSH_ROWS or waiting_bytes > _FLUSH_BYTES:
            out.write(b"".join(parts))
            parts = []
            waiting_bytes = waiting_rows = 0
            if on_progress is not None:
                on_progress(request + 1, count)
    out.write(b"".join(parts))
    if on_progress is not None:
        on_progress(count, count)
    outcomes["succeeded"] = count - len(unsuccessful)
    return Tally(**outcomes), unsuccessful


def _row_without_reply(ledger: _Ledger, request: int) -> Row:
    custom_id = ledger.ids[request]
    known = ledger.known[request]
    if known == _GARBLED:
        return Row(custom_id, "unreadable", "unreadable", None, _GARBLED_ERROR)
    if known == _NOTHING:
        return _unsent(custom_id)
    return replace(ledger.sources[ledger.source[request]].ruling, custom_id=custom_id)


def _error_token(verdict: Verdict) -> bytes:
    return b'{"code": %b, "message": %b}' % (
        msgspec.json.encode(verdict.code.encode("utf-8", "replace").decode()),
        # A service's words may hold half a surrogate pair, which has no UTF-8.
        msgspec.json.encode(verdict.message.encode("utf-8", "replace").decode()),
    )


def _record(row: Row, line_number: int, attempt: int) -> bytes:
    """One line of the contract's section 5, the provider's other fields after its own."""
    return (
        b'{"custom_id": %b, "outcome": "%b", "line": %d, "attempt": %d, "response": %b, "error": %b%b}\n'
        % (
            msgspec.json.encode(row.custom_id),
            row.outcome.encode(),
            line_number,
            attempt,
            b"null" if row.response is None else row.response,
            row.error,
            b"".join(b", %b: %b" % extra for extra in row.extras),
        )
    )
