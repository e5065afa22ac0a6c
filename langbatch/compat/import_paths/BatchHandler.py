"""`langbatch.BatchHandler`, as LangBatch's users import it."""

from langbatch.compat.handler import BatchHandler, BatchStatus

__all__ = ["BatchHandler", "BatchStatus"]
