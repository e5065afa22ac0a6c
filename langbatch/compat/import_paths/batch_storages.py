"""`langbatch.batch_storages`, as LangBatch's users import it."""

from typing import Any

from langbatch.compat.storages import BatchStorage, FileBatchStorage
from langbatch.config.settings import Settings

__all__ = ["BatchStorage", "FileBatchStorage"]


def __getattr__(name: str) -> Any:
    if name == "DATA_PATH":  # when asked for, so that importing reads no settings
        return Settings.load().home
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
