"""Batches kept in a `BatchStorage`: put there, and found again, LangBatch's own included."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from langbatch.errors import BatchStateError, BatchStorageError, JobNotFound
from langbatch.folders import JobFolder
from langbatch.publish import publishing
from langbatch.reuse.parting import all_requests
from langbatch.reuse.plan import ReusePlan
from langbatch.shards.snapshot import REQUESTS

if TYPE_CHECKING:
    from langbatch.compat.storages import BatchStorage
    from langbatch.handles import Batch
    from langbatch.manager import JobManager

B = TypeVar("B", bound="Batch")


def keep_in(storage: BatchStorage, batch: Batch, manager: JobManager) -> None:
    """Put a stored job's requests and LangBatch's meta data into `storage`, under the job's id."""
    shards = manager.status(batch.id, offline=True).shards
    meta = {
        "platform_batch_id": shards[0].batch_id if shards else None,
        "job": batch.id,
        "shards": len(shards),
    }
    folder = JobFolder.of(manager.home, batch.id)
    if not ReusePlan.exists(folder):
        storage.save(batch.id, folder.path / REQUESTS, meta)
        return
    whole = folder.path / "whole.jsonl"
    try:
        requests = all_requests(folder)
        with publishing(whole) as out:
            out.writelines(requests.lines(0, requests.total))
        storage.save(batch.id, whole, meta)
    finally:
        whole.unlink(missing_ok=True)


def open_saved(
    cls: type[B],
    id: str,  # noqa: A002 - LangBatch's word
    storage: BatchStorage,
    manager: JobManager,
    arguments: Mapping[str, Any],
) -> B:
    """The handle of a batch that is in `storage` and, under this id, not in the manager's store.

    One that was never started is a new handle, with an id of ours. One that LangBatch started becomes a
    job that watches the provider's batch; nothing is sent. Raises `BatchStorageError` for an unknown id,
    `ProviderError` where the provider's batch cannot be read, and what the constructor raises.
    """
    data_file, meta_file = storage.load(id)
    meta = _read(Path(meta_file), id)
    known = meta.get("job")
    if isinstance(known, str):
        try:
            manager.target_of(known)
        except JobNotFound:
            pass  # saved by another store
        else:
            return cls.load(known, batch_kwargs=arguments, manager=manager)
    batch = cls(data_file, manager=manager, **arguments)
    remote = meta.get("platform_batch_id")
    if remote is None:
        return batch
    if meta.get("shards", 1) != 1:
        raise BatchStateError(
            f"batch {id} was sent in {meta['shards']} parts by another store",
            hint="Load it where that store is (LANGBATCH_HOME).",
        )
    from langbatch.compat.takeover import take_over

    take_over(batch, str(remote), manager)
    return batch


def _read(meta_file: Path, id: str) -> dict[str, Any]:  # noqa: A002
    if meta_file.suffix == ".pkl":
        raise BatchStorageError(
            f"batch {id} was saved as a pickle, which would run code when it is read",
            hint="Only batches of other providers were saved so.",
        )
    try:
        meta = json.loads(meta_file.read_bytes())
    except (OSError, ValueError) as error:
        raise BatchStorageError(f"the meta data of batch {id} cannot be read") from error
    if not isinstance(meta, dict):
        raise BatchStorageError(f"the meta data of batch {id} is not an object")
    return meta
