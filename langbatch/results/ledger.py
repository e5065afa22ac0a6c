"""The first pass of a join: who wins. `join` says by which rules.

Per request only this is remembered: how much is known, from which source, and where its row lies.
"""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Literal, cast

import msgspec

from langbatch.records import Outcome
from langbatch.results.facts import OVERSIZED, Fact, one_by_one
from langbatch.results.rows import GarbledRow, Row, read_row
from langbatch.results.skeletons import PlainRows
from langbatch.results.stretches import piece_changed
from langbatch.results.usage import UsageSum

#: Rows without success that are remembered as they were read, so that they are not read twice. More of
#: them, or longer ones, are read again: memory stays flat.
_REMEMBERED_ROWS: Final = 8192
_REMEMBERED_BYTES: Final = 4 << 20
_COPY_BYTES: Final = 1 << 20

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


# How much is known of a request, least first; within one attempt the greater wins.
NOTHING, SILENT, RULED, GARBLED, FAILED, SUCCEEDED = range(6)

#: Verdicts that say nothing of the request itself.
_SILENT_OUTCOMES: Final = frozenset({"missing", "cancelled"})


@dataclass(frozen=True, slots=True)
class _Source:
    """Where knowledge of a request comes from: a piece, or an attempt's verdict. The first of all sources is
    none."""

    attempt: int
    path: Path | None
    descriptor: int
    part: str
    ruling: Row


class Ledger:
    """Per request: how much is known, from which source, and where its row lies. 25 bytes each."""

    def __init__(self, ids: Sequence[str], first_ordinal: int, quarantine: BinaryIO) -> None:
        count = len(ids)
        self.ids = ids
        self.first = first_ordinal
        self.sources = [_Source(0, None, -1, "", unsent(""))]
        self.notes: Counter[Note] = Counter()
        self.usage = UsageSum()
        self.quarantined = 0
        self._quarantine = quarantine
        self._place_of = dict(zip(ids, range(count), strict=True))
        if len(self._place_of) != count:
            raise ValueError("custom ids of a shard must differ")
        self.known = bytearray(count)
        self.source = array("I", bytes(4 * count))
        self.offset = array("Q", bytes(8 * count))
        self.length = array("I", bytes(4 * count))
        #: Where our own keys go into a row that is otherwise copied; 0: the record is built anew, as it is
        #: for every request without success.
        self.splice = array("I", bytes(4 * count))
        self._failures: dict[int, Row] = {}
        self._failure_bytes = 0
        self._first_source = 0
        self._sent: Container[int] | None = None
        self._verdict = unsent("")

    def open_attempt(self, attempt: AttemptPieces) -> None:
        """What is taken from here on comes from this attempt, until the next is opened."""
        self._first_source = len(self.sources)
        self._sent = attempt.sent
        verdict = attempt.verdict
        self._verdict = Row("", verdict.outcome, verdict.code, None, _error_token(verdict))

    def take_piece(self, piece: Piece, file: BinaryIO, found: Iterable[Sequence[Fact] | PlainRows]) -> None:
        """Take what was `found` in the piece, all of it. `file` is the piece; it stays open."""
        number = len(self.sources)
        self.sources.append(_Source(piece.attempt, piece.path, file.fileno(), piece.part, self._verdict))
        for some in found:
            if not isinstance(some, PlainRows):
                self._take_rows(number, some)
            elif not self._take_unopposed(number, some):
                self._take_rows(number, one_by_one(file, some))

    def _take_unopposed(self, number: int, rows: PlainRows) -> bool:
        """Take plain rows of as many requests, if nothing stands against any of them; whether that is so."""
        places = list(map(self._place_of.get, rows.custom_ids))
        if None in places:
            return False
        requests = cast("list[int]", places)
        if self._sent is not None and not all(self.first + request in self._sent for request in requests):
            return False
        if not self._claim(number, requests, rows):
            if len(set(requests)) < len(requests) or not all(map(self._gives_way, requests)):
                return False
            for request in requests:
                self.known[request] = NOTHING
            self._claim(number, requests, rows)
        self.usage.add_sum(rows.usage)
        return True

    def _claim(self, number: int, requests: list[int], rows: PlainRows) -> bool:
        """Take the rows for those of these requests, if nothing is known of any of them yet."""
        # Looked up once: this loop runs for every row of most files.
        known, source, offsets, lengths, splices = (
            self.known,
            self.source,
            self.offset,
            self.length,
            self.splice,
        )
        lie = zip(requests, rows.offsets, rows.lengths, rows.splices, strict=True)
        for claimed, (request, offset, length, splice) in enumerate(lie):
            if known[request]:
                for earlier in requests[:claimed]:
                    known[earlier] = NOTHING
                return False
            known[request] = SUCCEEDED
            source[request] = number
            offsets[request] = offset
            lengths[request] = length
            splices[request] = splice
        return True

    def _take_rows(self, number: int, found: Iterable[Fact]) -> None:
        descriptor, part = self.sources[number].descriptor, self.sources[number].part
        sent, first = self._sent, self.first
        # Looked up once: this loop runs for every row of some files.
        place_of, add_usage = self._place_of.get, self.usage.add
        known, source, offsets = self.known, self.source, self.offset
        lengths, splices, failures = self.length, self.splice, self._failures
        for offset, length, whose, splice, usage, row in found:
            if isinstance(whose, tuple):
                self.notes["oversized" if splice == OVERSIZED else "malformed"] += 1
                self._set_aside(descriptor, offset, length)
                self._take_garbled(number, whose)
                continue
            knows = SUCCEEDED if row is None or row.outcome == "succeeded" else FAILED
            request = place_of(whose)
            if request is None or (sent is not None and first + request not in sent):
                self.notes["unknown_id"] += 1
                self._set_aside(descriptor, offset, length)
                continue
            if known[request] and not self._displaces(request, knows, descriptor, offset, length, part):
                continue
            known[request] = knows
            source[request] = number
            offsets[request] = offset
            lengths[request] = length
            splices[request] = splice
            if usage is not None:
                add_usage(usage)
            if knows == FAILED or failures:
                self._remember(request, row, length)

    def take_verdict(self, attempt: AttemptPieces) -> None:
        """Rule on the requests of an attempt that no row of it named."""
        number = len(self.sources)
        self.sources.append(_Source(attempt.attempt, None, -1, "", self._verdict))
        says_nothing = self._verdict.outcome in _SILENT_OUTCOMES
        for request, known in enumerate(self.known):
            if known == SUCCEEDED or self._is_from_here(request):
                continue
            if self._sent is not None and self.first + request not in self._sent:
                continue
            if says_nothing and known > SILENT:
                continue
            self.known[request] = SILENT if says_nothing else RULED
            self.source[request] = number

    def stored_row(self, request: int) -> bytes:
        """The winning row's bytes."""
        return _read_exactly(self.source_of(request).descriptor, self.offset[request], self.length[request])

    def source_of(self, request: int) -> _Source:
        """Where that comes from which is known."""
        return self.sources[self.source[request]]

    def winning_row(self, request: int) -> Row:
        """What the winning row says. `BatchResultsError` where it no longer says anything."""
        try:
            return self._failures.pop(request, None) or read_row(self.stored_row(request))
        except GarbledRow:
            raise piece_changed() from None

    def _remember(self, request: int, row: Row | None, size: int) -> None:
        """Keep a winning row without success, or forget what it displaces."""
        self._failures.pop(request, None)
        if row is None or row.outcome == "succeeded":
            return
        self._failure_bytes += size
        if len(self._failures) < _REMEMBERED_ROWS and self._failure_bytes <= _REMEMBERED_BYTES:
            self._failures[request] = row

    def _is_from_here(self, request: int) -> bool:
        """Whether what is known comes from the attempt being taken. Its rows lose only to one another,
        or to a success, so this tells whether it has named the request at all."""
        return self.known[request] > NOTHING and self.source[request] >= self._first_source

    def _gives_way(self, request: int) -> bool:
        """Whether what is known gives way to any row that can be read, and is nothing to set aside."""
        known = self.known[request]
        return known <= GARBLED or (known == FAILED and not self._is_from_here(request))

    def _displaces(
        self, request: int, knows: int, descriptor: int, offset: int, length: int, part: str
    ) -> bool:
        """Whether a new readable row takes the place of what is known; sets aside what loses."""
        if self._gives_way(request):
            return True
        old = self.known[request]
        here = self._is_from_here(request)
        if length == self.length[request] and _read_exactly(descriptor, offset, length) == self.stored_row(
            request
        ):
            self.notes["duplicate_identical"] += 1
            return False
        stored = self.source_of(request)
        self.notes["both_files" if here and stored.part != part else "duplicate_conflicting"] += 1
        if knows > old:
            self._set_aside(stored.descriptor, self.offset[request], self.length[request])
            return True
        self._set_aside(descriptor, offset, length)
        return False

    def _take_garbled(self, number: int, custom_ids: tuple[str, ...]) -> None:
        for custom_id in custom_ids:
            request = self._place_of.get(custom_id)
            if request is None or (self._sent is not None and self.first + request not in self._sent):
                continue
            known = self.known[request]
            if known == SUCCEEDED or self._is_from_here(request):
                continue
            self.known[request] = GARBLED
            self.source[request] = number

    def _set_aside(self, descriptor: int, offset: int, length: int) -> None:
        while length > 0:
            part = _read_exactly(descriptor, offset, min(length, _COPY_BYTES))
            self._quarantine.write(part)
            offset += len(part)
            length -= len(part)
        self._quarantine.write(b"\n")
        self.quarantined += 1


def _read_exactly(descriptor: int, offset: int, length: int) -> bytes:
    """Bytes of a piece; `BatchResultsError` where they are no longer there."""
    data = os.pread(descriptor, length, offset)
    if len(data) != length:
        raise piece_changed()
    return data


_UNSENT_ERROR: Final = b'{"code": "missing", "message": "no attempt has sent this request"}'


def unsent(custom_id: str) -> Row:
    return Row(custom_id, "missing", "missing", None, _UNSENT_ERROR)


def _error_token(verdict: Verdict) -> bytes:
    return b'{"code": %b, "message": %b}' % (
        msgspec.json.encode(verdict.code.encode("utf-8", "replace").decode()),
        # A service's words may hold half a surrogate pair, which has no UTF-8.
        msgspec.json.encode(verdict.message.encode("utf-8", "replace").decode()),
    )
