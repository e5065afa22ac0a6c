"""Earlier jobs' results, made findable for a job that wants to reuse them.

A job is indexed when somebody first asks, and again when its results have changed: jobs that nobody asks for
pay nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from langbatch.errors import LangBatchError
from langbatch.folders import JobFolder
from langbatch.records import Attempt, Job, OnProgress, Progress, Shard, Target
from langbatch.results.result import Result
from langbatch.reuse.cache import HELD, Answer, Cache, cache_folder, index_path, is_indexed, write_index
from langbatch.reuse.digests import answerer, body_digest, question
from langbatch.reuse.expansion import HeldRecords
from langbatch.reuse.plan import ANSWERED, SENT, ReusePlan
from langbatch.shards.snapshot import Snapshot

if TYPE_CHECKING:
    from langbatch.store.store import JobStore

_log = logging.getLogger("langbatch")
_TELL_EVERY = 4096


def find_earlier(
    store: JobStore,
    home: Path,
    targets: Sequence[Target],
    *,
    temporary: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Cache:
    """What this store's jobs at any of these targets' endpoints have had so far, those of the latest first.

    `temporary`: a folder for indexes that are not there yet, where nothing may be kept. A job whose files
    cannot be read has nothing to offer, and is no obstacle.
    """
    where = {_endpoint(target) for target in targets}
    indexes: list[Path] = []
    unreadable: list[str] = []
    for job in reversed(store.jobs()):
        if not job.tally.succeeded or not any(_endpoint(target) in where for target in job.targets):
            continue
        mark = _mark(job)
        path = index_path(cache_folder(home), job.id)
        if not is_indexed(path, mark):
            if temporary is not None:
                path = index_path(temporary, job.id)
            try:
                write_index(path, _answers(store, home, job, on_progress), mark)
            except (LangBatchError, OSError) as error:
                unreadable.append(f"{job.id} ({error})")
                continue
            except ValueError:
                unreadable.append(f"{job.id} (its results and requests do not fit together)")
                continue
        indexes.append(path)
    if unreadable:
        more = f" and {len(unreadable) - 1} more jobs" if unreadable[1:] else ""
        _log.warning("results of job %s%s cannot be reused", unreadable[0], more)
    return Cache(home, indexes)


def _endpoint(target: Target) -> tuple[str, str, str]:
    return target.kind, target.provider, target.host.lower()


def _mark(job: Job) -> int:
    """Changes with the results: each shard that ends changes the counts, and the last one the time."""
    text = f"{job.tally} {job.finished_at}"
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def _answers(store: JobStore, home: Path, job: Job, on_progress: OnProgress | None) -> Iterator[Answer]:
    """Every success of the job, with what was asked. The latest of equal questions comes last."""
    folder = JobFolder.of(home, job.id)
    yield from _held_answers(folder, job)
    snapshot, done = Snapshot(folder.path), 0
    for shard, _ in store.shards(job.key):
        if shard.state == "done" and shard.tally.succeeded:
            places = _places(job, store.attempts(job.key, shard.index))
            yield from _shard_answers(folder, job, snapshot, shard, places)
        done += shard.requests
        if on_progress is not None:
            on_progress(Progress("compare", done, snapshot.total, "requests", job.id))


def _places(job: Job, attempts: Iterable[Attempt]) -> dict[int, int]:
    """The target of each attempt, by its number. Of one that a recovery knows nothing of it is not certain,
    unless there is only one."""
    several = len(job.targets) > 1
    return {each.number: each.target for each in attempts if each.file_id is not None or not several}


def _shard_answers(
    folder: JobFolder, job: Job, snapshot: Snapshot, shard: Shard, places: dict[int, int]
) -> Iterator[Answer]:
    offset = 0
    lines = snapshot.lines(shard.first, shard.requests, shard.byte_start)
    with folder.joined(shard.index).open("rb") as file:
        for line, record in zip(lines, file, strict=True):
            result = Result(record)
            place = places.get(result.attempt)
            if place is not None and result.outcome == "succeeded":
                yield Answer(_question(line, job.targets[place]), shard.index, offset, record)
            offset += len(record)


def _held_answers(folder: JobFolder, job: Job) -> Iterator[Answer]:
    """What the job had from earlier jobs, which may be gone by now."""
    if not ReusePlan.exists(folder):
        return
    unsent = Snapshot(folder.unsent)
    fates = (fate for fate in ReusePlan(folder).fates if fate != SENT)
    with HeldRecords(folder) as held:
        for line, fate in zip(unsent.lines(0, unsent.total), fates, strict=True):
            if fate >= ANSWERED:
                offset, _, place = held.place(fate - ANSWERED)
                yield Answer(_question(line, job.targets[place]), HELD, offset, held.record(fate - ANSWERED))


def _question(line: bytes, target: Target) -> bytes:
    body, named = body_digest(line)
    return question(body, answerer(target, named))
