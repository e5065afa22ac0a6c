"""`langbatch.EmbeddingBatch`, as LangBatch's users import it."""

from langbatch.handles import EmbeddingBatch

__all__ = ["EmbeddingBatch"]
