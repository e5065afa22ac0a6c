"""Starts queued batches, looks after them, and calls a function once for each that has finished."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Any

from langbatch.compat.queues import BatchQueue, FileBatchQueue, Queues
from langbatch.compat.storages import BatchStorage
from langbatch.compat.threads import to_the_end
from langbatch.errors import BatchStateError, LangBatchError
from langbatch.handles import Batch

_log = logging.getLogger("langbatch")


class BatchStatus(Enum):
    """OpenAI's words for a batch."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


class BatchHandler:
    """Works through a queue of batch ids.

    `batch_process_func` gets each batch that has completed, in a thread of its own; it may also be a
    coroutine function. It is called once for a batch, over restarts and over processes that share a
    `FileBatchQueue`; only for a batch during whose call the process died it is called again. What it
    raises is logged (its type and place, not its text, which may quote an answer), and the batch goes to
    the queue's `failed`, as does one that cannot be retried; `add_batch` takes it up again.

    `wait_time` (seconds) lies between two rounds; a round starts or retries at most `starts_per_round`
    batches, LangBatch's four. `sleep` and `batch_kwargs` (for `load`) come in as arguments.
    """

    def __init__(
        self,
        batch_process_func: Callable[[Any], Any],
        batch_type: type[Batch],
        batch_queue: BatchQueue | None = None,
        batch_storage: BatchStorage | None = None,
        wait_time: float = 3600,
        batch_kwargs: Mapping[str, Any] | None = None,
        *,
        starts_per_round: int = 4,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.batch_process_func = batch_process_func
        self.batch_type = batch_type
        self.batch_queue = batch_queue or FileBatchQueue("batch_queue.json")
        self.batch_storage = batch_storage
        self.wait_time = wait_time
        self.batch_kwargs = dict(batch_kwargs or {})
        self.starts_per_round = starts_per_round
        self.queues = self.batch_queue.load()
        self._sleep = sleep
        self._lock = threading.Lock()

    # ------------------------------------------------------------ queue

    async def add_batch(self, batch_id: str) -> None:
        """Queue a saved batch. One that is queued already stays where it is."""
        await to_the_end(self.queue_batch, batch_id)

    def queue_batch(self, batch_id: str) -> None:
        """`add_batch` for programs without an event loop: it is safe on disk when this returns."""
        with self._changing() as queues:
            if batch_id in queues["pending"] or batch_id in queues["processing"]:
                _log.info("batch %s is in the queue already", batch_id)
                return
            _forget(queues, batch_id)
            queues["pending"].append(batch_id)

    async def cancel_batch(self, batch_id: str) -> None:
        """Take a batch out of the queue. The job itself goes on: `batch.cancel()` ends that."""
        known = await to_the_end(self._move, batch_id, None)
        if not known:
            _log.warning("batch %s is in no queue", batch_id)

    @contextmanager
    def _changing(self) -> Iterator[Queues]:
        """The queues as they are now. What is done to them in the block is on disk after it."""
        with self._lock:
            with self.batch_queue.changing(self.queues) as queues:
                yield queues
            self.queues = queues

    def _reread(self) -> None:
        with self._changing():
            pass

    def _move(self, batch_id: str, to: str | None, name: str | None = None) -> bool:
        """Put a batch, under `name` from now on, into the queue `to`. False where it is in none any more."""
        with self._changing() as queues:
            known = _forget(queues, batch_id)
            if known and to is not None:
                queues.setdefault(to, []).append(name or batch_id)
            return known

    # ------------------------------------------------------------ rounds

    async def run(self) -> None:
        """Do rounds until cancelled. No error ends it."""
        while True:
            try:
                await self.run_once()
            except Exception as error:  # noqa: BLE001 - the queue's disk may be back by the next round
                report("a round over the queue", error)
            await self._sleep(self.wait_time)

    async def run_once(self) -> None:
        """One round: look at what was started, then start what is pending. Trouble with one batch holds up
        no other; it is looked at again in the next round. Raises only what the queue raises."""
        with self.batch_queue.turn() as is_ours:
            if not is_ours:
                _log.info("another process works on this queue")
                return
            await to_the_end(self._reread)
            processing, pending = list(self.queues["processing"]), list(self.queues["pending"])
            left = self.starts_per_round
            for batch_id in processing:
                left -= await self._guarded(batch_id, self._look_at, may_retry=left > 0)
            for batch_id in pending[: max(left, 0)]:
                if not await self._guarded(batch_id, self._start):
                    # Behind the others: four that cannot be started must not keep them all waiting.
                    await to_the_end(self._move, batch_id, "pending")

    async def _guarded(self, batch_id: str, step: Callable[..., Awaitable[bool]], **options: Any) -> bool:
        try:
            return await step(batch_id, await to_the_end(self._load, batch_id), **options)
        except Exception as error:  # noqa: BLE001 - one batch's error must not end the loop
            report(f"batch {batch_id}", error)
            return False

    def _load(self, batch_id: str) -> Batch:
        return self.batch_type.load(batch_id, self.batch_storage, self.batch_kwargs)

    async def _look_at(self, batch_id: str, batch: Batch, *, may_retry: bool) -> bool:
        """Do what the batch's status asks for; whether something was sent."""
        word = BatchStatus(await to_the_end(batch.get_status))
        if word in (BatchStatus.FAILED, BatchStatus.EXPIRED):
            if await to_the_end(batch.is_retryable_failure):
                return may_retry and await self._retry(batch_id, batch)
            if word is BatchStatus.FAILED:
                _log.error(
                    "batch %s has failed for good: `langbatch status %s` tells why", batch_id, batch.id
                )
                await to_the_end(self._move, batch_id, "failed")
                return False
            word = BatchStatus.COMPLETED  # out of time, but with nothing left that a retry would mend
        if word is BatchStatus.COMPLETED:
            await self._handle(batch_id, batch)
        elif word is BatchStatus.CANCELLED:
            _log.warning("batch %s was cancelled; it is taken out of the queue", batch_id)
            await to_the_end(self._move, batch_id, None)
        return False

    # ------------------------------------------------------------ steps

    async def start_batch(self, batch: Batch) -> None:
        """Start a pending batch now. Raises what `Batch.start` raises; then it stays pending."""
        await to_the_end(self._reread)
        if batch.id not in self.queues["pending"]:
            _log.warning("batch %s is not pending", batch.id)
            return
        await self._start(batch.id, batch)

    async def _start(self, batch_id: str, batch: Batch) -> bool:
        def start() -> None:
            batch.start()  # a no-op for a job that was started just before a crash
            batch.save(self.batch_storage)
            self._move(batch_id, "processing", batch.id)

        await to_the_end(start)
        return True

    async def process_completed_batch(self, batch: Batch) -> None:
        """Call the function for a batch in `processing`, and take the batch out of the queue."""
        await to_the_end(self._reread)
        if batch.id not in self.queues["processing"]:
            _log.warning("batch %s is not in processing", batch.id)
            return
        await self._handle(batch.id, batch)

    async def _handle(self, batch_id: str, batch: Batch) -> None:
        unfinished = await to_the_end(self._call, batch_id, batch)
        if unfinished is not None:
            error: Exception | None = None
            try:
                await unfinished
            except Exception as raised:  # noqa: BLE001 - the user's function may raise anything
                error = raised
            await to_the_end(self._note, batch_id, error)

    def _call(self, batch_id: str, batch: Batch) -> Awaitable[object] | None:
        """Call the function; what it returned if that has to be awaited, else None and all is noted."""
        try:
            returned = self.batch_process_func(batch)
        except Exception as error:  # noqa: BLE001 - the user's function may raise anything
            self._note(batch_id, error)
            return None
        if inspect.isawaitable(returned):
            return returned
        self._note(batch_id, None)
        return None

    def _note(self, batch_id: str, error: Exception | None) -> None:
        if error is not None:
            report(f"the function for batch {batch_id}", error)
        self._move(batch_id, None if error is None else "failed")

    async def retry_batch(self, batch: Batch) -> None:
        """Send again what a finished batch in `processing` lacks."""
        await to_the_end(self._reread)
        if batch.id not in self.queues["processing"]:
            _log.warning("batch %s is not in processing", batch.id)
            return
        await self._retry(batch.id, batch)

    async def _retry(self, batch_id: str, batch: Batch) -> bool:
        try:
            await to_the_end(batch.retry)
        except BatchStateError as error:
            # Three paid attempts without a further success: a fourth is a person's decision.
            report(f"retrying batch {batch_id}", error)
            await to_the_end(self._move, batch_id, "failed")
            return False
        return True


def _forget(queues: Queues, batch_id: str) -> bool:
    known = False
    for ids in queues.values():
        if batch_id in ids:
            ids.remove(batch_id)
            known = True
    return known


def report(what: str, error: Exception) -> None:
    """Our own messages are fit for a log; others' may quote a request or an answer."""
    if isinstance(error, LangBatchError):
        _log.error("%s: %s", what, error.message)
        return
    places = "".join(traceback.format_tb(error.__traceback__))
    _log.error("%s raised %s\n%s", what, type(error).__name__, places)
