"""Fetch an ended batch's files and join them to the shard's requests. Every step may be repeated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from langbatch.errors import BatchResultsError
from langbatch.folders import JobFolder, Part
from langbatch.providers.base import Provider
from langbatch.publish import TEMPORARY_PREFIX, private_folder, publishing, take_place
from langbatch.records import OnProgress, Outcome, Progress, RemoteBatch, ShardView, Tally
from langbatch.results.join import AttemptPieces, JoinReport, Piece, Verdict, join_shard
from langbatch.results.pieces import MAX_ROW_BYTES
from langbatch.reuse.expansion import with_copies
from langbatch.reuse.plan import copies_of
from langbatch.running import decisions as d
from langbatch.running.space import require_room
from langbatch.shards.snapshot import Snapshot

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from langbatch.store.store import JobStore

_PARTS: tuple[Part, ...] = ("output", "error")


@dataclass(frozen=True, slots=True)
class Harvester:
    home: Path
    store: JobStore
    on_progress: OnProgress | None = None
    executor: Executor | None = None

    def fetch(self, view: ShardView, provider: Provider) -> d.HarvestDoubt | None:
        """Download both files of the newest attempt, each published whole by a rename.

        A piece that is there was complete when it was published and is not fetched again.
        """
        attempt = view.attempt
        assert attempt is not None
        # Answers are seldom longer than questions; the pieces are kept beside the joined records.
        require_room(self.home, 2 * view.shard.bytes, "fetching these results")
        folder = JobFolder.of(self.home, view.job.id)
        rows: dict[Part, int | None] = {"output": None, "error": None}
        for part, file_id in zip(_PARTS, (attempt.output_file_id, attempt.error_file_id), strict=True):
            if file_id is None:
                continue
            path = folder.piece(view.shard.index, attempt.number, part)
            if not path.exists():
                private_folder(path.parent)

                def tell(done: int, total: int | None, part: Part = part) -> None:
                    if self.on_progress is not None:
                        self.on_progress(Progress("download", done, total, "bytes", part))

                try:
                    with publishing(path, replace=False) as sink:
                        provider.download(file_id, sink, tell)
                except BatchResultsError as error:
                    if error.code != "output_exists":
                        raise
                    # We were frozen, and another process has fetched it meanwhile: its copy may be in use.
            rows[part] = count_rows(path)
        batch = RemoteBatch(
            id=attempt.batch_id or "",
            status=attempt.batch_status or "",
            output_file_id=attempt.output_file_id,
            error_file_id=attempt.error_file_id,
            counts=attempt.batch_counts,
        )
        return d.doubt_harvest(batch, rows["output"], rows["error"], attempt.requests)

    def forget(self, view: ShardView) -> None:
        """Drop the newest attempt's pieces, to fetch them again."""
        assert view.attempt is not None
        folder = JobFolder.of(self.home, view.job.id)
        for part in _PARTS:
            folder.piece(view.shard.index, view.attempt.number, part).unlink(missing_ok=True)

    def tally(self, view: ShardView, report: JoinReport) -> Tally:
        """What the shard brings its job: a result for each of its requests, and for each of their copies."""
        shard = view.shard
        copies = copies_of(JobFolder.of(self.home, view.job.id), shard.first, shard.requests)
        if copies is None:
            return report.tally
        return with_copies(report.tally, report.unsuccessful, shard.first, copies)

    @contextmanager
    def joined(
        self, view: ShardView, *, silence: tuple[Outcome, str, str] | None = None
    ) -> Iterator[tuple[JoinReport, Callable[[], None]]]:
        """The shard's records from the pieces of all its attempts: their sums, and what puts them in place.

        Until then they lie beside it under a name of their own, and go away with the block. `silence`:
        what requests without any row end with, for an attempt that never had a batch.
        """
        folder = JobFolder.of(self.home, view.job.id)
        shard = view.shard
        attempts = [
            AttemptPieces(
                item.number,
                tuple(
                    Piece(item.number, path, part)
                    for part in _PARTS
                    if (path := folder.piece(shard.index, item.number, part)).exists()
                ),
                Verdict(item.number, *d.silence_of(item.batch_status, item.fault_code, item.fault_message)),
            )
            for item in self.store.attempts(shard.job, shard.index)
            if item.batch_id is not None and item.ended_as not in ("quota_bounced", "no_batch")
        ]
        if silence is not None:
            attempts.append(AttemptPieces(shard.attempt, (), Verdict(shard.attempt, *silence)))
        snapshot = Snapshot(folder.path)

        def tell(done: int, total: int | None) -> None:
            if self.on_progress is not None:
                self.on_progress(Progress("join", done, total, "requests"))

        places = {
            path: path.with_name(f"{TEMPORARY_PREFIX}{shard.fence}-{path.name}")
            for path in (folder.joined(shard.index), folder.quarantined(shard.index))
        }
        for path in places:
            private_folder(path.parent)
        records, quarantined = places.values()

        def put_in_place() -> None:
            for path, staged in places.items():
                take_place(staged, path)

        try:
            with publishing(records) as out, publishing(quarantined) as quarantine:
                report = join_shard(
                    snapshot.ids(shard.first, shard.requests),
                    snapshot.line_numbers(shard.first, shard.requests),
                    shard.first,
                    attempts,
                    out,
                    quarantine,
                    on_progress=tell,
                    executor=self.executor,
                )
            yield report, put_in_place
        finally:
            for staged in places.values():
                staged.unlink(missing_ok=True)


def count_rows(path: Path) -> int:
    """Whole rows of a file, split on `\\n` bytes only. A last one without newline counts if it is whole: some
    services leave that newline out, and a body cut short looks the same from outside."""
    rows = whole_bytes = seen_bytes = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            rows += block.count(b"\n")
            last = block.rfind(b"\n")
            whole_bytes = seen_bytes + last + 1 if last >= 0 else whole_bytes
            seen_bytes += len(block)
        if seen_bytes - whole_bytes > MAX_ROW_BYTES:
            return rows
        file.seek(whole_bytes)
        return rows + _is_whole(file.read())


def _is_whole(row: bytes) -> bool:
    try:
        msgspec.json.decode(row, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
