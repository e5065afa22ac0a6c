"""A shard's joined results, with those of requests that were not sent put in.

Joining leaves such requests `missing`. Filling gives each the record of its original, or the answer held
for it, under its own name and line; what the service said stays byte for byte. `attempt` 0 means that no
attempt of this job brought it. It may be repeated at any time: what is put in depends on the plan, not on
what stood there. Nothing is added to usage: nothing was paid.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, cast

import msgspec

from langbatch.errors import BatchResultsError
from langbatch.publish import publishing
from langbatch.records import OUTCOMES, Outcome, Tally, Unsuccessful
from langbatch.reuse.plan import Answered, CopyOf, ReusePlan, ShardReuse


@dataclass(frozen=True, slots=True)
class ShardRecords:
    """A shard's joined file: records of requests `first` to `first + requests`, counted in the job from 0."""

    first: int
    requests: int
    path: Path


@dataclass(frozen=True, slots=True)
class FillReport:
    """As a join's, over the whole shard; `filled` counts the records put in."""

    tally: Tally
    unsuccessful: list[Unsuccessful]
    filled: int


class _ErrorCode(msgspec.Struct):
    code: Any = None


class _Head(msgspec.Struct):
    outcome: str
    attempt: int
    error: _ErrorCode | None = None


_decode_head = msgspec.json.Decoder(_Head).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.encode


def fill_shard(
    joined: BinaryIO,
    out: BinaryIO,
    plan: ReusePlan | ShardReuse,
    first: int,
    ids: Sequence[str],
    line_numbers: Sequence[int],
    original: Callable[[int], bytes],
) -> FillReport:
    """Write the shard's records to `out`; `original(ordinal)` is the record of a request that was sent.

    Originals may lie in any shard, so all shards that hold one must have been joined (`OriginalRecords`).
    """
    outcomes: Counter[str] = Counter()
    unsuccessful: list[Unsuccessful] = []
    filled = 0
    for at, (custom_id, line) in enumerate(zip(ids, line_numbers, strict=True)):
        record = joined.readline()
        if not record.endswith(b"\n"):
            raise BatchResultsError("a joined file has fewer records than its shard has requests")
        fate = plan.fate(first + at)
        if isinstance(fate, CopyOf):
            record = readdressed(original(fate.original), custom_id, line)
        elif isinstance(fate, Answered) and isinstance(plan, ReusePlan):
            record = readdressed(plan.answer(fate.place), custom_id, line, attempt=0)
        filled += isinstance(fate, CopyOf | Answered)
        head = _decode_head(record)
        if head.outcome not in OUTCOMES:
            raise BatchResultsError("a result has an unknown outcome", code="unreadable_record")
        outcomes[head.outcome] += 1
        if head.outcome != "succeeded":
            code = head.error.code if head.error is not None else None
            unsuccessful.append(
                Unsuccessful(
                    first + at,
                    line,
                    cast("Outcome", head.outcome),
                    code if isinstance(code, str) else head.outcome,
                    head.attempt,
                )
            )
        out.write(record)
    return FillReport(Tally(**outcomes), unsuccessful, filled)


def fill_file(
    records: Path, reuse: ShardReuse, ids: Sequence[str], line_numbers: Sequence[int]
) -> FillReport:
    """Fill one shard's joined file from itself; the new file takes its place whole."""
    own = ShardRecords(reuse.first, len(ids), records)
    with (
        OriginalRecords([own], reuse.originals()) as originals,
        records.open("rb") as joined,
        publishing(records) as out,
    ):
        return fill_shard(joined, out, reuse, reuse.first, ids, line_numbers, originals)


def readdressed(record: bytes, custom_id: str, line: int, attempt: int | None = None) -> bytes:
    """A joined record as another request's: `custom_id`, `line`, perhaps `attempt` change, nothing else."""
    members = _decode_members(record)
    members["custom_id"] = msgspec.Raw(_encode(custom_id))
    members["line"] = msgspec.Raw(b"%d" % line)
    if attempt is not None:
        members["attempt"] = msgspec.Raw(b"%d" % attempt)
    return b"{%b}\n" % b", ".join(_encode(key) + b": " + bytes(value) for key, value in members.items())


class OriginalRecords:
    """Random access to the joined records of some requests: twelve bytes each, found in one pass."""

    def __init__(self, shards: Iterable[ShardRecords], ordinals: array[int]) -> None:
        """`ordinals` in order, each once; shards without any of them are not opened."""
        self._ordinals = ordinals
        self._offsets = array("Q", bytes(8 * len(ordinals)))
        self._lengths = array("I", bytes(4 * len(ordinals)))
        self._starts: list[int] = []
        self._files: list[BinaryIO] = []
        self._stack = ExitStack()
        with ExitStack() as stack:
            for shard in sorted(shards, key=lambda each: each.first):
                begin = bisect_left(ordinals, shard.first)
                end = bisect_left(ordinals, shard.first + shard.requests)
                if begin < end:
                    file = stack.enter_context(open(shard.path, "rb"))
                    self._starts.append(begin)
                    self._files.append(file)
                    self._scan(file, shard.first, begin, end)
            self._stack = stack.pop_all()

    def _scan(self, file: BinaryIO, first: int, begin: int, end: int) -> None:
        offset, ordinal = 0, first
        for place in range(begin, end):
            while True:
                length = len(file.readline())
                if length == 0:
                    raise BatchResultsError("a joined file has fewer records than its shard has requests")
                offset += length
                ordinal += 1
                if ordinal > self._ordinals[place]:
                    break
            self._offsets[place] = offset - length
            self._lengths[place] = length

    def __call__(self, ordinal: int) -> bytes:
        place = bisect_left(self._ordinals, ordinal)
        if place == len(self._ordinals) or self._ordinals[place] != ordinal or not self._lengths[place]:
            raise BatchResultsError(f"request {ordinal + 1} has no joined record yet", code="not_joined")
        at = bisect_left(self._starts, place + 1) - 1
        return os.pread(self._files[at].fileno(), self._lengths[place], self._offsets[place])

    def __enter__(self) -> OriginalRecords:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()
