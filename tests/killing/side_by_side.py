"""Runs that have nothing to do with each other, a few at a time."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock, local

from killing.processes import Nursery

#: Something to do in a folder of its own, with processes from this nursery.
Task = Callable[[Path, Nursery], None]


def run_side_by_side(folder: Path, threads: int, tasks: Iterable[Task]) -> None:
    """Each thread has a nursery of its own. A task's folder goes away when it succeeds; the first that fails
    ends all."""
    own = local()
    opened: list[Nursery] = []
    lock = Lock()

    def nursery() -> Nursery:
        if not hasattr(own, "nursery"):
            with lock:
                fresh = Nursery(folder / f"processes{len(opened)}")
                opened.append(fresh)
            own.nursery = fresh.__enter__()
        found: Nursery = own.nursery
        return found

    def one(number: int, task: Task) -> None:
        place = folder / f"run{number}"
        task(place, nursery())
        shutil.rmtree(place, ignore_errors=True)

    try:
        with ThreadPoolExecutor(threads) as pool:
            results = [pool.submit(one, number, task) for number, task in enumerate(tasks)]
            try:
                for result in results:
                    result.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    finally:
        for one_of_them in opened:
            one_of_them.__exit__(None, None, None)
