"""LangBatch's classes for OpenAI and Azure OpenAI: our handles, called as LangBatch's are."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from langbatch.errors import JobNotFound
from langbatch.handles import Batch, ChatCompletionBatch, EmbeddingBatch

if TYPE_CHECKING:
    from openai import OpenAI

    from langbatch.compat.storages import BatchStorage
    from langbatch.manager import JobManager


class OpenAIBatch(Batch):
    """A job on OpenAI or, with `client=AzureOpenAI(…)`, on Azure.

    Without a client the key comes from `OPENAI_API_KEY`. `storage` is where `save` puts a copy when it is
    not told where. Raises as `Batch`.
    """

    default_provider: ClassVar[str] = "openai"
    _storage: BatchStorage | None = None

    def __init__(
        self,
        file: str | os.PathLike[str],
        client: OpenAI | None = None,
        *,
        provider: str | None = None,
        storage: BatchStorage | None = None,
        model: str | None = None,
        skip_invalid: bool = False,
        manager: JobManager | None = None,
        **target: Any,
    ) -> None:
        if client is not None:
            target["client"] = client
        super().__init__(file, provider, model=model, skip_invalid=skip_invalid, manager=manager, **target)
        self._storage = storage

    @classmethod
    def create(
        cls,
        data: Iterable[Any],
        request_kwargs: Mapping[str, Any] | None = None,
        batch_kwargs: Mapping[str, Any] | None = None,
        *,
        custom_ids: Iterable[str] | None = None,
        **target: Any,
    ) -> Self:
        """As `Batch.create`, with a UUID for each custom_id unless they are given: LangBatch's users tell
        the results of several batches apart by them."""
        names = custom_ids if custom_ids is not None else iter(lambda: str(uuid.uuid4()), "")
        return super().create(data, request_kwargs, batch_kwargs, custom_ids=names, **target)

    @classmethod
    def load(
        cls,
        id: str,  # noqa: A002 - LangBatch's word
        storage: BatchStorage | None = None,
        batch_kwargs: Mapping[str, Any] | None = None,
        *,
        manager: JobManager | None = None,
        **credentials: Any,
    ) -> Self:
        """As `Batch.load`; an id that is not ours is looked for among LangBatch's saved batches.

        Raises `BatchStorageError` where there is none of that name."""
        try:
            batch = super().load(id, storage, batch_kwargs, manager=manager, **credentials)
        except JobNotFound:
            from langbatch.compat.storages import FileBatchStorage

            storage = FileBatchStorage()
            batch = super().load(id, storage, batch_kwargs, manager=manager, **credentials)
        batch._storage = storage
        return batch

    def save(self, storage: BatchStorage | None = None) -> str:
        """As `Batch.save`; without `storage`, into the one that the constructor was given, if any."""
        return super().save(storage if storage is not None else self._storage)


class OpenAIChatCompletionBatch(OpenAIBatch, ChatCompletionBatch):
    """A job of chat completions."""


class OpenAIEmbeddingBatch(OpenAIBatch, EmbeddingBatch):
    """A job of embeddings."""
