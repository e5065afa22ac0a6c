"""Where a batch's id goes when the database cannot take it: a file beside it, on disk before we go on.

Without it the batch would still be found by listing; with it, it is known at once, and also where the
service's list is of no use. Each entry is a file of its own, so that nobody needs a lock: whoever held
one and stood still (a stopped process) would keep all others out of the store.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from langbatch.publish import private_folder, publishing, sync_folder

if TYPE_CHECKING:
    from langbatch.store.store import JobStore

NAME = "journal"


def append(home: Path, *, job: int, shard: int, attempt: int, batch_id: str) -> None:
    """Write one created batch down, and have it on disk when this returns."""
    entry = {"job": job, "shard": shard, "attempt": attempt, "batch_id": batch_id}
    folder = private_folder(home / NAME)
    with publishing(folder / f"{job}-{shard}-{attempt}-{secrets.token_hex(4)}.json") as out:
        out.write(json.dumps(entry).encode())
    sync_folder(home)


def replay(store: JobStore, home: Path) -> None:
    """Bring what was written down into the database; entries of shards that others hold stay for later."""
    for path in sorted((home / NAME).glob("*.json")):
        try:
            entry = path.read_bytes()
        except FileNotFoundError:
            continue  # another process was faster
        if _enter(store, entry):
            path.unlink(missing_ok=True)


def _enter(store: JobStore, written: bytes) -> bool:
    """Whether an entry is dealt with. What cannot be read never was one."""
    from langbatch.store.transitions import LostClaim

    try:
        entry = json.loads(written)
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
    except LostClaim:
        return False  # we were frozen, and another process took the shard over
    finally:
        store.release(claim)
