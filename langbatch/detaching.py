"""Work whose waiter may leave: a worker thread asks here whether anybody still wants what it does.

Outside of `while_wanted` everything is wanted. `check` stands where work may stop: between two actions at a
shard, and between two blocks of a file. Never around a call that costs money, whose reply would be lost.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langbatch.records import OnProgress, Progress

_this_thread = threading.local()


class Detached(BaseException):
    """Nobody waits for this work any more. No `Exception`: transports would take it for trouble of theirs."""


@contextmanager
def while_wanted(wanted: Callable[[], bool]) -> Iterator[None]:
    """In this block and this thread `check` raises once `wanted` says no."""
    before = getattr(_this_thread, "wanted", None)
    _this_thread.wanted = wanted
    try:
        yield
    finally:
        _this_thread.wanted = before


def check() -> None:
    """Raise `Detached` where what this thread does is not wanted any more."""
    wanted = getattr(_this_thread, "wanted", None)
    if wanted is not None and not wanted():
        raise Detached


def checked(on_progress: OnProgress | None) -> OnProgress | None:
    """`on_progress`, with a `check` before each report."""
    if getattr(_this_thread, "wanted", None) is None:
        return on_progress

    def report(progress: Progress) -> None:
        check()
        if on_progress is not None:
            on_progress(progress)

    return report
