"""A file being written whose bytes go to the disk meanwhile, not all of them at its end.

Putting 150 MB on a disk can take as long as making them: waiting for it at the end doubles the time.
"""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

#: Bytes that are worth a sync of their own. A smaller file is synced once, at its end.
STEP_BYTES: Final = 8 << 20


class WritebackFile(io.BufferedRandom):
    """A new binary file. What was written is synced a step at a time, beside the writing.

    What the disk refuses is raised by a later `write`, or by `sync`.
    """

    def __init__(self, descriptor: int, path: Path, buffer_bytes: int) -> None:
        self.path = path
        self._stepwise = _StepwiseSynced(descriptor)
        super().__init__(self._stepwise, buffer_bytes)

    def pass_over(self, size_bytes: int) -> None:
        """Go on behind what others have written at this place, by the path."""
        self.seek(size_bytes, os.SEEK_CUR)
        self._stepwise.count(size_bytes)

    def sync(self) -> None:
        """Return when everything that was written is on the disk."""
        self.flush()
        self._stepwise.sync()


class _StepwiseSynced(io.FileIO):
    def __init__(self, descriptor: int) -> None:
        self._unsynced = 0
        self._syncing: threading.Thread | None = None
        self._refused: OSError | None = None
        super().__init__(descriptor, "w+b")

    def write(self, data: ReadableBuffer, /) -> int:
        written = super().write(data)
        self.count(written)
        return written

    def count(self, written: int) -> None:
        """So much more is there to be synced."""
        self._unsynced += written
        if self._unsynced >= STEP_BYTES and not (self._syncing and self._syncing.is_alive()):
            self._end_sync()
            self._begin_sync()

    def sync(self) -> None:
        self._end_sync()
        os.fsync(self.fileno())

    def close(self) -> None:
        if self._syncing is not None and self._syncing.ident is not None:
            self._syncing.join()  # its descriptor may be another file's right after
        super().close()

    def _begin_sync(self) -> None:
        # Known before it runs: whatever interrupts this, `close` waits for it.
        self._syncing = threading.Thread(target=self._sync_beside, name="langbatch-sync")
        try:
            self._syncing.start()
        except RuntimeError:
            self._syncing = None  # no more threads, or the program is ending: all at the end, then
        else:
            self._unsynced = 0

    def _sync_beside(self) -> None:
        try:
            os.fsync(self.fileno())
        except OSError as error:
            self._refused = error  # the kernel tells of it once: no later sync would

    def _end_sync(self) -> None:
        if self._syncing is not None:
            self._syncing.join()
            self._syncing = None
        if self._refused is not None:
            raise self._refused
