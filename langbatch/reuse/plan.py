"""What becomes of each request of a job: sent, a copy of one that is, or answered by an earlier job.

Four files in the job's folder, the plan last, so that a plan is whole when it is there. None of them where
every request is sent.

    requests.reuse    `<I` a request: 0 sent; 1 + k, a copy of the k-th that is sent; 2^31 + n, the n-th
                      result held is its own
    requests.copies   `<I` a request that is sent: how many copies it has
    reused.idx        `<QII` a result held: offset and length in the next, and which of the job's targets
                      would have answered
    reused.jsonl      joined records of earlier jobs, copied: those jobs may be deleted while this one runs

Everything counts from 0.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from langbatch.errors import BatchStorageError
from langbatch.folders import JobFolder
from langbatch.publish import publishing
from langbatch.records import Target
from langbatch.reuse.cache import Cache
from langbatch.reuse.digests import DIGEST_BYTES, answerer, question
from langbatch.reuse.spool import PARTS, Spool

#: What a plan says of a request that is sent; below `ANSWERED` it is a copy.
SENT: Final = 0
ANSWERED: Final = 1 << 31

PLACE: Final = struct.Struct("<QII")
_NUMBER: Final = struct.Struct("<I")
#: Of a request: the number of the model that its line names, and its own.
_ASKED: Final = struct.Struct("<II")
_SAME_BYTES: Final = DIGEST_BYTES + _NUMBER.size


@dataclass(frozen=True, slots=True)
class ReuseCounts:
    """How many requests are sent, copies, or answered, and by which jobs the last were."""

    sent: int
    copies: int = 0
    answered: int = 0
    answered_by: Mapping[str, int] | None = None


def plan_reuse(
    folder: JobFolder,
    asked: Iterable[tuple[bytes, str | None]],
    targets: Sequence[Target],
    *,
    dedupe: bool = False,
    cache: Cache | None = None,
) -> ReuseCounts:
    """Write the plan of a job in `folder`. `asked`: of each request, in order, its body's digest and the
    model that its line names; of a job that may go to any of `targets`.

    A request that an earlier job has answered, at any of the targets, is never sent; of equal ones that none
    has, all are, unless `dedupe`: then the first. Reads `asked` once.
    """
    lines_name_models = any(target.model is None for target in targets)
    models: dict[str | None, int] = {}
    with Spool(folder.path, _ASKED.size) as spool, ExitStack() as stack:
        for ordinal, (body, named) in enumerate(asked):
            model = models.setdefault(named if lines_name_models else None, len(models))
            spool.add(body, _ASKED.pack(model, ordinal))
        if spool.entries >= ANSWERED:
            raise BatchStorageError("a job with reuse holds fewer than 2,147,483,648 requests")
        fates = array("I", bytes(_NUMBER.size * spool.entries))
        held = None
        if cache is not None:
            who = [[answerer(target, named) for target in targets] for named in models]
            held = _Held(
                cache,
                who,
                stack.enter_context(publishing(folder.held)),
                stack.enter_context(publishing(folder.held_index)),
            )
        for first_byte in range(PARTS):
            same: dict[bytes, list[int]] = {}
            for entry in spool.entries_of(first_byte):
                ordinals = same.setdefault(entry[:_SAME_BYTES], [])
                ordinals.extend(_NUMBER.unpack_from(entry, _SAME_BYTES))
            if held is not None and same:
                held.answer(first_byte, same, fates)
            if dedupe:
                for original, *others in same.values():
                    for ordinal in others:
                        fates[ordinal] = 1 + original
    copies = _number_by_sent(fates)
    if len(copies) == len(fates):
        for path in (folder.held, folder.held_index):
            path.unlink(missing_ok=True)
        return ReuseCounts(len(fates))
    for path, numbers in ((folder.copies, copies), (folder.reuse_plan, fates)):
        with publishing(path) as out:
            out.write(_little(numbers))
    answered_by = Counter[str]() if held is None else held.answered_by
    counted = sum(copies)
    return ReuseCounts(len(copies), counted, len(fates) - len(copies) - counted, dict(answered_by))


class _Held:
    """Copies what the cache knows, and notes which requests it answers."""

    def __init__(
        self, cache: Cache, who: Sequence[Sequence[bytes]], records: BinaryIO, index: BinaryIO
    ) -> None:
        self._cache = cache
        #: By the number of the model that a line names: who may answer it.
        self._who = who
        self._records = records
        self._index = index
        self._count = self._bytes = 0
        self.answered_by: Counter[str] = Counter()

    def answer(self, first_byte: int, same: dict[bytes, list[int]], fates: array[int]) -> None:
        """Take out of `same` what is answered."""
        wanted: dict[bytes, tuple[bytes, int]] = {}
        for key in same:
            (model,) = _NUMBER.unpack_from(key, DIGEST_BYTES)
            for target, who in enumerate(self._who[model]):
                wanted.setdefault(question(key[:DIGEST_BYTES], who), (key, target))
        for digest, found in self._cache.find(first_byte, wanted):
            key, target = wanted[digest]
            ordinals = same.pop(key, None)
            if ordinals is None:
                continue  # answered at another target, too
            self._records.write(found.record)
            self._index.write(PLACE.pack(self._bytes, len(found.record), target))
            for ordinal in ordinals:
                fates[ordinal] = ANSWERED + self._count
            self._count += 1
            self._bytes += len(found.record)
            self.answered_by[found.job_id] += len(ordinals)


def _number_by_sent(fates: array[int]) -> array[int]:
    """Let copies name their originals by their number among those that are sent. Returns how many copies
    each of these has."""
    copies = array("I")
    numbers = array("I", bytes(fates.itemsize * len(fates)))
    for ordinal, fate in enumerate(fates):
        if fate == SENT:
            numbers[ordinal] = len(copies)
            copies.append(0)
        elif fate < ANSWERED:
            number = numbers[fate - 1]
            fates[ordinal] = 1 + number
            copies[number] += 1
    return copies


class ReusePlan:
    """A job's plan, at four bytes a request: `fates` as in the file."""

    def __init__(self, folder: JobFolder) -> None:
        self.fates = _read(folder.reuse_plan)
        self.total = len(self.fates)
        self.sent = self.fates.count(SENT)

    @staticmethod
    def exists(folder: JobFolder) -> bool:
        """Whether the job has a plan; without one every request is sent."""
        return folder.reuse_plan.exists()

    @property
    def answered(self) -> int:
        return sum(fate >= ANSWERED for fate in self.fates)

    def sent_before(self, ordinal: int) -> int:
        """How many of the requests before this one are sent: its own number, if it is."""
        return self.fates[:ordinal].count(SENT)


def copies_of(folder: JobFolder, first: int = 0, count: int | None = None) -> array[int] | None:
    """How many copies these requests, counted among those that are sent, have each; None without a plan."""
    return _read(folder.copies, first, count) if ReusePlan.exists(folder) else None


def _read(path: Path, first: int = 0, count: int | None = None) -> array[int]:
    size = -1 if count is None else _NUMBER.size * count
    try:
        with path.open("rb") as file:
            file.seek(_NUMBER.size * first)
            data = file.read(size)
    except OSError as error:
        raise damaged(path) from error
    if len(data) % _NUMBER.size or len(data) < size:
        raise damaged(path)
    numbers = array("I", data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _little(values: array[int]) -> bytes:
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values.tobytes()


def damaged(path: Path) -> BatchStorageError:
    return BatchStorageError(f"{path} is missing or damaged; restore it, or submit the input again")
