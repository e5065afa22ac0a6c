"""The bodies that LangBatch accepted, as pydantic models for those who built requests with them.

Nothing here validates a job: `langbatch validate` knows more, and lets through what services have added
since. Fields: https://platform.openai.com/docs/api-reference/chat/create and …/embeddings/create.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class OpenAIChatCompletionRequest(BaseModel):
    messages: list[dict[str, Any]]
    model: str
    frequency_penalty: float | None = None
    logit_bias: dict[str, int] | None = None
    logprobs: bool | None = None
    max_tokens: int | None = None
    n: int | None = None
    parallel_tool_calls: bool | None = None
    presence_penalty: float | None = None
    response_format: dict[str, Any] | None = None
    seed: int | None = None
    service_tier: str | None = None
    stop: str | list[str] | None = None
    temperature: float | None = None
    tool_choice: str | dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    top_logprobs: int | None = None
    top_p: float | None = None
    user: str | None = None


class OpenAIEmbeddingRequest(BaseModel):
    input: str | list[str] | list[int] | list[list[int]]
    model: str
    dimensions: int | None = None
    encoding_format: str | None = None
    user: str | None = None
