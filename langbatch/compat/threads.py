"""Our synchronous core under an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


async def to_the_end(function: Callable[..., T], *arguments: Any) -> T:
    """`asyncio.to_thread`, but a cancellation waits until the function has returned.

    A thread cannot be stopped. Were its waiter to leave at once, locks would be released while it still
    works, and another handler would do its work a second time.
    """
    thread = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    cancelled: asyncio.CancelledError | None = None
    while not thread.done():
        try:
            await asyncio.wait([thread])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        thread.exception()  # seen: the cancellation is what the caller hears of
        raise cancelled
    return thread.result()
