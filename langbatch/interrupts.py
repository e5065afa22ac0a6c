"""Ctrl-C at moments when nothing can be cut in two."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Ctrl-C comes at the end of this block instead of within it.

    For imports of large packages: one that is cut short leaves halves of modules behind, and what is written
    in Rust may turn the interrupt into a panic that no handler of `KeyboardInterrupt` knows. Threads other
    than the main one are not interrupted, nor may they ask for this.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    came = False

    def note(*_: object) -> None:
        nonlocal came
        came = True

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)
