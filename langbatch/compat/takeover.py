"""A batch that LangBatch itself started goes on as a job of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langbatch.clock import SystemClock
from langbatch.errors import BatchStateError
from langbatch.folders import JobFolder
from langbatch.providers import open_provider
from langbatch.records import Attempt, BatchCounts
from langbatch.shards.sharding import ShardPlan
from langbatch.shards.snapshot import Snapshot

if TYPE_CHECKING:
    from langbatch.handles import Batch
    from langbatch.manager import JobManager


def take_over(batch: Batch, batch_id: str, manager: JobManager) -> None:
    """Store the handle's requests as a job whose batch is `batch_id`. Nothing is sent.

    The same requests taken over before, or a job that they have here already, are used as they are. Raises
    `ProviderError` where the batch cannot be read, `BatchStateError` where it has other requests.
    """
    from langbatch.store.restoring import give_batch

    provider = open_provider(batch._target, batch._credentials)
    try:
        remote = provider.get_batch(batch_id)
    finally:
        provider.close()
    # Whatever the handle would not send: the provider's batch has it.
    if not batch._stored:
        batch._store(draft=True)
    job = manager._store.find(batch.id)
    snapshot = Snapshot(JobFolder.of(manager.home, job.id).path)
    counts = remote.counts or BatchCounts()
    if counts.total not in (0, snapshot.total):
        raise BatchStateError(
            f"batch {batch_id} has {counts.total} requests, but {snapshot.total} were saved for it",
            hint="Save them under the right id.",
        )
    size = sum(snapshot.lengths(0, snapshot.total))
    now = SystemClock().now()
    attempt = Attempt(
        job=job.key,
        shard=0,
        number=1,
        name=f"taken-over-{job.id}",
        requests=snapshot.total,
        opened_at=now if remote.created_at is None else remote.created_at,
        file_id=remote.input_file_id,
        batch_id=remote.id,
        batch_status=remote.status,
        batch_counts=counts,
        output_file_id=remote.output_file_id,
        error_file_id=remote.error_file_id,
    )
    first_line = snapshot.line_numbers(0, 1)[0]
    give_batch(manager._store, job.key, ShardPlan(0, 0, snapshot.total, 0, size), first_line, attempt)
