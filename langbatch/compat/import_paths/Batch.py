"""`langbatch.Batch`, as LangBatch's users import it."""

from langbatch.handles import Batch

__all__ = ["Batch"]
