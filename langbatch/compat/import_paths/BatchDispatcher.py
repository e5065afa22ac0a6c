"""`langbatch.BatchDispatcher`, as LangBatch's users import it."""

from langbatch.compat.dispatcher import BatchDispatcher

__all__ = ["BatchDispatcher"]
