"""A job's joined results, as far as they have come: streamed, exported, or as a file of the store's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, BinaryIO

from langbatch.errors import BatchResultsError, JobNotFinished, SetupError
from langbatch.folders import JobFolder
from langbatch.lifecycle import SETTLED_JOB_STATES
from langbatch.publish import publishing
from langbatch.records import Job, Shard
from langbatch.results.exports import export_csv, export_flat_jsonl, export_jsonl, export_records
from langbatch.results.frames import to_pandas, to_polars
from langbatch.results.parquet import export_parquet, require_parquet
from langbatch.results.result import Result, read_results, results_damaged
from langbatch.results.tables import Table, flat_table, plain_table
from langbatch.reuse.expansion import Expansion, JoinedShard
from langbatch.reuse.parting import all_requests
from langbatch.reuse.plan import ReusePlan
from langbatch.shards.snapshot import Snapshot

FORMATS = ("jsonl", "csv", "parquet")


def format_of(path: Path, chosen: str | None) -> str:
    """The format meant: the one chosen, or what the file's ending says; JSONL where it says nothing.

    Raises `SetupError` for one that there is not, and for Parquet where its library is missing."""
    ending = path.suffix.lower().removeprefix(".")
    found = chosen or {"ndjson": "jsonl", "pq": "parquet"}.get(ending, ending) or "jsonl"
    if found not in FORMATS:
        raise SetupError(f"unknown format {found!r}", hint=f"Formats: {', '.join(FORMATS)}.", code="format")
    if found == "parquet":
        require_parquet()
    return found


def require_finished(job: Job) -> None:
    """Raise `JobNotFinished` while requests lack a result."""
    if job.state not in SETTLED_JOB_STATES:
        left = job.total - job.tally.total
        stuck = job.state in ("paused", "needs_operator")
        way = f"Wait (`langbatch watch {job.id}`)"
        if stuck:
            way = f"`langbatch status {job.id}` tells what it needs"
        raise JobNotFinished(
            f"job {job.id} is {job.state}: {left} of {job.total} requests have no result yet",
            hint=f"{way}, or ask for what there is (`--partial`).",
        )


class Delivery:
    """The results of those shards of a job that have any; of a job that reuses others, all that follow from
    these."""

    def __init__(self, home: Path, job: Job, shards: Sequence[Shard]) -> None:
        self._folder = JobFolder.of(home, job.id)
        self._shards = [shard for shard in shards if shard.tally.total]
        self._paths = [self._folder.joined(shard.index) for shard in self._shards]
        self._settled = all(shard.state == "done" for shard in self._shards)
        self._expansion: Expansion | None = None
        if ReusePlan.exists(self._folder):
            joined = [_joined(self._folder, shard) for shard in shards]
            self._expansion = Expansion(self._folder, joined)

    def results(self, *, with_request: bool) -> Iterator[Result]:
        """In input order. Of a shard that is being retried only the successes: the rest is open again."""
        if self._expansion is not None:
            yield from self._expanded(self._expansion, with_request)
            return
        snapshot = Snapshot(self._folder.path) if with_request else None
        for shard, path in zip(self._shards, self._paths, strict=True):
            lines = snapshot.lines(shard.first, shard.requests, shard.byte_start) if snapshot else None
            found = 0
            for result in read_results(path, lines):
                found += 1
                if shard.state == "done" or result.outcome == "succeeded":
                    yield result
            self._require_whole(found, [shard])

    def _expanded(self, expansion: Expansion, with_request: bool) -> Iterator[Result]:
        asked: Iterable[bytes | None] = repeat(None)
        if with_request:
            requests = all_requests(self._folder)
            asked = requests.lines(0, requests.total)
        for record, line in zip(expansion.records(), asked, strict=False):
            if record is not None:
                yield Result(record, line)

    def export(
        self,
        out: Path | BinaryIO,
        format: str,  # noqa: A002 - the word users write
        *,
        with_request: bool,
        flatten: bool = False,
        replace: bool = True,
    ) -> None:
        """Write all of it to a path, whole or not at all, or to an open stream. `flatten`: a column for each
        part of the answers that are JSON.

        Without `replace`, a path that exists by the end stays as it is: `BatchResultsError`.
        """
        if isinstance(out, Path):
            if not out.parent.is_dir():
                raise BatchResultsError(
                    f"there is no folder {out.parent}", hint="make it first", code="output_no_folder"
                )
            with publishing(out, replace=replace) as sink:
                self.export(sink, format, with_request=with_request, flatten=flatten)
            return
        match format:
            case "jsonl" if flatten:
                table = self._flat(with_request)
                export_flat_jsonl(self.results(with_request=with_request), out, table)
            case "jsonl" if self._settled and self._expansion is None:
                found = export_jsonl(self._paths, out, self._requests() if with_request else None)
                self._require_whole(found, self._shards)
            case "jsonl":
                export_records(self.results(with_request=with_request), out)
            case "csv":
                export_csv(self.results(with_request=False), out, self._flat(False) if flatten else None)
            case "parquet":
                plain = plain_table(with_request=with_request, with_response=True)
                table = self._flat(with_request) if flatten else plain
                export_parquet(self.results(with_request=with_request), out, table)
            case _:
                raise SetupError(f"unknown format {format!r}", hint=f"Formats: {', '.join(FORMATS)}.")

    def to_pandas(self, *, flatten: bool, with_request: bool) -> Any:
        """As a `pandas.DataFrame`; raises `SetupError` where pandas is missing."""
        return to_pandas(self.results(with_request=with_request), self._table(flatten, with_request))

    def to_polars(self, *, flatten: bool, with_request: bool) -> Any:
        """As a `polars.DataFrame`; raises `SetupError` where polars is missing."""
        return to_polars(self.results(with_request=with_request), self._table(flatten, with_request))

    def _table(self, flatten: bool, with_request: bool) -> Table:
        return self._flat(with_request) if flatten else plain_table(with_request=with_request)

    def _flat(self, with_request: bool) -> Table:
        return flat_table(self.results(with_request=False), with_request=with_request)

    def file(self) -> Path:
        """The store's own copy of the joined results, written when first asked for."""
        if not self._folder.results.exists():
            self.export(self._folder.results, "jsonl", with_request=False)
        return self._folder.results

    def _require_whole(self, found: int, shards: Sequence[Shard]) -> None:
        """A joined file takes its name when it is whole; what has fewer records now was damaged since."""
        if found != sum(shard.requests for shard in shards):
            raise results_damaged(self._paths[0].parent)

    def _requests(self) -> Iterator[bytes]:
        snapshot = Snapshot(self._folder.path)
        for shard in self._shards:
            yield from snapshot.lines(shard.first, shard.requests, byte_start=shard.byte_start)


def _joined(folder: JobFolder, shard: Shard) -> JoinedShard:
    path = folder.joined(shard.index) if shard.tally.total else None
    return JoinedShard(shard.first, shard.requests, path, shard.state == "done")
