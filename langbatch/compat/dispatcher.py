"""Makes batches of requests that come in one by one, and hands them to a handler."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

from langbatch.clock import Clock, SystemClock
from langbatch.compat.handler import BatchHandler, report
from langbatch.compat.request_queues import Claim, RequestQueue
from langbatch.compat.threads import to_the_end
from langbatch.errors import BatchInitializationError, BatchValidationError
from langbatch.handles import Batch

_log = logging.getLogger("langbatch")


class BatchDispatcher:
    """Turns the queue into batches of `queue_threshold` requests, or of what there is once `time_threshold`
    seconds have passed since the last one. It looks every `time_interval` seconds.

    `requests_type`: `"partial"` requests are what `Batch.create` takes, and `request_kwargs` goes into
    each; `"full"` ones are whole request objects. Requests that are invalid are left out of their batch
    and listed in the job's `rejects.jsonl`; where none is valid they are set aside in the queue.

    Taken requests are acknowledged only when their job is stored and its id is in the handler's queue. After
    an error or a crash before that they come again, and become the same job: their custom_ids are made
    of the claim's, not at random.
    """

    def __init__(
        self,
        batch_handler: BatchHandler,
        queue: RequestQueue,
        queue_threshold: int = 50000,
        time_threshold: float = 3600 * 2,
        time_interval: float = 600,
        requests_type: Literal["partial", "full"] = "partial",
        request_kwargs: Mapping[str, Any] | None = None,
        *,
        clock: Clock | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.batch_handler = batch_handler
        self.queue = queue
        self.queue_threshold = queue_threshold
        self.time_threshold = time_threshold
        self.time_interval = time_interval
        self.requests_type = requests_type
        self.request_kwargs = dict(request_kwargs or {})
        self._clock: Clock = clock or SystemClock()
        self._sleep = sleep
        #: Seconds since the epoch.
        self.last_batch_time = self._clock.now()

    async def run(self) -> None:
        """Look again and again until cancelled. No error ends it."""
        while True:
            try:
                await self.run_once()
            except Exception as error:  # noqa: BLE001 - the queue may be reachable again next time
                report("dispatching", error)
            await self._sleep(self.time_interval)

    async def run_once(self) -> None:
        """Dispatch what was left open before, then everything that is due. Raises what the queue raises."""
        await to_the_end(self._dispatch_due)

    def _dispatch_due(self) -> None:
        for claim in self.queue.open_claims():
            self._settle(claim)
        while self._is_due():
            claimed = self.queue.claim(self.queue_threshold)
            if claimed is None or not self._settle(claimed):
                return

    def _is_due(self) -> bool:
        waiting = len(self.queue)
        late = self._clock.now() - self.last_batch_time >= self.time_threshold
        return waiting >= self.queue_threshold or (late and waiting > 0)

    def _settle(self, claim: Claim) -> bool:
        """Bring a claim to its end; False where it stays open for another time."""
        try:
            self._dispatch(claim)
        except (BatchInitializationError, BatchValidationError) as error:
            report(f"{len(claim.requests)} requests were set aside, no batch can be made of them", error)
            self.queue.refuse(claim)
        except Exception as error:  # noqa: BLE001 - the requests are still claimed and come again
            report("dispatching a batch", error)
            return False
        return True

    def _dispatch(self, claim: Claim) -> None:
        handler = self.batch_handler
        if claim.job_id is None:
            batch = self._create(claim)
            if not self.queue.hold(claim):
                return
            batch.save(handler.batch_storage)
            self.queue.became(claim, batch.id)
            self.last_batch_time = self._clock.now()
        else:
            batch = handler.batch_type.load(claim.job_id, handler.batch_storage, handler.batch_kwargs)
            if batch.status().state != "draft":  # started, so it was in the handler's queue before the crash
                self.queue.acknowledge(claim)
                return
        handler.queue_batch(batch.id)
        self.queue.acknowledge(claim)
        _log.info("dispatched %d requests as batch %s", len(claim.requests), batch.id)

    def _create(self, claim: Claim) -> Batch:
        kwargs = {"skip_invalid": True, **self.batch_handler.batch_kwargs}
        make = self.batch_handler.batch_type
        if self.requests_type == "full":
            return make.create_from_requests(claim.requests, kwargs)
        space = uuid.UUID(claim.id)
        names = (str(uuid.uuid5(space, str(number))) for number in range(len(claim.requests)))
        return make.create(claim.requests, self.request_kwargs, kwargs, custom_ids=names)
