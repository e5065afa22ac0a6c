"""A job's requests, parted: its snapshot holds what is sent, and what is not lies beside it.

So everything behind (shards, limits, budgets, payloads, joins, recoveries) knows nothing of reuse. Only who
looks at all that was asked lays both together again.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress, islice
from pathlib import Path
from typing import Final, Protocol, TypeVar

from langbatch.folders import JobFolder
from langbatch.records import OnProgress, Progress, Target
from langbatch.requests.validation import ModelRun
from langbatch.reuse.cache import Cache
from langbatch.reuse.digests import body_digest
from langbatch.reuse.plan import SENT, ReuseCounts, ReusePlan, plan_reuse
from langbatch.shards.snapshot import IDS, INDEX, INPUTS, MARKS, REQUESTS, Snapshot, SnapshotWriter, Written

T = TypeVar("T")

#: Requests that are moved at once, unless they are large.
_REQUESTS_AT_ONCE: Final = 4096
_BYTES_AT_ONCE: Final = 1 << 20
_TELL_EVERY: Final = 4096


@dataclass(frozen=True, slots=True)
class Parted:
    """`written`: the snapshot of what is sent."""

    counts: ReuseCounts
    written: Written


def part(
    folder: Path,
    targets: Sequence[Target],
    *,
    dedupe: bool,
    cache: Cache | None,
    on_progress: OnProgress | None = None,
) -> Parted | None:
    """Plan the reuse of the snapshot in `folder`, a folder that nobody else knows yet, and leave in it what
    is sent. None where that is all of it; nothing has changed then."""
    files, whole = JobFolder(folder), Snapshot(folder)
    asked = (body_digest(line) for line in _told(whole.lines(0, whole.total), whole.total, on_progress))
    counts = plan_reuse(files, asked, targets, dedupe=dedupe, cache=cache)
    if counts.sent == whole.total:
        return None
    sent = folder / "sent"
    written = _write_both(whole, ReusePlan(files), sent, files.unsent, (folder / INPUTS).exists())
    for name in (REQUESTS, IDS, MARKS, INPUTS, INDEX):
        if (sent / name).exists():
            os.replace(sent / name, folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
    sent.rmdir()
    return Parted(counts, written)


def _write_both(whole: Snapshot, plan: ReusePlan, sent: Path, unsent: Path, has_inputs: bool) -> Written:
    lines = whole.lines(0, whole.total)
    with SnapshotWriter(sent) as of_sent, SnapshotWriter(unsent) as of_unsent:
        of_sent.follow(hashlib.sha256())
        at = 0
        while at < whole.total:
            lengths = whole.lengths(at, min(_REQUESTS_AT_ONCE, whole.total - at))
            count = _within(lengths)
            block = list(islice(lines, count))
            tokens, numbers = whole.id_tokens(at, count), whole.line_numbers(at, count)
            inputs = whole.inputs(at, count) if has_inputs else None
            goes = [fate == SENT for fate in plan.fates[at : at + count]]
            for writer, chosen in ((of_sent, goes), (of_unsent, [not each for each in goes])):
                writer.add(
                    list(compress(block, chosen)),
                    array("I", compress(lengths, chosen)),
                    array("I", compress(numbers, chosen)),
                    list(compress(tokens, chosen)),
                    None if inputs is None else array("I", compress(inputs, chosen)),
                )
            at += count
        of_unsent.close()
        return of_sent.close()


def _within(lengths: Sequence[int]) -> int:
    """How many of these come together in one block: one at least."""
    size = 0
    for count, length in enumerate(lengths):
        size += length
        if size > _BYTES_AT_ONCE and count:
            return count
    return len(lengths)


def _told(lines: Iterator[bytes], total: int, on_progress: OnProgress | None) -> Iterator[bytes]:
    for number, line in enumerate(lines, 1):
        yield line
        if on_progress is not None and (number % _TELL_EVERY == 0 or number == total):
            on_progress(Progress("compare", number, total, "requests"))


def runs_of_sent(folder: Path, runs: Iterable[ModelRun]) -> Iterator[ModelRun]:
    """Stretches of one model each, counted in what is sent."""
    plan = ReusePlan(JobFolder(folder))
    first = 0
    for run in runs:
        count = plan.fates[run.first : run.first + run.count].count(SENT)
        if count:
            yield ModelRun(first, count, run.model)
        first += count


# ---------------------------------------------------------------- all that was asked


class Requests(Protocol):
    """Requests in the input's order; `first` counts from 0."""

    @property
    def total(self) -> int: ...

    def lines(self, first: int, count: int) -> Iterator[bytes]:
        """Each with its newline."""
        ...

    def ids(self, first: int, count: int) -> list[str]: ...

    def line_numbers(self, first: int, count: int) -> array[int]:
        """In the user's file, from 1."""
        ...

    @property
    def sha256(self) -> str:
        """Of all lines."""
        ...


class BothParts:
    """What is sent and what is not, as they stood in the input."""

    def __init__(self, folder: JobFolder) -> None:
        self._fates = ReusePlan(folder).fates
        self._sent, self._unsent = Snapshot(folder.path), Snapshot(folder.unsent)

    @property
    def total(self) -> int:
        return len(self._fates)

    def lines(self, first: int, count: int) -> Iterator[bytes]:
        return self._laid_together(first, count, lambda part, first, count: part.lines(first, count))

    def ids(self, first: int, count: int) -> list[str]:
        return list(self._laid_together(first, count, lambda part, first, count: part.ids(first, count)))

    def line_numbers(self, first: int, count: int) -> array[int]:
        found = self._laid_together(first, count, lambda part, first, count: part.line_numbers(first, count))
        return array("I", found)

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for line in self.lines(0, self.total):
            digest.update(line)
        return digest.hexdigest()

    def _laid_together(
        self, first: int, count: int, read: Callable[[Snapshot, int, int], Iterable[T]]
    ) -> Iterator[T]:
        if first < 0 or count < 0 or first + count > self.total:
            raise ValueError(f"requests {first}+{count} are not within the job's {self.total}")
        fates = self._fates[first : first + count]
        before, within = self._fates[:first].count(SENT), fates.count(SENT)
        sent = iter(read(self._sent, before, within))
        unsent = iter(read(self._unsent, first - before, count - within))
        return (next(sent if fate == SENT else unsent) for fate in fates)


def all_requests(folder: JobFolder) -> Requests:
    """All that a job was asked, whether it is sent or not."""
    return BothParts(folder) if ReusePlan.exists(folder) else Snapshot(folder.path)
