"""The await forms of a handle, for programs with an event loop. `langbatch.errands` does the work."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langbatch.errands import Errand
    from langbatch.manager import JobManager
    from langbatch.records import OnProgress
    from langbatch.results.result import Result
    from langbatch.status import JobStatus

#: Results read in one go: a hop between threads takes as long as reading a few of them.
RESULTS_AT_ONCE = 64


class AwaitForms:
    """The part of a handle that is awaited; `handles.Batch` is the rest. For asyncio.

    Each does what its namesake does, and raises what that raises. A task that is cancelled leaves the job as
    far as it has come: it goes on with the next `wait`, here or elsewhere.
    """

    id: str
    _manager: JobManager

    def _require_stored(self) -> None:
        raise NotImplementedError

    def _make_ready(
        self,
        *,
        new: bool,
        skip_invalid: bool,
        dedupe: bool,
        cache: bool,
        max_cost: Decimal | float | str | None,
        max_tokens: int | None,
    ) -> bool:
        """The part of `start` that sends nothing; whether there is something to start."""
        raise NotImplementedError

    def status(self) -> JobStatus:
        raise NotImplementedError

    def cancel(self) -> bool:
        raise NotImplementedError

    async def start_async(
        self,
        *,
        new: bool = False,
        skip_invalid: bool = False,
        dedupe: bool = False,
        cache: bool = False,
        max_cost: Decimal | float | str | None = None,
        max_tokens: int | None = None,
    ) -> None:
        """`start`, awaited."""

        def make_ready() -> bool:
            return self._make_ready(
                new=new,
                skip_invalid=skip_invalid,
                dedupe=dedupe,
                cache=cache,
                max_cost=max_cost,
                max_tokens=max_tokens,
            )

        with _errand() as errand:
            if await errand.run(make_ready):
                await errand.through(lambda: self._manager.starting(self.id))

    async def wait_async(self, timeout: float | None = None, progress: OnProgress | None = None) -> JobStatus:
        """`wait`, awaited. `progress` is called by the event loop, and what it raises ends the wait; without
        it nothing is shown, on a terminal either."""
        self._require_stored()
        with _errand(progress) as errand:
            return await errand.through(lambda: self._manager.waiting(self.id, timeout, errand.tell))

    async def status_async(self) -> JobStatus:
        """`status`, awaited."""
        with _errand() as errand:
            return await errand.run(self.status)

    async def cancel_async(self) -> bool:
        """`cancel`, awaited."""
        with _errand() as errand:
            return await errand.run(self.cancel)

    async def retry_async(self, *, force: bool = False) -> None:
        """`retry`, awaited."""
        self._require_stored()
        with _errand() as errand:
            await errand.run(lambda: self._manager.retry(self.id, start=False, force=force))
            await errand.through(lambda: self._manager.starting(self.id))

    async def results_async(
        self, *, with_request: bool = False, partial: bool = False
    ) -> AsyncGenerator[Result, None]:
        """`results`, for `async for`: one `Result` per request in input order, streamed. Left half-way, it
        closes its file, at the latest when the event loop ends; `contextlib.aclosing` does so at once."""
        self._require_stored()
        blocks = _blocks(lambda: self._manager.results(self.id, with_request=with_request, partial=partial))
        with _errand() as errand:
            try:
                while block := await errand.run(lambda: next(blocks, None)):
                    for result in block:
                        yield result
            finally:
                errand.afterwards(blocks.close)


def _blocks(opened: Callable[[], Iterator[Result]]) -> Generator[list[Result], None, None]:
    results = opened()
    while block := list(islice(results, RESULTS_AT_ONCE)):
        yield block


def _errand(progress: OnProgress | None = None) -> Errand:
    # Importing asyncio takes as long as all of langbatch's own that a handle needs.
    from langbatch.errands import Errand

    return Errand(progress)
