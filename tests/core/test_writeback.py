"""Files that go to the disk while they are written."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from langbatch.publish import publishing
from langbatch.writeback import STEP_BYTES

BLOCK = bytes(1 << 20)
STEP_BLOCKS = STEP_BYTES // len(BLOCK)


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """What each sync of the test does first, in their order; after the last of them nothing more."""
    first: list[Callable[[], None]] = []
    fsync = os.fsync

    def doing_that_first(descriptor: int) -> None:
        if first:
            first.pop(0)()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", doing_that_first)
    return first


def refuse() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_large_file_goes_to_the_disk_before_it_is_whole(
    tmp_path: Path, syncs: list[Callable[[], None]]
) -> None:
    begun = threading.Event()
    syncs.append(begun.set)
    with publishing(tmp_path / "out") as file:
        for _ in range(STEP_BLOCKS + 1):
            file.write(BLOCK)
        assert begun.wait(60)
    assert (tmp_path / "out").stat().st_size == (STEP_BLOCKS + 1) * len(BLOCK)


def test_a_small_file_is_synced_once_and_by_nobody_else(
    tmp_path: Path, syncs: list[Callable[[], None]]
) -> None:
    threads: list[str] = []
    syncs += [lambda: threads.append(threading.current_thread().name)] * 3
    with publishing(tmp_path / "out") as file:
        file.write(BLOCK)
    # The file, and then its folder.
    assert threads == [threading.main_thread().name] * 2


@pytest.mark.parametrize("more_blocks", [0, STEP_BLOCKS], ids=["last-sync", "later-write"])
def test_what_the_disk_refused_meanwhile_is_raised_though_later_syncs_succeed(
    tmp_path: Path, syncs: list[Callable[[], None]], more_blocks: int
) -> None:
    syncs.append(refuse)
    path = tmp_path / "out"
    path.write_bytes(b"before")

    def write() -> None:
        with publishing(path) as file:
            for _ in range(STEP_BLOCKS + 1 + more_blocks):
                file.write(BLOCK)

    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        write()
    assert not syncs
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["out"]


def test_a_file_that_is_given_up_is_closed_after_its_sync_has_ended(
    tmp_path: Path, syncs: list[Callable[[], None]]
) -> None:
    given_up = threading.Event()
    happened: list[str] = []

    def end_after_it_is_given_up() -> None:
        given_up.wait(60)
        for _ in range(2_000_000):
            pass  # longer than closing takes that waits for nobody
        happened.append("synced")

    def write() -> None:
        with publishing(tmp_path / "out") as file:
            for _ in range(STEP_BLOCKS + 1):
                file.write(BLOCK)
            given_up.set()
            raise InterruptedError

    syncs.append(end_after_it_is_given_up)
    with pytest.raises(InterruptedError):
        write()
    assert happened == ["synced"]
    assert os.listdir(tmp_path) == []
