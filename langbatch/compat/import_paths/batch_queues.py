"""`langbatch.batch_queues`, as LangBatch's users import it."""

from langbatch.compat.queues import BatchQueue, FileBatchQueue

__all__ = ["BatchQueue", "FileBatchQueue"]
