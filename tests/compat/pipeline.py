"""What the tests of handlers and dispatchers share: batches in an emulated world, and counted calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langbatch import BatchHandler, OpenAIChatCompletionBatch
from langbatch.compat.queues import FileBatchQueue
from support import World, chat_line

#: More rounds than any batch of these tests needs.
ROUNDS = 20


@dataclass
class Calls:
    """A process function that counts. `then` is done in each call, after it was counted."""

    ids: list[str] = field(default_factory=list)
    then: Callable[[Any], object] = lambda batch: None

    def __call__(self, batch: Any) -> object:
        self.ids.append(batch.id)
        return self.then(batch)


def kwargs(place: World) -> dict[str, Any]:
    """`batch_kwargs` that lead to the emulated service, for making batches and for loading them."""
    return {**place.azure, "manager": place.manager()}


def saved(place: World, *names: str, **body: Any) -> OpenAIChatCompletionBatch:
    """A batch with one request per name, saved and not started."""
    path = place.home.parent / f"{'-'.join(names)}.jsonl"
    path.write_text("".join(chat_line(name, **body) + "\n" for name in names))
    batch = OpenAIChatCompletionBatch(path, **kwargs(place))
    batch.save()
    return batch


def handler(place: World, calls: Callable[[Any], object], **options: Any) -> BatchHandler:
    """A fresh handler on this world's queue, as a restarted process would make one."""
    return BatchHandler(
        calls,
        OpenAIChatCompletionBatch,
        FileBatchQueue(queue_file(place)),
        batch_kwargs=kwargs(place),
        **options,
    )


def queue_file(place: World) -> Path:
    return place.home.parent / "batch_queue.json"


def do(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)


def rounds(place: World, worker: BatchHandler, most: int = ROUNDS, apart: float = 60) -> None:
    """Rounds until the queue is empty, so many emulated seconds apart, but never more than `most`."""

    async def go() -> None:
        for _ in range(most):
            await worker.run_once()
            if not worker.queues["pending"] and not worker.queues["processing"]:
                return
            place.clock.sleep(apart)

    do(go())
