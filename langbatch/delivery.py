"""A job's joined results, as far as they have come: streamed, exported, or as a file of the store's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from langbatch.errors import JobNotFinished, SetupError
from langbatch.folders import JobFolder
from langbatch.lifecycle import SETTLED_JOB_STATES
from langbatch.records import Job, Shard
from langbatch.results import Result, export_csv, export_jsonl, read_results
from langbatch.snapshot import Snapshot

FORMATS = ("jsonl", "csv")


def require_finished(job: Job) -> None:
    """Raise `JobNotFinished` while requests lack a result."""
    if job.state not in SETTLED_JOB_STATES:
        left = job.total - job.tally.total
        raise JobNotFinished(
            f"job {job.id} is {job.state}: {left} of {job.total} requests have no result yet",
            hint=f"Wait (`langbatch watch {job.id}`), or ask for what there is (`--partial`).",
        )


class Delivery:
    """The results of those shards of a job that have any."""

    def __init__(self, home: Path, job: Job, shards: Sequence[Shard]) -> None:
        self._folder = JobFolder.of(home, job.id)
        self._shards = [shard for shard in shards if shard.tally.total]
        self._paths = [self._folder.joined(shard.index) for shard in self._shards]

    def results(self, *, with_request: bool) -> Iterator[Result]:
        return read_results(self._paths, self._requests() if with_request else None)

    def export(self, out: Path | BinaryIO, format: str, *, with_request: bool) -> None:  # noqa: A002
        """Write all of it to a path, whole or not at all, or to an open stream."""
        match format:
            case "jsonl":
                export_jsonl(self._paths, out, self._requests() if with_request else None)
            case "csv":
                export_csv(self.results(with_request=False), out)
            case _:
                raise SetupError(f"unknown format {format!r}", hint=f"Formats: {', '.join(FORMATS)}.")

    def file(self) -> Path:
        """The store's own copy of the joined results, written when first asked for."""
        if not self._folder.results.exists():
            self.export(self._folder.results, "jsonl", with_request=False)
        return self._folder.results

    def _requests(self) -> Iterator[bytes]:
        snapshot = Snapshot(self._folder.path)
        for shard in self._shards:
            yield from snapshot.lines(shard.first, shard.requests, byte_start=shard.byte_start)
