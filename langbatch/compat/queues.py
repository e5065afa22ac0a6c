"""Which batches a handler has to care for, kept over restarts."""

from __future__ import annotations

import fcntl
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from langbatch.errors import BatchStorageError
from langbatch.publish import private_folder, publishing

#: Batch ids by what is next: `pending` are to be started, `processing` to be handled once they have ended,
#: `failed` wait for a person (only there when it has happened).
Queues = dict[str, list[str]]


class BatchQueue(ABC):
    """What a queue of one's own must do: keep a dictionary of lists of ids."""

    @abstractmethod
    def save(self, queue: Queues) -> None:
        """Keep this; it must be safe when this returns."""

    @abstractmethod
    def load(self) -> Queues:
        """What was kept last, `{"pending": [], "processing": []}` at first."""

    @contextmanager
    def changing(self, known: Queues) -> Iterator[Queues]:
        """The queues, to be changed inside the block and saved after it. Here: what one process knows of
        them, which is `known`; a queue that several processes share reads them anew under a lock."""
        queues = {name: list(ids) for name, ids in known.items()}
        yield queues
        if queues != known:
            self.save(queues)

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Whether the handler that enters is the only one at work. Here: nobody else is known of."""
        yield True


class FileBatchQueue(BatchQueue):
    """A JSON file that appears whole or not at all. Any number of processes may share it: changes wait for
    each other, and one handler works at a time; its locks die with it (flock)."""

    def __init__(self, file_path: str | os.PathLike[str]) -> None:
        self.file_path = file_path
        self._path = Path(file_path).absolute()

    def save(self, queue: Queues) -> None:
        try:
            private_folder(self._path.parent)
            with publishing(self._path) as out:
                out.write(json.dumps(queue).encode())
        except OSError as error:
            raise BatchStorageError(
                f"the queue in {self._path} could not be saved: {error.strerror or error}"
            ) from error

    def load(self) -> Queues:
        """Raises `BatchStorageError` for a file that is no queue: taking it for empty would lose batches."""
        try:
            queues = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {"pending": [], "processing": []}
        except (OSError, ValueError) as error:
            raise BatchStorageError(
                f"the queue in {self._path} cannot be read", hint="Mend the file, or move it away."
            ) from error
        if not isinstance(queues, dict) or not all(isinstance(ids, list) for ids in queues.values()):
            raise BatchStorageError(
                f"{self._path} is not a queue of batches", hint="Mend the file, or move it away."
            )
        return {"pending": [], "processing": [], **queues}

    @contextmanager
    def changing(self, known: Queues) -> Iterator[Queues]:
        with self._locked("lock", fcntl.LOCK_EX):
            queues, before = self.load(), self.load()
            yield queues
            if queues != before:
                self.save(queues)

    @contextmanager
    def turn(self) -> Iterator[bool]:
        with self._locked("turn", fcntl.LOCK_EX | fcntl.LOCK_NB) as got:
            yield got

    @contextmanager
    def _locked(self, kind: str, how: int) -> Iterator[bool]:
        private_folder(self._path.parent)
        descriptor = os.open(
            self._path.with_name(f"{self._path.name}.{kind}"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            try:
                fcntl.flock(descriptor, how)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)
