"""What becomes of each request of a job: sent, a copy of an earlier one, or answered already.

Three files in the job's folder, the plan last, so that a plan is whole when it is there:

    requests.reuse    `<I` a request: 0 send; 1 + k, a copy of request k; 2^31 + n, the n-th answer held
    reused.idx        `<QI` an answer held: offset and length in the next
    reused.jsonl      joined records of earlier jobs, copied: those jobs may be deleted while this one runs

Four bytes a request; a copy's original is always sent itself.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from langbatch.errors import BatchStorageError
from langbatch.publish import publishing
from langbatch.reuse.cache import Cache
from langbatch.reuse.digests import DIGEST_BYTES
from langbatch.reuse.spool import PARTS, Spool

PLAN: Final = "requests.reuse"
_HELD: Final = "reused.jsonl"
_HELD_INDEX: Final = "reused.idx"

_SEND: Final = 0
_ANSWERED: Final = 1 << 31
_PLACE: Final = struct.Struct("<QI")
_ORDINAL: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Send:
    """This request goes out itself."""


@dataclass(frozen=True, slots=True)
class CopyOf:
    """It gets what request `original` of the same job gets; ordinals count from 0."""

    original: int


@dataclass(frozen=True, slots=True)
class Answered:
    """It gets the `place`-th answer that the job holds from earlier jobs."""

    place: int


Fate = Send | CopyOf | Answered


@dataclass(frozen=True, slots=True)
class ReuseCounts:
    """How many requests are sent, copies, or answered, and from which jobs' results the last came."""

    sent: int
    copies: int
    answered: int
    answers_of: Mapping[str, int]


def plan_reuse(
    folder: Path, digests: Iterable[bytes], *, dedupe: bool = False, cache: Cache | None = None
) -> ReuseCounts:
    """Write the plan for a job in `folder`; `digests` are those of all its requests, in order.

    A request that an earlier job has answered is never sent; of equal ones that none has, all are, unless
    `dedupe`: then the first. Reads `digests` once.
    """
    with Spool(folder, _ORDINAL.size) as spool:
        for ordinal, digest in enumerate(digests):
            spool.add(digest, _ORDINAL.pack(ordinal))
        if spool.entries >= _ANSWERED:
            raise BatchStorageError("a job with reuse holds fewer than 2,147,483,648 requests")
        fates = array("I", bytes(4 * spool.entries))
        copies = answered = 0
        answers_of: Counter[str] = Counter()
        held = held_bytes = 0
        with publishing(folder / _HELD) as records, publishing(folder / _HELD_INDEX) as index:
            for first_byte in range(PARTS):
                same: dict[bytes, list[int]] = {}
                for entry in spool.entries_of(first_byte):
                    ordinals = same.setdefault(entry[:DIGEST_BYTES], [])
                    ordinals.extend(_ORDINAL.unpack_from(entry, DIGEST_BYTES))
                if cache is not None and same:
                    for digest, found in cache.find(first_byte, same):
                        records.write(found.record)
                        index.write(_PLACE.pack(held_bytes, len(found.record)))
                        held_bytes += len(found.record)
                        for ordinal in same.pop(digest):
                            fates[ordinal] = _ANSWERED + held
                            answered += 1
                            answers_of[found.job_id] += 1
                        held += 1
                if dedupe:
                    for original, *others in same.values():
                        for ordinal in others:
                            fates[ordinal] = 1 + original
                        copies += len(others)
    with publishing(folder / PLAN) as out:
        out.write(_little(fates))
    return ReuseCounts(len(fates) - copies - answered, copies, answered, dict(answers_of))


class ReusePlan:
    """Reads a job's plan. Four bytes a request are held."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            data = (folder / PLAN).read_bytes()
        except OSError as error:
            raise _damaged(folder / PLAN) from error
        if len(data) % _ORDINAL.size:
            raise _damaged(folder / PLAN)
        self._fates = array("I", data)
        if sys.byteorder == "big":
            self._fates.byteswap()

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether the job reuses anything; without a plan every request is sent."""
        return (folder / PLAN).exists()

    @property
    def total(self) -> int:
        return len(self._fates)

    def fate(self, ordinal: int) -> Fate:
        value = self._fates[ordinal]
        if value == _SEND:
            return Send()
        return Answered(value - _ANSWERED) if value >= _ANSWERED else CopyOf(value - 1)

    def sends(self, first: int, count: int) -> Iterable[bool]:
        """Whether each of these requests is sent itself; for sharding."""
        return (value == _SEND for value in self._fates[first : first + count])

    def sent(self, first: int, count: int, *, counted_from: int = 0) -> SentOrdinals:
        """Those of these requests that are sent, as a set of ordinals counted from `counted_from`.

        0 counts in the job, as `AttemptPieces.sent` does; `first` counts within the shard, as
        `write_payload(ordinals=…)` does.
        """
        return SentOrdinals(self._fates[first : first + count], first - counted_from)

    def originals(self) -> array[int]:
        """The requests that others are copies of, each once, in order: their results are needed again."""
        marks = bytearray(len(self._fates))
        for value in self._fates:
            if _SEND < value < _ANSWERED:
                marks[value - 1] = 1
        return array("I", (ordinal for ordinal, mark in enumerate(marks) if mark))

    def answer(self, place: int) -> bytes:
        """The record held for `Answered(place)`."""
        try:
            with (self._folder / _HELD_INDEX).open("rb") as index:
                index.seek(place * _PLACE.size)
                offset, length = _PLACE.unpack(index.read(_PLACE.size))
            with (self._folder / _HELD).open("rb", buffering=0) as records:
                records.seek(offset)
                record = records.read(length)
        except (OSError, struct.error) as error:
            raise _damaged(self._folder / _HELD_INDEX) from error
        if len(record) != length:
            raise _damaged(self._folder / _HELD)
        return record


class ShardReuse(Container[int]):
    """The plan as one shard sees it: copies only of requests in the same shard, so that a shard's results
    never wait for another's.

    Of requests that are equal to one in an earlier shard, the first is sent here too. A shard that is cut in
    two stays sound, since this is found anew from where it begins and ends.
    """

    def __init__(self, plan: ReusePlan, first: int, count: int) -> None:
        self.first = first
        self._originals: dict[int, int] = {}
        sent_here: dict[int, int] = {}
        for ordinal in range(first, first + count):
            fate = plan.fate(ordinal)
            if isinstance(fate, Answered):
                raise BatchStorageError("a plan with answers of earlier jobs is not for this version")
            if isinstance(fate, CopyOf):
                original = fate.original
                here = original if original >= first else sent_here.setdefault(original, ordinal)
                if here != ordinal:
                    self._originals[ordinal] = here

    def fate(self, ordinal: int) -> Fate:
        original = self._originals.get(ordinal)
        return Send() if original is None else CopyOf(original)

    def __contains__(self, ordinal: object) -> bool:
        """Whether this request, counted in the job, is sent; as `AttemptPieces.sent` asks."""
        return ordinal not in self._originals

    def originals(self) -> array[int]:
        """As `ReusePlan.originals`, of this shard."""
        return array("I", sorted(set(self._originals.values())))

    @property
    def copies(self) -> int:
        return len(self._originals)


def shard_reuse(folder: Path, first: int, count: int) -> ShardReuse | None:
    """What a shard need not send; None where it sends everything."""
    if not ReusePlan.exists(folder):
        return None
    reuse = ShardReuse(ReusePlan(folder), first, count)
    return reuse if reuse.copies else None


@dataclass(frozen=True, slots=True)
class SentOrdinals(Container[int]):
    """A set of ordinals, at the price of a slice of the plan."""

    fates: array[int]
    first: int

    def __contains__(self, ordinal: object) -> bool:
        if not isinstance(ordinal, int):
            return False
        at = ordinal - self.first
        return 0 <= at < len(self.fates) and self.fates[at] == _SEND

    def __len__(self) -> int:
        return self.fates.count(_SEND)


def _little(values: array[int]) -> bytes:
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values.tobytes()


def _damaged(path: Path) -> BatchStorageError:
    return BatchStorageError(f"{path} is missing or damaged; restore it, or submit the input again")
