"""Which attempts' creates were sent, noted beside the database: an older copy of it cannot know.

A database that was restored from a backup believes that it never sent what has been paid for since. So each
create leaves an empty file in the job's folder, unless it is certain that no batch was made.
"""

from __future__ import annotations

import filecmp
import os
from collections.abc import Callable, Set
from pathlib import Path

from langbatch.folders import JobFolder
from langbatch.publish import private_folder


def note(folder: JobFolder, shard: int, attempt: int) -> None:
    """An attempt's create is about to be sent."""
    private_folder(folder.sent)
    _path(folder, shard, attempt).touch(mode=0o600)


def forget(folder: JobFolder, shard: int, attempt: int) -> None:
    """Certainly no batch came of it."""
    _path(folder, shard, attempt).unlink(missing_ok=True)


def known(folder: JobFolder, shard: int, attempt: int) -> bool:
    """Whether this attempt of a shard, or a later one, was sent."""
    found = folder.sent.glob(f"{shard:05d}-*")
    return any(int(path.name.rpartition("-")[2]) >= attempt for path in found)


def unknown_twin(home: Path, requests: Path, stored: Set[str], is_known: Callable[[str], bool]) -> str | None:
    """The id of a job of which something was sent, whose requests are the same bytes, and which the database
    does not know: it was lost. `stored` are the jobs that it knew a moment ago: there may be thousands."""
    size = requests.stat().st_size
    folders = home / "jobs"
    for name in sorted({*os.listdir(folders)} - stored):
        if not name.startswith("job_"):
            continue
        theirs = folders / name / requests.name
        try:
            if not (folders / name / "sent").exists() or theirs.stat().st_size != size or is_known(name):
                continue
            if filecmp.cmp(theirs, requests, shallow=False):
                return name
        except FileNotFoundError:
            continue  # purged at this moment
    return None


def _path(folder: JobFolder, shard: int, attempt: int) -> Path:
    return folder.sent / f"{shard:05d}-{attempt}"
