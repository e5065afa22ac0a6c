"""Sorting millions of digests in flat memory: by first byte into 256 parts, each small enough to hold."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

from langbatch.errors import BatchStorageError
from langbatch.publish import TEMPORARY_PREFIX
from langbatch.reuse.digests import DIGEST_BYTES

PARTS: Final = 256
#: What is held before it goes to disk; a part of a job of ten million requests has less than 2 MB.
_HELD_BYTES: Final = 4 << 20


class Spool:
    """Entries of a digest and `payload_bytes` more, given back part by part in the order they came.

    Uses a folder of its own within `folder`, removed at the end, and only for large numbers.
    """

    def __init__(self, folder: Path, payload_bytes: int) -> None:
        self.entry_bytes = DIGEST_BYTES + payload_bytes
        self._folder = folder
        self._own: Path | None = None
        self._held = [bytearray() for _ in range(PARTS)]
        self._held_bytes = 0
        self.entries = 0

    def add(self, digest: bytes, payload: bytes) -> None:
        self._held[digest[0]] += digest + payload
        self._held_bytes += self.entry_bytes
        self.entries += 1
        if self._held_bytes > _HELD_BYTES:
            self._spill()

    def part(self, first_byte: int) -> bytes:
        """All entries whose digests begin with this byte."""
        held = bytes(self._held[first_byte])
        if self._own is None:
            return held
        path = self._path(self._own, first_byte)
        try:
            return path.read_bytes() + held if path.exists() else held
        except OSError as error:
            raise _trouble(self._folder, error) from error

    def entries_of(self, first_byte: int) -> Iterator[bytes]:
        data, size = self.part(first_byte), self.entry_bytes
        return (data[at : at + size] for at in range(0, len(data), size))

    def _spill(self) -> None:
        try:
            if self._own is None:
                self._own = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=self._folder))
            for first_byte, held in enumerate(self._held):
                if held:
                    with self._path(self._own, first_byte).open("ab", buffering=0) as file:
                        file.write(held)
                    held.clear()
        except OSError as error:
            raise _trouble(self._folder, error) from error
        self._held_bytes = 0

    @staticmethod
    def _path(own: Path, first_byte: int) -> Path:
        return own / f"{first_byte:02x}"

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)


def _trouble(folder: Path, error: OSError) -> BatchStorageError:
    return BatchStorageError(
        f"requests cannot be compared in {folder}: {error.strerror or error}",
        hint="free or repair the disk, then try again",
    )
