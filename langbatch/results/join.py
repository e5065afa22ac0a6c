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
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO, Final

import msgspec

from langbatch.records import Tally, Unsuccessful, Usage
from langbatch.results.facts import RANGE_BYTES, facts, facts_in_ranges
from langbatch.results.ledger import (
    FAILED,
    GARBLED,
    NOTHING,
    RULED,
    SILENT,
    SUCCEEDED,
    AttemptPieces,
    Ledger,
    Note,
    Piece,
    Verdict,
    piece_changed,
    unsent,
)
from langbatch.results.pieces import MAX_ROW_BYTES
from langbatch.results.rows import Row

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["AttemptPieces", "JoinReport", "Note", "Piece", "Verdict", "join_shard"]

#: Records are written together, so many bytes at once; a longer one alone.
_BUFFER_BYTES: Final = 1 << 18


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
    executor: Executor | None = None,
    range_bytes: int = RANGE_BYTES,
) -> JoinReport:
    """Write exactly one record for each of `ids`, in order, to `out`.

    `ids` are the shard's custom ids, all different; `line_numbers` their lines in the user's file.
    `on_progress(done, total)` counts records written. With an `executor`, pieces larger than `range_bytes`
    are read in ranges of about that size by its workers; the records are the same to the byte.
    """
    if len(line_numbers) != len(ids):
        raise ValueError("every request has one id and one line number")
    with ExitStack() as stack:
        ledger = Ledger(ids, first_ordinal, quarantine)
        for attempt in sorted(attempts, key=lambda item: item.attempt):
            ledger.open_attempt(attempt)
            for piece in attempt.pieces:
                file = stack.enter_context(open(piece.path, "rb", buffering=0))
                found = facts(file, max_row_bytes)
                if executor is not None and piece.path.stat().st_size > range_bytes:
                    found = facts_in_ranges(executor, file, piece.path, max_row_bytes, range_bytes)
                ledger.take_piece(piece, file, found)
            ledger.take_verdict(attempt)
        tally, unsuccessful = _write_records(ledger, line_numbers, out, on_progress)
    return JoinReport(
        tally,
        ledger.usage.total(),
        unsuccessful,
        ledger.quarantined,
        dict(ledger.notes),
        sum(ledger.known.count(known) for known in (NOTHING, SILENT, RULED)),
    )


# ---------------------------------------------------------------- second pass: the records

_GARBLED_ERROR: Final = (
    b'{"code": "unreadable", "message": "the service\'s row for this request cannot be read;'
    b' its bytes are in quarantine"}'
)


def _write_records(
    ledger: Ledger,
    line_numbers: Sequence[int],
    out: BinaryIO,
    on_progress: Callable[[int, int | None], None] | None,
) -> tuple[Tally, list[Unsuccessful]]:
    count = len(ledger.ids)
    outcomes: Counter[str] = Counter()
    unsuccessful: list[Unsuccessful] = []
    attempts = [source.attempt for source in ledger.sources]
    descriptors = [source.descriptor for source in ledger.sources]
    # Rows are read straight to where they are written from, behind room for our own keys; then what comes
    # before those moves up. Fresh memory for each row would cost more than reading it.
    buffer = bytearray(_BUFFER_BYTES)
    view = memoryview(buffer)
    at = 0
    preadv = os.preadv
    rows = zip(
        ledger.known, line_numbers, ledger.source, ledger.offset, ledger.length, ledger.splice, strict=True
    )
    for request, (known, line_number, source, offset, length, splice) in enumerate(rows):
        attempt = attempts[source] if known else 0
        if splice and known == SUCCEEDED:
            ours = b'"outcome": "succeeded", "line": %d, "attempt": %d, ' % (line_number, attempt)
            record_bytes = length + len(ours) + 1
            if at + record_bytes > _BUFFER_BYTES:
                out.write(view[:at])
                at = 0
                if on_progress is not None:
                    on_progress(request, count)
                if record_bytes > _BUFFER_BYTES:
                    row = ledger.stored_row(request)
                    out.write(b"".join((row[:splice], ours, row[splice:], b"\n")))
                    continue
            row_at = at + len(ours)
            end = row_at + length
            if preadv(descriptors[source], (view[row_at:end],), offset) != length:
                raise piece_changed()
            head = row_at + splice
            view[at:head] = buffer[row_at:head] + ours
            buffer[end] = 0x0A
            at = end + 1
            continue
        found = ledger.winning_row(request) if known >= FAILED else _row_without_reply(ledger, request)
        record = _record(found, line_number, attempt)
        if at + len(record) > _BUFFER_BYTES:
            out.write(view[:at])
            at = 0
            if on_progress is not None:
                on_progress(request, count)
        if len(record) > _BUFFER_BYTES:
            out.write(record)
        else:
            view[at : at + len(record)] = record
            at += len(record)
        if known != SUCCEEDED:
            outcomes[found.outcome] += 1
            unsuccessful.append(
                Unsuccessful(ledger.first + request, line_number, found.outcome, found.code, attempt)
            )
    out.write(view[:at])
    if on_progress is not None:
        on_progress(count, count)
    outcomes["succeeded"] = count - len(unsuccessful)
    return Tally(**outcomes), unsuccessful


def _row_without_reply(ledger: Ledger, request: int) -> Row:
    custom_id = ledger.ids[request]
    known = ledger.known[request]
    if known == GARBLED:
        return Row(custom_id, "unreadable", "unreadable", None, _GARBLED_ERROR)
    if known == NOTHING:
        return unsent(custom_id)
    return replace(ledger.sources[ledger.source[request]].ruling, custom_id=custom_id)


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
