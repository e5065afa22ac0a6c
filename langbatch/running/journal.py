"""Where a batch's id goes when the database cannot take it: a file beside it, on disk before we go on.

Without it the batch would still be found by listing; with it, it is known at once, and also where the
service's list is of no use.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from langbatch import failpoints
from langbatch.publish import publishing, sync_folder

if TYPE_CHECKING:
    from langbatch.store.store import JobStore

NAME = "journal.jsonl"
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def append(home: Path, *, job: int, shard: int, attempt: int, batch_id: str) -> None:
    """Write one created batch down, and have it on disk when this returns."""
    entry = {"job": job, "shard": shard, "attempt": attempt, "batch_id": batch_id}
    with _alone(home):
        descriptor = os.open(home / NAME, _FLAGS | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, json.dumps(entry).encode() + b"\n")
            with failpoints.around("fsync"):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_folder(home)


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """One process at a time, so that no entry is written between another's reading and its tidying up."""
    descriptor = os.open(home / f"{NAME}.lock", _FLAGS, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def replay(store: JobStore, home: Path) -> None:
    """Bring what was written down into the database; entries of shards that others hold stay for later."""
    path = home / NAME
    if not path.exists():
        return
    with _alone(home):
        try:
            lines = path.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return
        left = [line for line in lines if not _enter(store, line)]
        if left:
            with publishing(path) as out:
                out.writelines(left)
        else:
            path.unlink(missing_ok=True)


def _enter(store: JobStore, line: bytes) -> bool:
    """Whether an entry is dealt with. A last line cut off by a crash never became an entry."""
    try:
        entry = json.loads(line)
        job, index, batch_id = entry["job"], entry["shard"], entry["batch_id"]
    except (ValueError, KeyError, TypeError):
        return True
    claim = store.claim(job, index)
    if claim is None:
        return not store.has_shard(job, index)
    try:
        view = store.view(job, index)
        facts = {"batch_id": batch_id, "batch_status": "validating"}
        if view.attempt is None or view.attempt.number != entry["attempt"] or view.attempt.batch_id:
            return True
        if view.shard.state == "creating":
            store.move(claim, "creating", "create_answered", attempt=facts, note=batch_id)
        elif view.shard.state in ("uncertain", "fencing"):
            store.move(claim, view.shard.state, "batch_found", attempt=facts, note=batch_id)
        return True
    finally:
        store.release(claim)
