"""Where a batch stands after some time: a pure function of its course, without state or clock.

Time here is whatever the emulator counts in: seconds since creation, or how often it was looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from langbatch.emulator.config import Timing

StageName = Literal[
    "validating", "in_progress", "finalizing", "completed", "cancelling", "cancelled", "expired"
]
ENDED: frozenset[str] = frozenset({"completed", "cancelled", "expired"})


@dataclass(frozen=True, slots=True)
class Course:
    """What decides over a batch. `window` None: it never expires.

    `stop` ends it early: after that many rows, with that word.
    """

    timing: Timing
    total: int
    window: float | None = None
    cancelled_at: float | None = None
    stop: tuple[Literal["expired", "cancelled"], int] | None = None

    @property
    def running_from(self) -> float:
        return self.timing.validating

    @property
    def running_until(self) -> float:
        return self.running_from + self.timing.running + self.timing.running_per_request * self.total

    @property
    def natural_end(self) -> float:
        return self.running_until + self.timing.finalizing

    def rows_by(self, moment: float) -> int:
        """Rows that were run up to a moment."""
        if moment >= self.running_until:
            return self.total
        span = self.running_until - self.running_from
        return int(self.total * max(0.0, moment - self.running_from) / span) if span > 0 else 0


@dataclass(frozen=True, slots=True)
class Stage:
    """A status, since when, and how many rows were run by now."""

    status: StageName
    since: float
    rows: int


def stage_of(course: Course, elapsed: float) -> Stage:
    end, word, rows = course.natural_end, "completed", course.total
    if course.window is not None and course.window < end:
        end, word, rows = course.window, "expired", course.rows_by(course.window)
    if course.stop is not None:
        stop_word, stop_rows = course.stop
        share = min(stop_rows, course.total) / course.total if course.total else 0.0
        moment = course.running_from + (course.running_until - course.running_from) * share
        if moment < end:
            end, word, rows = moment, stop_word, min(stop_rows, course.total)
    cancelled_at = course.cancelled_at
    if cancelled_at is not None and cancelled_at < end and elapsed >= cancelled_at:
        done = course.rows_by(cancelled_at)
        gone = cancelled_at + course.timing.cancelling
        return Stage("cancelled", gone, done) if elapsed >= gone else Stage("cancelling", cancelled_at, done)
    if elapsed >= end:
        return Stage(word, end, rows)  # type: ignore[arg-type]
    if elapsed < course.running_from:
        return Stage("validating", 0.0, 0)
    if elapsed < course.running_until:
        return Stage("in_progress", course.running_from, course.rows_by(elapsed))
    return Stage("finalizing", course.running_until, course.total)
