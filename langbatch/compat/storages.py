"""Places for copies of saved batches. The job itself is in langbatch's store, saved or not."""

from __future__ import annotations

import json
import os
import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from langbatch.config.settings import Settings
from langbatch.errors import BatchStorageError
from langbatch.publish import private_folder, publishing


class BatchStorage(ABC):
    """What a storage of one's own must do."""

    @abstractmethod
    def save(self, id: str, data_file: Path, meta_data: dict[str, Any]) -> None:  # noqa: A002 - LangBatch's word
        """Keep the requests in `data_file` (JSONL) and what is known of the batch."""

    @abstractmethod
    def load(self, id: str) -> tuple[Path, Path]:  # noqa: A002
        """Paths of the requests and of the meta data (JSON). Raises `BatchStorageError` for unknown ids."""


class FileBatchStorage(BatchStorage):
    """Copies in `<directory>/saved_batches`, for their owner's eyes only; `directory` None: langbatch's home.

    Meta data is JSON and nothing else: a pickle runs whatever code its writer liked.
    """

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        chosen = Settings.load().home if directory is None else Path(directory).absolute()
        self.saved_batches_directory = private_folder(chosen / "saved_batches")

    def save(self, id: str, data_file: Path, meta_data: dict[str, Any]) -> None:  # noqa: A002
        """Raises `BatchStorageError` where the disk, or JSON, does not take it."""
        requests, meta = self._paths(id)
        try:
            document = json.dumps(meta_data).encode()
            # First the requests, which never change: meta data without them would be of no use.
            if not requests.exists():
                with Path(data_file).open("rb") as source, publishing(requests) as out:
                    shutil.copyfileobj(source, out)
            with publishing(meta) as out:
                out.write(document)
        except TypeError as error:
            raise BatchStorageError(f"the meta data of batch {id} is not JSON: {error}") from error
        except OSError as error:
            raise BatchStorageError(f"batch {id} could not be saved: {error.strerror or error}") from error

    def load(self, id: str) -> tuple[Path, Path]:  # noqa: A002
        requests, meta = self._paths(id)
        if not requests.is_file() or not meta.is_file():
            raise BatchStorageError(f"Batch with id {id} not found")
        return requests, meta

    def _paths(self, id: str) -> tuple[Path, Path]:  # noqa: A002
        if Path(id).name != id:
            raise BatchStorageError(f"Batch with id {id} not found")
        return self.saved_batches_directory / f"{id}.jsonl", self.saved_batches_directory / f"{id}.json"
