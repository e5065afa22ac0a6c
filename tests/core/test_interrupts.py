"""Ctrl-C waits where it would leave halves behind."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from langbatch.interrupts import interrupts_wait


@pytest.fixture(autouse=True)
def python_s_own_handler() -> Iterator[None]:
    """A shell starts background commands with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted(done: list[str], error: type[Exception] | None = None) -> None:
    with interrupts_wait():
        signal.raise_signal(signal.SIGINT)
        done.append("block")
        if error is not None:
            raise error


def test_an_interrupt_comes_at_the_end_of_the_block() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted(done)
    assert done == ["block"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_comes_before_what_the_block_raises() -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted([], ValueError)


def test_without_an_interrupt_nothing_comes() -> None:
    with interrupts_wait():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_own_handler_is_told_after_the_block() -> None:
    told: list[str] = []
    signal.signal(signal.SIGINT, lambda *_: told.append("handler"))
    interrupted(told)
    assert told == ["block", "handler"]


def test_an_ignored_interrupt_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts_wait():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_other_threads_leave_the_handler_alone() -> None:
    seen: list[object] = []

    def work() -> None:
        with interrupts_wait():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
