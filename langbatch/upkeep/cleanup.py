"""What finished jobs and dead processes leave behind: files at the service, and leftovers in the home.

Nothing is deleted at a service that is not certainly ours: its id is stored with an attempt, or its name
begins with this store's own id. Nothing is deleted here that a later run could need.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from langbatch.clock import Clock
from langbatch.config.resolving import reopen_target
from langbatch.errors import LangBatchError, RemoteNotFound
from langbatch.folders import JobFolder
from langbatch.providers import open_provider
from langbatch.providers.base import Provider
from langbatch.publish import TEMPORARY_PREFIX
from langbatch.records import FilePage, Job, RemoteFile
from langbatch.reuse.cache import cache_folder
from langbatch.running import sent
from langbatch.running.reconcile import walk_files
from langbatch.shards.names import AttemptName, read_name

if TYPE_CHECKING:
    from langbatch.store.remote_files import AttemptFiles
    from langbatch.store.store import JobStore

#: A file of ours that no attempt knows may belong to an upload still under way; a day later it does not.
ORPHAN_SECONDS = 86_400.0
#: A process that works on files here touches them more often than this.
LEFT_BEHIND_SECONDS = 3_600.0
#: Spooled inputs may wait for a person to type `start()`.
SPOOLED_SECONDS = 86_400.0

#: How an attempt ended after which its input file is of no use, whatever becomes of its shard. Not
#: `resubmitted`: its batch may still be reading.
_INPUT_IS_SPENT = frozenset(
    {
        "harvested",
        "refused",
        "quota_bounced",
        "cancelled_unsent",
        "upload_lost",
        "file_unusable",
        "no_batch",
    }
)
_OUTGOING = re.compile(r"(\d{5,})-(\d+)\.jsonl")


@dataclass(frozen=True, slots=True)
class Cleanup:
    """What was deleted: ids of files at services, and paths here. `kept` counts files of ours, still in use,
    that stay at the services. `errors` are those of endpoints that could not be tidied."""

    deleted: tuple[str, ...] = ()
    kept: int = 0
    swept: tuple[Path, ...] = ()
    errors: tuple[LangBatchError, ...] = ()


# ---------------------------------------------------------------- at the service


def spent_files(item: AttemptFiles, has_results: bool) -> Iterator[str]:
    """Ids of an attempt's files that nobody needs any more. `has_results`: the shard's joined results are
    here; else the service may hold the only copy of what was paid for."""
    done = item.shard_state == "done"
    if item.file_id is not None and (done or item.ended_as in _INPUT_IS_SPENT):
        yield item.file_id
    if done and item.ended_as == "harvested" and has_results:
        yield from (file_id for file_id in (item.output_file_id, item.error_file_id) if file_id)


def stray_files(
    listed: Iterable[RemoteFile],
    known: Iterable[AttemptFiles],
    store_id: str,
    service_now: float,
    left: Collection[str] = (),
    was_sent: Callable[[AttemptName], bool] = lambda _: False,
) -> Iterator[str]:
    """Ids of listed files of this store that belong to no attempt, or to one that ended before it knew its
    file's id: uploads whose reply was lost, and jobs that were purged. `left`: ids of jobs that are still to
    be recovered; their batches may be reading, and their requests may be nowhere else. `was_sent`: whether
    a batch may be reading the file of an attempt that the database, an older copy, does not know."""
    by_name = {item.name: item for item in known}
    for file in listed:
        name = file.filename or ""
        if not name.startswith(f"lb-{store_id}-"):
            continue
        item = by_name.get(name)
        if item is not None and item.file_id == file.id:
            continue  # judged as its attempt's
        if item is not None and item.file_id is None and item.ended_as not in _INPUT_IS_SPENT:
            continue  # its upload is being looked for
        parts = read_name(name)
        if parts is not None and (parts.job_id in left or (item is None and was_sent(parts))):
            continue
        if file.created_at is not None and file.created_at < service_now - ORPHAN_SECONDS:
            yield file.id


@dataclass(frozen=True, slots=True)
class Sweeper:
    """Tidies one store. `open_provider` is asked once for each endpoint that has jobs."""

    store: JobStore
    home: Path
    open_provider: Callable[[Job, int], Provider]
    clock: Clock
    dry_run: bool = False

    def sweep(self) -> Cleanup:
        """Delete what is left over, at every endpoint and here. One endpoint's trouble holds up no other."""
        deleted: list[str] = []
        errors: list[LangBatchError] = []
        kept = 0
        endpoints: dict[tuple[str, str], tuple[Job, int]] = {}
        for job in self.store.jobs():
            for place, target in enumerate(job.targets):
                endpoints[target.provider, target.host] = job, place  # the newest has today's settings
        for (name, host), (job, place) in endpoints.items():
            try:
                kept += self._tidy_endpoint(name, host, self.open_provider(job, place), deleted)
            except LangBatchError as error:
                errors.append(error)
        self._delete_owed(endpoints, deleted, errors)
        return Cleanup(tuple(deleted), kept, tuple(self._sweep_home()), tuple(errors))

    def _delete_owed(
        self,
        endpoints: Mapping[tuple[str, str], tuple[Job, int]],
        deleted: list[str],
        errors: list[LangBatchError],
    ) -> None:
        """Files of purged jobs that could not be deleted then."""
        from langbatch.store.purged import purged, settle

        gone = set(deleted)
        for job_id, owed in purged(self.store).items():
            left = []
            for target, ids in owed:
                known = endpoints.get((target.provider, target.host))
                try:
                    with ExitStack() as closing:
                        if known is not None:
                            provider = self.open_provider(*known)
                        else:
                            provider = open_provider(target, reopen_target(target))
                            closing.callback(provider.close)
                        for file_id in ids:
                            self._delete(provider, file_id, deleted, gone)
                except LangBatchError as error:
                    left.append((target, [file_id for file_id in ids if file_id not in gone]))
                    if not any(str(error) == str(other) for other in errors):
                        errors.append(error)
            if owed and not self.dry_run:
                settle(self.store, job_id, left)

    def _tidy_endpoint(self, name: str, host: str, provider: Provider, deleted: list[str]) -> int:
        from langbatch.store.left_behind import left_behind
        from langbatch.store.remote_files import attempt_files, mark_gone

        known = attempt_files(self.store, name, host)
        service_now = self.clock.now()

        def list_files(after: str | None) -> FilePage:
            nonlocal service_now
            page = provider.list_files(after)
            service_now = page.server_time or service_now
            return page

        listed, _ = walk_files(list_files)
        gone: set[str] = set()
        tidied: list[AttemptFiles] = []
        try:
            for item in known:
                if item.gone:
                    continue
                spent = list(spent_files(item, self._has_results(item)))
                for file_id in spent:
                    self._delete(provider, file_id, deleted, gone)
                ids = {
                    file_id for file_id in (item.file_id, item.output_file_id, item.error_file_id) if file_id
                }
                if ids == set(spent) and item.shard_state == "done":
                    tidied.append(item)
            left = left_behind(self.store)
            stray = stray_files(listed, known, self.store.store_id, service_now, left, self._was_sent)
            for file_id in stray:
                self._delete(provider, file_id, deleted, gone)
        finally:
            if not self.dry_run:
                mark_gone(self.store, tidied)
        own = {item.file_id for item in known}
        prefix = f"lb-{self.store.store_id}-"
        ours = [f for f in listed if f.id in own or (f.filename or "").startswith(prefix)]
        return sum(file.id not in gone for file in ours)

    def _delete(self, provider: Provider, file_id: str, deleted: list[str], gone: set[str]) -> None:
        if file_id in gone:
            return
        if not self.dry_run:
            try:
                provider.delete_file(file_id)
            except RemoteNotFound:
                gone.add(file_id)  # expired, or deleted by somebody else
                return
        gone.add(file_id)
        deleted.append(file_id)

    def _was_sent(self, name: AttemptName) -> bool:
        return sent.known(JobFolder.of(self.home, name.job_id), name.shard, name.number)

    def _has_results(self, item: AttemptFiles) -> bool:
        return JobFolder.of(self.home, item.job_id).joined(item.shard).exists()

    # ------------------------------------------------------------ here

    def _sweep_home(self) -> Iterator[Path]:
        from langbatch.store.purged import purged

        jobs = {job.id: job for job in self.store.jobs()}
        given_up = purged(self.store).keys() - jobs.keys()
        for folder in sorted((self.home / "jobs").glob("*")):
            if folder.name.startswith(".new-"):
                if self._untouched(folder, LEFT_BEHIND_SECONDS):
                    yield self._remove(folder)
            elif folder.name in given_up:
                yield self._remove(folder)  # its purge was cut short
            elif folder.name in jobs:
                yield from self._sweep_outgoing(jobs[folder.name])
            elif self._is_unborn(folder) and self._untouched(folder, LEFT_BEHIND_SECONDS):
                yield self._remove(folder)
        for path in sorted(self.home.rglob(f"{TEMPORARY_PREFIX}*")):
            if self._untouched(path, LEFT_BEHIND_SECONDS):
                yield self._remove(path)
        for path in sorted(cache_folder(self.home).glob("*.idx")):
            if path.stem not in jobs:
                yield self._remove(path)
        for path in sorted((self.home / "created").glob("*")):
            if self._untouched(path, SPOOLED_SECONDS):
                yield self._remove(path)

    @staticmethod
    def _is_unborn(folder: Path) -> bool:
        """Left between the snapshot's rename and the job's row. A folder with more in it once had a row:
        its database was lost, and `recover` will want it."""
        made = JobFolder(folder).unsent
        return folder.name.startswith("job_") and all(
            entry.is_file() or entry == made for entry in folder.iterdir()
        )

    def _sweep_outgoing(self, job: Job) -> Iterator[Path]:
        """Payloads that have arrived, or whose attempt is over."""
        folder = JobFolder.of(self.home, job.id).path / "outgoing"
        for path in sorted(folder.glob("*.jsonl")):
            match = _OUTGOING.fullmatch(path.name)
            if match is None:
                continue
            shard, number = int(match[1]), int(match[2])
            for attempt in self.store.attempts(job.key, shard):
                if attempt.number == number and (attempt.ended_at is not None or attempt.file_id is not None):
                    yield self._remove(path)

    def _untouched(self, path: Path, seconds: float) -> bool:
        try:
            entries = [path, *path.rglob("*")] if path.is_dir() else [path]
            newest = max(entry.lstat().st_mtime for entry in entries)
        except FileNotFoundError:
            return False  # its owner lives, and has just moved it
        return newest < self.clock.now() - seconds

    def _remove(self, path: Path) -> Path:
        if not self.dry_run:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        return path
