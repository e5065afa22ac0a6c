"""Where a batch's id goes when the database cannot take it: a file beside it, on disk before we go on.

Without it the batch would still be found by listing; with it, it is known at once, and also where the
service's list is of no use. Each entry is a file of its own, so that nobody needs a lock: whoever held
one and stood still (a stopped process) would keep all others out of the store.

An entry names its attempt as the upload did, so that it cannot be taken for another job's in a database that
was made anew.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from langbatch.lifecycle import Move
from langbatch.publish import private_folder, publishing, sync_folder
from langbatch.records import ShardState
from langbatch.shards.names import read_name

if TYPE_CHECKING:
    from langbatch.records import Attempt
    from langbatch.store.store import JobStore

NAME = "journal"

_MOVES: Mapping[ShardState, Move] = {
    "creating": "create_answered",
    "uncertain": "batch_found",
    "fencing": "batch_found",
    "needs_operator": "batch_found",
}

#: Stops a batch whose attempt was given up before its id was known; whether nobody need know of it any more.
Stop = Callable[["Attempt", str], bool]


def append(home: Path, *, attempt: str, batch_id: str) -> None:
    """Write the batch of the attempt with this name down, and have it on disk when this returns."""
    folder = private_folder(home / NAME)
    with publishing(folder / f"{secrets.token_hex(8)}.json") as out:
        out.write(json.dumps({"attempt": attempt, "batch_id": batch_id}).encode())
    sync_folder(home)


def replay(store: JobStore, home: Path, stop: Stop | None = None) -> None:
    """Bring what was written down into the database. Entries of shards that others hold stay for later, and
    those of jobs that are not here: `recover` may bring them back."""
    for path, name, batch_id in _entries(home):
        if _enter(store, name, batch_id, stop):
            path.unlink(missing_ok=True)


def forget_job(home: Path, job_id: str) -> None:
    """Drop what was written down for a job that is purged."""
    for path, name, _ in _entries(home):
        parts = read_name(name)
        if parts is not None and parts.job_id == job_id:
            path.unlink(missing_ok=True)


def _entries(home: Path) -> list[tuple[Path, str, str]]:
    """Each entry's file, attempt and batch. What cannot be read never was an entry, and is dropped."""
    found = []
    for path in sorted((home / NAME).glob("*.json")):
        try:
            entry = json.loads(path.read_bytes())
            found.append((path, str(entry["attempt"]), str(entry["batch_id"])))
        except FileNotFoundError:
            continue  # another process was faster
        except (ValueError, KeyError, TypeError):
            path.unlink(missing_ok=True)
    return found


def _enter(store: JobStore, name: str, batch_id: str, stop: Stop | None) -> bool:
    """Whether an entry is dealt with."""
    from langbatch.store.transitions import LostClaim

    attempt = store.attempt_named(name)
    if attempt is None:
        return False
    claim = store.claim(attempt.job, attempt.shard)
    if claim is None:
        return False
    try:
        view = store.view(attempt.job, attempt.shard)
        newest = view.attempt
        if newest is None or newest.number != attempt.number or newest.ended_at is not None:
            given_up = attempt.batch_id != batch_id
        else:
            given_up = newest.batch_id not in (None, batch_id)
            attempt = newest
        if given_up:
            return stop is not None and stop(attempt, batch_id)
        if attempt.batch_id is not None:
            return True
        move = _MOVES.get(view.shard.state)
        if move is not None:
            facts = {"batch_id": batch_id, "batch_status": "validating"}
            store.move(claim, view.shard.state, move, attempt=facts, note=batch_id)
        return move is not None
    except LostClaim:
        return False  # we were frozen, and another process took the shard over
    finally:
        store.release(claim)
