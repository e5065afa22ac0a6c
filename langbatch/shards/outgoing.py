"""What one attempt uploads: the shard's lines with the target's edits, under a name of its own."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langbatch.folders import JobFolder
from langbatch.publish import private_folder
from langbatch.records import OnProgress, Progress, ShardView
from langbatch.requests.validation import edit_line
from langbatch.shards.names import AttemptName, Extent
from langbatch.shards.payload import write_payload
from langbatch.shards.snapshot import Snapshot
from langbatch.targets import sent_url

if TYPE_CHECKING:
    from langbatch.store.store import JobStore


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A payload on disk, ready to be sent as `name`."""

    path: Path
    name: str
    requests: int
    bytes: int


def prepare_payload(store: JobStore, home: Path, view: ShardView, number: int, place: int = 0) -> Outgoing:
    """Write the attempt's payload for the target at `place`; a retry sends only what has no success yet.

    The name is unique to store, job, shard, attempt and bytes, so `input_file_id` and name both point
    to this attempt and no other.
    """
    shard, job = view.shard, view.job
    target = job.targets[place]
    folder = JobFolder.of(home, job.id)
    snapshot = Snapshot(folder.path)
    failed = store.unsuccessful(job.key, shard.first, shard.requests)
    wanted = {item.ordinal - shard.first for item in failed} if failed else None
    path = folder.outgoing(shard.index, number)
    private_folder(path.parent)
    payload = write_payload(
        snapshot.lines(shard.first, shard.requests, byte_start=shard.byte_start),
        path,
        model=target.model,
        url=sent_url(target),
        edit=edit_line,
        ordinals=wanted,
    )
    name = AttemptName(
        store.store_id,
        job.id,
        shard.index,
        number,
        payload.sha256[:8],
        Extent(shard.first, shard.requests),
        len(job.targets),
    )
    return Outgoing(payload.path, str(name), payload.requests, payload.bytes)


class _Told(io.BufferedReader):
    """A real file (the SDK asks its length by `fileno`) that tells how far it has been read."""

    def __init__(self, raw: io.FileIO, on_bytes: Any) -> None:
        super().__init__(raw)
        self._on_bytes = on_bytes

    def read(self, size: int | None = -1, /) -> bytes:
        block = super().read(size)
        self._on_bytes(self.tell())
        return block


@contextmanager
def with_progress(outgoing: Outgoing, on_progress: OnProgress | None) -> Iterator[io.BufferedReader]:
    """Open a payload for sending; `on_progress` hears of bytes read by the sender."""

    def tell(done: int) -> None:
        if on_progress is not None:
            on_progress(Progress("upload", done, outgoing.bytes, "bytes", outgoing.name))

    with _Told(io.FileIO(outgoing.path), tell) as stream:
        yield stream
