"""`langbatch.openai`, as LangBatch's users import it."""

from langbatch.compat.batches import OpenAIBatch, OpenAIChatCompletionBatch, OpenAIEmbeddingBatch

__all__ = ["OpenAIBatch", "OpenAIChatCompletionBatch", "OpenAIEmbeddingBatch"]
