"""Work shared with other processes: when that pays, and how its findings come back in order.

Loads what does it only where there is something to share: every command imports this.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar, TypeVarTuple, Unpack

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

#: Of requests and of results, what other processes are worth being started for, which takes a tenth of a
#: second. Results need more work a byte.
WORTH_REQUEST_BYTES: Final = 512 << 20
WORTH_RESULT_BYTES: Final = 64 << 20
#: As many cores as are kept busy at most: bounds what has been found and waits to be added up.
_MOST_CORES: Final = 8
#: Tasks under way beyond two for each core: what is done here while workers load what they need.
_SPARE: Final = 8


def in_order(
    executor: Executor, function: Callable[[Unpack[_Ts]], _T], tasks: Iterable[tuple[*_Ts]]
) -> Iterator[_T]:
    """What the function makes of each task's arguments, in their order.

    Not much more is under way at once than keeps the machine's cores busy. This process helps: while the
    next finding is being made elsewhere, it does what nobody has begun. So it does what a worker that died,
    or none, was to do.
    """
    from concurrent.futures import BrokenExecutor, CancelledError

    most = 2 * min(os.cpu_count() or 1, _MOST_CORES) + _SPARE
    waiting: deque[tuple[tuple[*_Ts], Future[_T]]] = deque()
    coming = iter(tasks)
    try:
        while True:
            for task in islice(coming, most - len(waiting)):
                waiting.append((task, _begun(executor, function, task)))
            if not waiting:
                return
            while not waiting[0][1].done() and _help(function, waiting):
                pass
            task, future = waiting.popleft()
            try:
                found = future.result()
            except (BrokenExecutor, CancelledError):
                found = function(*task)
            yield found
    finally:
        for _, future in waiting:
            future.cancel()


def _help(function: Callable[[Unpack[_Ts]], _T], waiting: deque[tuple[tuple[*_Ts], Future[_T]]]) -> bool:
    """Do here the first that nobody has begun; whether there was one."""
    from concurrent.futures import Future

    for place, (task, future) in enumerate(waiting):
        if future.cancel():
            done: Future[_T] = Future()
            try:
                done.set_result(function(*task))
            except Exception as error:  # noqa: BLE001 - raised when it is its turn, as any worker's
                done.set_exception(error)
            waiting[place] = (task, done)
            return True
    return False


def _begun(executor: Executor, function: Callable[[Unpack[_Ts]], _T], task: tuple[*_Ts]) -> Future[_T]:
    from concurrent.futures import BrokenExecutor, Future

    try:
        return executor.submit(function, *task)
    except (RuntimeError, OSError) as error:  # it is broken, cannot start a process, or has ended
        refused: Future[_T] = Future()
        refused.set_exception(BrokenExecutor(str(error)))
        return refused


def processes_for(size_bytes: int, worth_bytes: int, cores: int) -> int:
    """How many processes besides this one so many bytes are worth."""
    return 0 if size_bytes < worth_bytes else min(cores - 1, _MOST_CORES)


@contextmanager
def sharing_executor(given: Executor | None, size_bytes: int, worth_bytes: int) -> Iterator[Executor | None]:
    """The executor that is given, or a pool for as long as the block runs where there is enough to share."""
    processes = 0
    # A frozen program's executable is the program itself.
    if given is None and sys.executable and not getattr(sys, "frozen", False):
        processes = processes_for(size_bytes, worth_bytes, _usable_cores())
    if not processes:
        yield given
        return
    from langbatch.pool import ProcessPool

    with ProcessPool(processes) as pool:
        yield pool


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
