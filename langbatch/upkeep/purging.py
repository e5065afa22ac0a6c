"""Deleting a job, with its prompts and results, here and at its services."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from langbatch.errors import BatchStateError, LangBatchError, RemoteNotFound
from langbatch.folders import JobFolder
from langbatch.providers.base import Provider
from langbatch.records import Job
from langbatch.reuse.cache import forget_job
from langbatch.running import journal
from langbatch.store.purged import Owed, purge, purged
from langbatch.store.store import JobStore


def require_stopped(store: JobStore, job: Job) -> None:
    """`BatchStateError` while a batch runs, or may run, of which nobody would know once it is purged."""
    for shard, attempt in store.shards(job.key):
        cancelled = attempt is not None and attempt.cancel_sent_at is not None
        in_doubt = shard.state in ("creating", "uncertain", "fencing")
        if in_doubt or (shard.state == "active" and not cancelled):
            raise BatchStateError(
                f"shard {shard.index} of job {job.id} cannot be cancelled yet: "
                f"{shard.attention or 'another process is working on it'}",
                hint=f"Nothing was purged. `langbatch resume {job.id} --wait` cancels it; then purge it.",
            )


def purge_job(
    store: JobStore, home: Path, job: Job, open_provider: Callable[[Job, int], Provider]
) -> tuple[str, ...]:
    """Delete all there is of a job that has ended or was stopped. The ids of files that could not be deleted
    at the services: `gc` does that later.

    A crash before the rows are gone leaves the job as it was, but for its remote files; one after it a folder
    of which it is known that it goes, too.
    """
    owed = delete_remote_files(store, job, open_provider)
    purge(store, job.key, job.id, owed)
    _delete_here(home, job.id)
    return tuple(file_id for _, ids in owed for file_id in ids)


def finish_purge(store: JobStore, home: Path, id_or_prefix: str) -> bool:
    """Delete the folder of a job whose purge was cut short; whether there was one."""
    found = [
        job_id
        for job_id in purged(store)
        if job_id.startswith(id_or_prefix.strip()) and JobFolder.of(home, job_id).path.exists()
    ]
    if len(found) != 1 or not id_or_prefix.strip():
        return False
    _delete_here(home, found[0])
    return True


def delete_remote_files(store: JobStore, job: Job, open_provider: Callable[[Job, int], Provider]) -> Owed:
    """Delete what the job's attempts have at their services; what could not be, by target."""
    left: dict[int, list[str]] = {}
    for shard, _ in store.shards(job.key):
        for attempt in store.attempts(job.key, shard.index):
            for file_id in (attempt.file_id, attempt.output_file_id, attempt.error_file_id):
                if file_id is None:
                    continue
                try:
                    open_provider(job, attempt.target).delete_file(file_id)
                except RemoteNotFound:
                    pass  # expired, or deleted by somebody else
                except LangBatchError:
                    left.setdefault(attempt.target, []).append(file_id)
    return [(job.targets[place], ids) for place, ids in left.items()]


def _delete_here(home: Path, job_id: str) -> None:
    journal.forget_job(home, job_id)
    shutil.rmtree(JobFolder.of(home, job_id).path, ignore_errors=True)
    forget_job(home, job_id)
