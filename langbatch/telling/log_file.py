"""The log of events as a file of JSON lines, which any number of processes append to.

A line is there once: the file itself tells which event is its last, and is asked before each append, under a
lock that dies with its holder. The consumer's place in the store tells it where the file was moved away.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from langbatch.events import Event

#: How far back the last line is looked for: many times the longest line.
_TAIL_BYTES = 1 << 16
#: How each of our lines begins.
_BEGIN = b'{"type": "'


class NotNow(Exception):
    """Another process is at the file and stands still. Nothing was written."""


class LogFile:
    """A consumer that appends to `path`, which is made 0600 where it is missing."""

    one_by_one = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = f"log:{path}"
        self.described = f"the event log {path}"

    def take(self, events: Sequence[Event]) -> None:
        """Append what the file does not have yet, in one write, and have it on disk. Raises `OSError`, and
        leaves the file as it was; `NotNow` where it is locked."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                _write(descriptor, _lines(events))  # a terminal or a pipe, which cannot be asked
                return
            with _locked(descriptor):
                end, torn = _end_of_lines(descriptor)
                written = _last_number(descriptor, end, events[0].store)
                lines = _lines([event for event in events if event.n > written])
                if _is_torn_event(torn):
                    os.ftruncate(descriptor, end)
                elif torn:  # somebody else's last line, without its end
                    end, lines = end + len(torn), b"\n" + lines
                try:
                    _write(descriptor, lines)
                    os.fsync(descriptor)
                except OSError:
                    os.ftruncate(descriptor, end)
                    raise
        finally:
            os.close(descriptor)


def _lines(events: Sequence[Event]) -> bytes:
    return b"".join(json.dumps(event.to_dict(), ensure_ascii=False).encode() + b"\n" for event in events)


@contextmanager
def _locked(descriptor: int) -> Iterator[None]:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise NotNow from None
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _end_of_lines(descriptor: int) -> tuple[int, bytes]:
    """Where the last whole line ends, and what stands behind it."""
    size = os.fstat(descriptor).st_size
    begin = max(0, size - _TAIL_BYTES)
    tail = os.pread(descriptor, size - begin, begin)
    whole = tail.rfind(b"\n") + 1
    return begin + whole, tail[whole:]


def _is_torn_event(rest: bytes) -> bool:
    """Whether a process died while it wrote this. What is not certainly ours is left alone."""
    if not rest or not (rest.startswith(_BEGIN) or _BEGIN.startswith(rest)):
        return False
    try:
        json.loads(rest)
    except ValueError:
        return True
    return False


def _last_number(descriptor: int, end: int, store: str) -> int:
    """The number of the last event of this store in the file; 0 where its end shows none."""
    begin = max(0, end - _TAIL_BYTES)
    for line in reversed(os.pread(descriptor, end - begin, begin).splitlines()):
        try:
            found = json.loads(line)
            if found["store"] == store:
                return int(found["n"])
        except (ValueError, KeyError, TypeError):
            continue  # the rest of a line whose beginning was not read, or somebody else's
    return 0


def _write(descriptor: int, data: bytes) -> None:
    """One write, as a rule: the kernel takes less only where the disk is full or a signal comes."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
