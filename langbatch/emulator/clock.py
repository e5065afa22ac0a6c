"""Time for the emulator: real, faster than real, or moved by hand. Seconds since the epoch."""

from __future__ import annotations

import threading
import time
from typing import Protocol, runtime_checkable


class Clock(Protocol):
    def now(self) -> float: ...


@runtime_checkable
class MovableClock(Protocol):
    """A clock that `POST /_emulator/clock` can move."""

    def now(self) -> float: ...

    def advance(self, seconds: float) -> None: ...


class RealClock:
    def now(self) -> float:
        return time.time()


class ScaledClock:
    """Runs `speed` times as fast as real time from its anchor on.

    The anchor is a pair (real time, emulated time). It is kept with a persistent emulator, so that
    emulated time never runs backwards over a restart.
    """

    def __init__(self, speed: float, anchor: tuple[float, float] | None = None) -> None:
        if speed <= 0:
            raise ValueError("speed must be above zero")
        real = time.time()
        self.speed = speed
        self.anchor = anchor if anchor is not None else (real, real)
        self._lock = threading.Lock()

    def now(self) -> float:
        with self._lock:
            real, emulated = self.anchor
            return emulated + (time.time() - real) * self.speed

    def advance(self, seconds: float) -> None:
        with self._lock:
            real, emulated = self.anchor
            self.anchor = (real, emulated + seconds)


class ManualClock:
    """Stands still until it is moved."""

    def __init__(self, start: float | None = None) -> None:
        self._now = float(int(time.time())) if start is None else start
        self._lock = threading.Lock()

    def now(self) -> float:
        with self._lock:
            return self._now

    def advance(self, seconds: float) -> None:
        with self._lock:
            self._now += seconds
