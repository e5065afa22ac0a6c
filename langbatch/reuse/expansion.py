"""A job's results in the order of its input, out of those of the requests that were sent.

A copy has its original's record, and a request that an earlier job has answered the record held for it, under
its own name and line; what the service said stays byte for byte. `attempt` 0 means that no attempt of this
job brought it. Nothing of it is stored: where an original is sent again, its copies follow.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Final

import msgspec

from langbatch.errors import BatchResultsError
from langbatch.folders import JobFolder
from langbatch.records import OUTCOMES, Tally, Unsuccessful
from langbatch.results.members import UNREADABLE, members
from langbatch.results.result import Result, open_joined, results_damaged
from langbatch.reuse.plan import ANSWERED, PLACE, SENT, ReusePlan, copies_of, damaged
from langbatch.shards.snapshot import Snapshot

#: Joined files that are kept open; a job may have thousands.
_OPEN_MOST: Final = 32
_NAMES_AT_ONCE: Final = 4096
_encode: Final = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class JoinedShard:
    """A shard's joined file, None before there is one; `first` counts what is sent.

    Of a shard that is not `settled` (it is being retried) only the successes count: the rest is open again.
    """

    first: int
    requests: int
    path: Path | None
    settled: bool = True


class Expansion:
    """Lays out the results of a job with a plan, from those of its shards that are given, in order."""

    def __init__(self, folder: JobFolder, shards: Sequence[JoinedShard]) -> None:
        self._folder = folder
        self._shards = shards
        self._plan = ReusePlan(folder)

    def records(self) -> Iterator[bytes | None]:
        """One joined record a request of the input, None for those that have no result yet."""
        with ExitStack() as stack:
            originals = _Originals(self._folder, self._shards)
            stack.callback(originals.close)
            held = stack.enter_context(HeldRecords(self._folder))
            names = _names(Snapshot(self._folder.unsent))
            sent = _sent_records(self._shards, self._plan.sent)
            for fate in self._plan.fates:
                if fate == SENT:
                    yield next(sent)
                    continue
                token, line = next(names)
                if fate >= ANSWERED:
                    yield readdressed(held.record(fate - ANSWERED), token, line, attempt=0)
                    continue
                record = originals.record(fate - 1)
                yield None if record is None else readdressed(record, token, line)


def readdressed(record: bytes, id_token: bytes, line: int, attempt: int | None = None) -> bytes:
    """A joined record as another request's: `custom_id` (a JSON string), `line` and perhaps `attempt`
    change, nothing else."""
    try:
        parts = members(record.rstrip(b"\n"))
    except UNREADABLE:
        raise BatchResultsError("a joined record cannot be read", code="unreadable_record") from None
    parts["custom_id"] = id_token
    parts["line"] = b"%d" % line
    if attempt is not None:
        parts["attempt"] = b"%d" % attempt
    return b"{%b}\n" % b", ".join(_encode(key) + b": " + value for key, value in parts.items())


# ---------------------------------------------------------------- what is sent


def _sent_records(shards: Sequence[JoinedShard], total: int) -> Iterator[bytes | None]:
    """Of each request that is sent, in order: its record, if it has one that counts."""
    done = 0
    for shard in shards:
        if shard.path is None:
            continue
        yield from repeat(None, shard.first - done)
        with open_joined(shard.path) as file:
            for _ in range(shard.requests):
                yield _counting(_next_record(file, shard.path), shard)
        done = shard.first + shard.requests
    yield from repeat(None, total - done)


def _counting(record: bytes, shard: JoinedShard) -> bytes | None:
    return record if shard.settled or Result(record).outcome == "succeeded" else None


def _next_record(file: Iterator[bytes], path: Path) -> bytes:
    record = next(file, b"")
    if not record.endswith(b"\n"):
        raise results_damaged(path)
    return record


class _Originals:
    """The records of requests that have copies, at any place: 16 bytes each, found in one pass."""

    def __init__(self, folder: JobFolder, shards: Sequence[JoinedShard]) -> None:
        self._shards = shards
        self._numbers = array("I")
        self._offsets = array("Q")
        self._lengths = array("I")
        #: Where the records of each shard begin in these, and which file they were found in.
        self._starts: list[int] = []
        self._files: dict[int, tuple[int, int, int]] = {}
        self._open: OrderedDict[int, int] = OrderedDict()
        for place, shard in enumerate(shards):
            self._starts.append(len(self._numbers))
            if shard.path is not None:
                copies = copies_of(folder, shard.first, shard.requests)
                if copies is not None and any(copies):
                    self._scan(place, shard.path, copies)

    def _scan(self, place: int, path: Path, copies: array[int]) -> None:
        offset = 0
        with open_joined(path) as file:
            self._files[place] = _identity(file.fileno())
            for number, count in enumerate(copies, self._shards[place].first):
                length = len(_next_record(file, path))
                if count:
                    self._numbers.append(number)
                    self._offsets.append(offset)
                    self._lengths.append(length)
                offset += length

    def record(self, number: int) -> bytes | None:
        """Of the request with this number among those that are sent; None where it has none that counts."""
        at = bisect_left(self._numbers, number)
        if at == len(self._numbers) or self._numbers[at] != number:
            return None
        place = bisect_right(self._starts, at) - 1
        record = os.pread(self._descriptor(place), self._lengths[at], self._offsets[at])
        return _counting(record, self._shards[place])

    def _descriptor(self, place: int) -> int:
        found = self._open.get(place)
        if found is not None:
            self._open.move_to_end(place)
            return found
        if len(self._open) == _OPEN_MOST:
            os.close(self._open.popitem(last=False)[1])
        path = self._shards[place].path
        assert path is not None
        descriptor = self._open[place] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if _identity(descriptor) != self._files[place]:
            raise BatchResultsError(
                "the results were joined anew while they were read",
                hint="read them again",
                code="joined_anew",
            )
        return descriptor

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])


def _identity(descriptor: int) -> tuple[int, int, int]:
    """A joined file is never changed, but another may take its place."""
    status = os.fstat(descriptor)
    return status.st_ino, status.st_size, status.st_mtime_ns


# ---------------------------------------------------------------- what is not


class HeldRecords:
    """The results of earlier jobs that a job holds."""

    def __init__(self, folder: JobFolder) -> None:
        self._folder = folder
        self._index = self._records = -1

    def place(self, number: int) -> tuple[int, int, int]:
        """Where the record lies among them, offset and length, and the place of the target that answers."""
        data = os.pread(self._index, PLACE.size, number * PLACE.size) if self._index >= 0 else b""
        if len(data) != PLACE.size:
            raise damaged(self._folder.held_index)
        offset, length, target = PLACE.unpack(data)
        return offset, length, target

    def record(self, number: int) -> bytes:
        offset, length, _ = self.place(number)
        record = os.pread(self._records, length, offset) if self._records >= 0 else b""
        if len(record) != length:
            raise damaged(self._folder.held)
        return record

    def __enter__(self) -> HeldRecords:
        try:
            self._index = os.open(self._folder.held_index, os.O_RDONLY | os.O_CLOEXEC)
            self._records = os.open(self._folder.held, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            pass  # without answers there are none
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in (self._index, self._records):
            if descriptor >= 0:
                os.close(descriptor)
        self._index = self._records = -1


def _names(unsent: Snapshot) -> Iterator[tuple[bytes, int]]:
    """The `custom_id`, as a JSON string, and the line of each request that is not sent."""
    for first in range(0, unsent.total, _NAMES_AT_ONCE):
        count = min(_NAMES_AT_ONCE, unsent.total - first)
        yield from zip(unsent.id_tokens(first, count), unsent.line_numbers(first, count), strict=True)


# ---------------------------------------------------------------- what is counted


def with_copies(
    tally: Tally, unsuccessful: Iterable[Unsuccessful], first: int, copies: Sequence[int]
) -> Tally:
    """A shard's tally with the copies of its requests, each of which ends as its original. `copies`: how many
    each request has; `first`: the number of the shard's first request."""
    counted = Counter[str]({name: getattr(tally, name) for name in OUTCOMES})
    counted["succeeded"] += sum(copies)
    for item in unsuccessful:
        number = copies[item.ordinal - first]
        counted["succeeded"] -= number
        counted[item.outcome] += number
    return Tally(**counted)


def expanded(folder: JobFolder, unsuccessful: Iterable[Unsuccessful]) -> Iterator[Unsuccessful]:
    """Those among all requests of the input, counted in it: copies fail with their originals."""
    failed = {item.ordinal: item for item in unsuccessful}
    names = _names(Snapshot(folder.unsent))
    number = 0
    for ordinal, fate in enumerate(ReusePlan(folder).fates):
        if fate == SENT:
            if number in failed:
                yield replace(failed[number], ordinal=ordinal)
            number += 1
            continue
        _, line = next(names)
        if fate < ANSWERED and fate - 1 in failed:
            yield replace(failed[fate - 1], ordinal=ordinal, line=line)
