"""Holding on to a claim while one long call is under way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from langbatch.errors import LangBatchError
from langbatch.store.store import LEASE_SECONDS, JobStore
from langbatch.store.transitions import Claim


@contextmanager
def kept(store: JobStore, claim: Claim) -> Iterator[None]:
    """Renew `claim` from a thread until the block ends.

    A frozen process stops renewing too, which is meant: others may then take the shard over, and this
    one finds its claim lost at its next write.
    """
    over = threading.Event()

    def renew() -> None:
        while not over.wait(LEASE_SECONDS / 3):
            try:
                if not store.renew(claim):
                    return
            except LangBatchError:
                continue  # the database is busy; the next turn comes before the lease ends

    thread = threading.Thread(target=renew, name="langbatch-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
