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

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise, repeat
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import msgspec

from langbatch.parallel import WORTH_RESULT_BYTES, in_order, sharing_executor
from langbatch.records import Tally, Unsuccessful, Usage
from langbatch.results.facts import RANGE_BYTES, Fact, facts, facts_of_files
from langbatch.results.ledger import (
    FAILED,
    GARBLED,
    NOTHING,
    RULED,
    SILENT,
    AttemptPieces,
    Ledger,
    Note,
    Piece,
    Verdict,
)
from langbatch.results.pieces import MAX_ROW_BYTES
from langbatch.results.rows import Row
from langbatch.results.skeletons import PlainRows
from langbatch.results.stretches import Sources, Stretch, records_of, size_of, stretch_ends, write_records
from langbatch.writeback import WritebackFile

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from langbatch.pool import ProcessPool

__all__ = ["AttemptPieces", "JoinReport", "Note", "Piece", "Verdict", "join_shard"]


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
    `on_progress(done, total)` counts records written. Where a piece is larger than `range_bytes`, workers of
    the `executor` read all of them in ranges of about that size and put records together; without one,
    processes are started for it if there is enough to share. The records are the same to the byte.
    """
    if len(line_numbers) != len(ids):
        raise ValueError("every request has one id and one line number")
    attempts = sorted(attempts, key=lambda item: item.attempt)
    paths = [piece.path for attempt in attempts for piece in attempt.pieces]
    sizes = [path.stat().st_size for path in paths]
    large = max(sizes, default=0) > range_bytes
    with (
        sharing_executor(executor, sum(sizes) if large else 0, WORTH_RESULT_BYTES) as found_executor,
        ExitStack() as stack,
    ):
        sharing = found_executor if large else None
        ledger = Ledger(ids, first_ordinal, quarantine)
        files = [(stack.enter_context(open(path, "rb", buffering=0)), path) for path in paths]
        found: Iterator[Iterator[list[Fact] | PlainRows]]
        if sharing is None:
            found = (facts(file, max_row_bytes) for file, _ in files)
        else:
            found = facts_of_files(sharing, files, max_row_bytes, range_bytes)
        taken = zip(files, found, strict=True)
        for attempt in attempts:
            ledger.open_attempt(attempt)
            for piece in attempt.pieces:
                (file, _), its_facts = next(taken)
                ledger.take_piece(piece, file, its_facts)
            ledger.take_verdict(attempt)
        tally, unsuccessful = _write_records(ledger, line_numbers, out, on_progress, sharing)
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
    executor: Executor | None,
) -> tuple[Tally, list[Unsuccessful]]:
    count = len(ledger.ids)
    outcomes: Counter[str] = Counter()
    unsuccessful: list[Unsuccessful] = []
    sources = [(source.path, source.attempt) for source in ledger.sources]

    ends = list(stretch_ends(ledger.length))

    def stretches() -> Iterator[Stretch]:
        for start, end in pairwise([0, *ends]):
            these = slice(start, end)
            built = {}
            for place in [place for place, splice in enumerate(ledger.splice[these]) if not splice]:
                request = start + place
                line = line_numbers[request]
                row, attempt = _row_of(ledger, request)
                built[place] = _record(row, line, attempt)
                if row.outcome != "succeeded":
                    outcomes[row.outcome] += 1
                    unsuccessful.append(
                        Unsuccessful(ledger.first + request, line, row.outcome, row.code, attempt)
                    )
            yield Stretch(
                line_numbers[these],
                ledger.source[these],
                ledger.offset[these],
                ledger.length[these],
                ledger.splice[these],
                built,
            )

    for end, _ in zip(ends, _written(sources, stretches(), out, executor), strict=True):
        if on_progress is not None:
            on_progress(end, count)
    outcomes["succeeded"] = count - len(unsuccessful)
    return Tally(**outcomes), unsuccessful


def _written(
    sources: Sources, stretches: Iterator[Stretch], out: BinaryIO, executor: Executor | None
) -> Iterator[int]:
    """The bytes of each stretch's records, when they are written."""
    if executor is None:
        yield from (out.write(records_of(sources, stretch)) for stretch in stretches)
        return
    from langbatch.pool import ProcessPool

    if isinstance(executor, ProcessPool) and isinstance(out, WritebackFile):
        yield from _written_in_place(sources, stretches, out, executor)
        return
    yield from map(out.write, in_order(executor, records_of, zip(repeat(sources), stretches, strict=False)))


def _written_in_place(
    sources: Sources, stretches: Iterator[Stretch], out: WritebackFile, pool: ProcessPool
) -> Iterator[int]:
    """As `_written`, by processes on this machine that write what they put together: passing it on costs
    more."""
    out.flush()
    path, start = out.path, out.tell()

    def tasks() -> Iterator[tuple[Path, int, int, Sources, Stretch]]:
        at = start
        for stretch in stretches:
            size = size_of(sources, stretch)
            yield path, at, size, sources, stretch
            at += size

    for size in in_order(pool, write_records, tasks()):
        out.pass_over(size)
        yield size


def _row_of(ledger: Ledger, request: int) -> tuple[Row, int]:
    """What the record of a request says, and the number of the attempt that it comes from."""
    known, source = ledger.known[request], ledger.source_of(request)
    if known >= FAILED:
        return ledger.winning_row(request), source.attempt
    if known == GARBLED:
        return Row(ledger.ids[request], "unreadable", "unreadable", None, _GARBLED_ERROR), source.attempt
    return msgspec.structs.replace(source.ruling, custom_id=ledger.ids[request]), source.attempt


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
            b"".join([b", %b: %b" % extra for extra in row.extras]) if row.extras else b"",
        )
    )
