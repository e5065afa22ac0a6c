"""`langbatch.factory`, as LangBatch's users import it."""

from langbatch.handles import chat_completion_batch, embedding_batch

__all__ = ["chat_completion_batch", "embedding_batch"]
