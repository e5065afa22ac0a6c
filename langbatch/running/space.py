"""Room on the disk, asked for before money is spent, and disks that a database must not be put on."""

from __future__ import annotations

import shutil
from pathlib import Path

from langbatch.errors import BatchStorageError

#: Kept free for the database, its log and the results of other jobs.
RESERVE_BYTES = 32 << 20

#: File systems whose locks SQLite cannot trust (https://sqlite.org/faq.html#q5).
NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ncpfs", "fuse.sshfs", "fuse.glusterfs", "glusterfs"}
)


def require_room(folder: Path, needed_bytes: int, purpose: str) -> None:
    """Raise `BatchStorageError` unless `folder`'s disk has room for so much, and a reserve."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes + RESERVE_BYTES:
        raise BatchStorageError(
            f"the disk of {folder} has {free / 1e6:,.0f} MB left, {purpose} takes about "
            f"{(needed_bytes + RESERVE_BYTES) / 1e6:,.0f} MB",
            hint="Free some space, or set LANGBATCH_HOME to another disk, and run the same command again.",
            code="disk_full",
        )


def file_system_of(folder: Path, mounts: str) -> str | None:
    """The type of the file system that `folder` is on, by a table like `/proc/mounts`."""
    best, found = -1, None
    for row in mounts.splitlines():
        fields = row.split()
        if len(fields) < 3:
            continue
        place = Path(fields[1].replace("\\040", " "))
        if folder.is_relative_to(place) and len(place.parts) > best:
            best, found = len(place.parts), fields[2]
    return found


def refuse_network_disk(folder: Path) -> None:
    """Raise `BatchStorageError` where SQLite's locks cannot be trusted. Unknown systems pass."""
    try:
        mounts = Path("/proc/mounts").read_text()
    except OSError:
        return
    kind = file_system_of(folder.resolve(), mounts)
    if kind in NETWORK_FILE_SYSTEMS:
        raise BatchStorageError(
            f"{folder} is on a network file system ({kind}); SQLite's locks do not hold there",
            hint="Set LANGBATCH_HOME to a local disk, or LANGBATCH_DATABASE_URL to a PostgreSQL database.",
            code="network_disk",
        )
