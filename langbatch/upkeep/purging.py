"""Deleting a job, with its prompts and results, here and at its services."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from langbatch.errors import BatchStateError, ProviderError, SetupError
from langbatch.folders import JobFolder
from langbatch.providers.base import Provider
from langbatch.records import Job
from langbatch.reuse.cache import forget_job
from langbatch.running import journal
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


def purge_job(store: JobStore, home: Path, job: Job, open_provider: Callable[[Job, int], Provider]) -> None:
    """Delete all there is of a job that has ended or was stopped; its remote files as far as they can be."""
    delete_remote_files(store, job, open_provider)
    store.purge(job.key)
    journal.forget_job(home, job.id)
    shutil.rmtree(JobFolder.of(home, job.id).path, ignore_errors=True)
    forget_job(home, job.id)


def delete_remote_files(store: JobStore, job: Job, open_provider: Callable[[Job, int], Provider]) -> None:
    """Delete what the job's attempts have at their services, where these can be reached."""
    for shard, _ in store.shards(job.key):
        for attempt in store.attempts(job.key, shard.index):
            for file_id in (attempt.file_id, attempt.output_file_id, attempt.error_file_id):
                if file_id is not None:
                    with suppress(SetupError, ProviderError):
                        open_provider(job, attempt.target).delete_file(file_id)
