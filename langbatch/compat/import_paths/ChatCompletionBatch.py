"""`langbatch.ChatCompletionBatch`, as LangBatch's users import it."""

from langbatch.handles import ChatCompletionBatch

__all__ = ["ChatCompletionBatch"]
