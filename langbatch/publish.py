"""Files that appear whole or not at all, readable by their owner only."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from langbatch import failpoints
from langbatch.errors import BatchResultsError, BatchStorageError
from langbatch.writeback import WritebackFile

#: What a killed process leaves behind begins with this, beside the file that was to be.
TEMPORARY_PREFIX: Final = ".langbatch-tmp-"

_FOLDER_MODE: Final = 0o700
_BUFFER_BYTES: Final = 1 << 17


@contextmanager
def publishing(path: Path, mode: int = 0o600, *, replace: bool = True) -> Iterator[WritebackFile]:
    """A handle whose bytes become `path` in one step, when the block ends without an error.

    They are on the disk, and so is the name, before this returns; after an error, or a crash at any
    point, `path` is as it was. An output is never written through a symbolic link. With `replace=False`
    a file that exists by the end stays, and `BatchResultsError` is raised.
    """
    _refuse_odd_target(path, replace=replace)
    temporary = path.parent / (TEMPORARY_PREFIX + secrets.token_hex(8))
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600)
    try:
        with WritebackFile(descriptor, temporary, _BUFFER_BYTES) as handle:
            yield handle
            handle.flush()
            os.fchmod(descriptor, mode)
            with failpoints.around("fsync"):
                handle.sync()
        _refuse_odd_target(path, replace=replace)
        if replace:
            with failpoints.around("rename"):
                os.rename(temporary, path)
        else:
            _take_free_name(temporary, path)
        sync_folder(path.parent)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def take_place(staged: Path, path: Path) -> None:
    """Give a file that was published under another name its own; it is on the disk when this returns."""
    with failpoints.around("rename"):
        os.rename(staged, path)
    sync_folder(path.parent)


def private_folder(path: Path) -> Path:
    """`path` as a folder, made 0700 together with the parents that it lacks; what exists stays as it is."""
    missing = []
    folder = path
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for folder in reversed(missing):
        with suppress(FileExistsError):
            folder.mkdir(mode=_FOLDER_MODE)
    if not path.is_dir():
        raise BatchStorageError(f"{path} is not a folder", hint="move the file that has its name")
    return path


def _refuse_odd_target(path: Path, *, replace: bool) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISLNK(mode):
        raise BatchResultsError(
            f"{path} is a symbolic link; outputs are not written through links",
            hint="name the file itself",
            code="output_is_link",
        )
    if not stat.S_ISREG(mode):
        raise BatchResultsError(f"{path} is not a plain file", code="output_not_a_file")
    if not replace:
        raise BatchResultsError(f"{path} exists", hint="give another name", code="output_exists")


def _take_free_name(temporary: Path, path: Path) -> None:
    """A hard link fails if the name is taken, which a rename would not; not every filesystem has them."""
    try:
        with failpoints.around("rename"):
            os.link(temporary, path, follow_symlinks=False)
    except FileExistsError:
        raise BatchResultsError(f"{path} exists", hint="give another name", code="output_exists") from None
    except OSError:
        os.rename(temporary, path)
    else:
        os.unlink(temporary)


def sync_folder(folder: Path) -> None:
    """A rename is on the disk only once its folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with failpoints.around("fsync"):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
