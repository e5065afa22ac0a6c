"""Synchronous work for an awaiting task.

The core stays synchronous. What it does runs in a few threads that all jobs of the process share, and what it
sleeps is slept on the event loop, so that jobs that are waited for hold no thread. Whoever stops awaiting is
let go at once; the thread brings the call that it is in to its end, records the reply, and stops.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from langbatch.detaching import Detached, while_wanted

if TYPE_CHECKING:
    from langbatch.records import OnProgress, Progress
    from langbatch.running.waiting import Pausing

T = TypeVar("T")

#: Calls are short, but for uploads and downloads; more threads would wait for one network and one database.
WORKERS = 8


class Errand:
    """What one awaiting task has worker threads do, one thing after the other, until its block ends."""

    def __init__(self, progress: OnProgress | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._progress = progress
        self._error: BaseException | None = None
        self._over = False
        self._last: Future[Any] | None = None

    def __enter__(self) -> Errand:
        return self

    def __exit__(self, *_: object) -> None:
        # Whoever awaited may have been cancelled; a thread that is still at work stops where it may.
        self._over = True

    async def run(self, function: Callable[[], T]) -> T:
        """What `function` gives in a worker thread."""

        def work() -> T:
            with while_wanted(lambda: not self._over):
                return function()

        future = self._last = _workers().submit(work)
        try:
            found: T = await asyncio.wrap_future(future)
        except Detached:
            pass  # for the sake of the error
        else:
            if self._error is None:
                return found
        assert self._error is not None
        raise self._error

    async def through(self, begin: Callable[[], Pausing[T]]) -> T:
        """What comes of the steps that `begin` makes, their pauses slept on the event loop."""
        steps = await self.run(begin)
        end: list[T] = []
        while not end:
            await asyncio.sleep(await self.run(lambda: _next(steps, end)))
        return end[0]

    def afterwards(self, function: Callable[[], object]) -> None:
        """Call `function` when no thread is at work for this task any more."""
        if self._last is None:
            function()
        else:
            self._last.add_done_callback(lambda _: function())

    @property
    def tell(self) -> OnProgress | None:
        """For worker threads: has the event loop call the task's `progress`."""
        return None if self._progress is None else self._tell

    def _tell(self, progress: Progress) -> None:
        try:
            self._loop.call_soon_threadsafe(self._told, progress)
        except RuntimeError:
            raise Detached from None  # the loop is closed

    def _told(self, progress: Progress) -> None:
        if self._over or self._progress is None:
            return
        try:
            self._progress(progress)
        except BaseException as error:  # noqa: BLE001 - it is the awaiting task's, and raised there
            self._error, self._over = error, True


def _next(steps: Pausing[T], end: list[T]) -> float:
    """The next pause in seconds; 0 at the end, and what has come of it in `end`."""
    try:
        return next(steps)
    except StopIteration as stop:
        end.append(stop.value)
        return 0.0


@cache
def _workers() -> ThreadPoolExecutor:
    # A fork has none of the threads, and a pool that counts on them would never start others.
    os.register_at_fork(after_in_child=_workers.cache_clear)
    return ThreadPoolExecutor(WORKERS, thread_name_prefix="langbatch")
