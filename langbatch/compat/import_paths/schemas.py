"""`langbatch.schemas`, as LangBatch's users import it."""

from langbatch.compat.schemas import OpenAIChatCompletionRequest, OpenAIEmbeddingRequest

__all__ = ["OpenAIChatCompletionRequest", "OpenAIEmbeddingRequest"]
