"""What waiting for a job means: when only a person can help, and when the service is out.

A wait is a generator of the seconds to sleep before it goes on. Whoever drives it does the sleeping: a thread
(`slept_through`), or an event loop (`langbatch.awaiting`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from langbatch.clock import Clock
from langbatch.errors import (
    AccessRefused,
    BatchStateError,
    BatchStorageError,
    LangBatchError,
    NeedsOperator,
    SetupError,
    Unreachable,
    WaitTimeout,
)
from langbatch.records import Attempt, Progress, Shard
from langbatch.status import JobStatus

T = TypeVar("T")

#: Seconds to sleep before it goes on, and what comes of it.
Pausing = Generator[float, None, T]

#: Between two looks, so that a wait that has just run out does not become a busy loop.
SHORTEST_SLEEP_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look at a job has brought. `due`: seconds until the next, None when there is none."""

    status: JobStatus
    shards: Sequence[Shard]
    due: float | None


def until_ended(
    look: Callable[[bool], Seen], patience: Patience, monotonic: Callable[[], float], timeout: float | None
) -> Pausing[JobStatus]:
    """Look, eagerly at first, until the job has ended; its last status. Raises as `JobManager.wait`."""
    began, eager = monotonic(), True
    while True:
        seen, eager = look(eager), False
        status = seen.status
        if status.finished:
            return status
        now = monotonic()
        left = patience.until_next_look(seen, now)
        if isinstance(left, LangBatchError):
            raise left
        if timeout is not None:
            if now - began >= timeout:
                raise WaitTimeout(
                    f"job {status.id} is not finished after {timeout:g} s",
                    hint="It goes on: wait again, or load it later by its id.",
                )
            left = min(left, began + timeout - now)
        yield max(left, SHORTEST_SLEEP_SECONDS)


def until_each_ended(
    job_ids: Iterable[str],
    look: Callable[[Collection[str], bool], Iterable[tuple[str, Seen]]],
    patience: Callable[[], Patience],
    monotonic: Callable[[], float],
) -> Pausing[dict[str, LangBatchError]]:
    """Look at all, eagerly at first, until none can get further by itself. Why those that are unfinished
    cannot, by their ids."""
    waited_for = {job_id: patience() for job_id in job_ids}
    errors: dict[str, LangBatchError] = {}
    eager = True
    while waited_for:
        pause = math.inf
        for job_id, seen in look(list(waited_for), eager):
            if not seen.status.finished:
                left = waited_for[job_id].until_next_look(seen, monotonic())
                if not isinstance(left, LangBatchError):
                    pause = min(pause, left)
                    continue
                errors[job_id] = left
            del waited_for[job_id]
        eager = False
        if waited_for:
            yield max(pause, SHORTEST_SLEEP_SECONDS)
    return errors


def slept_through(steps: Pausing[T], sleep: Callable[[float], None]) -> T:
    """What comes of the steps, with their pauses slept in this thread."""
    while True:
        try:
            pause = next(steps)
        except StopIteration as end:
            found: T = end.value
            return found
        sleep(pause)


def obstacle(shards: Sequence[Shard]) -> LangBatchError | None:
    """What a person must mend, where nothing of the job can go on without; None otherwise."""
    unfinished = _first_in_line(shard for shard in shards if shard.state != "done")
    blockers = {shard.blocker for shard in unfinished}
    if not unfinished or None in blockers:
        return None
    text = next(shard.attention for shard in unfinished) or "the job is paused"
    if "budget" in blockers:
        return SetupError(
            f"{text} ({len(unfinished)} of {len(shards)} shards are not sent)",
            hint="Raise it by submitting the same file again: `langbatch submit FILE --max-cost N` (or "
            "--max-tokens; it stays the same job), or cancel the job. What was sent is not lost.",
            code="budget",
        )
    then = "then run `langbatch resume`. Nothing was lost."
    if "disk" in blockers:
        return BatchStorageError(text, hint=f"Free some disk space, {then}")
    if "setup" in blockers:
        return SetupError(
            text,
            hint="Check endpoint and api-version, and submit the same file again with the right ones (it is "
            "the same job), or mend the credentials and run `langbatch resume`. Nothing was lost.",
        )
    return AccessRefused(text, hint=f"Check the key, token or role, {then}")


def _first_in_line(shards: Iterable[Shard]) -> list[Shard]:
    """Without those that wait for what the others give back to the budget, if there are others."""
    given = list(shards)
    return [shard for shard in given if shard.waits_for != "budget"] or given


def never_reached(shards: Sequence[tuple[Shard, Attempt | None]]) -> Unreachable | None:
    """That nothing of the job could be sent because no call came through; None otherwise."""
    unfinished = [(shard, attempt) for shard, attempt in shards if shard.state != "done"]
    if not unfinished or any(
        shard.waits_for != "trouble" or shard.state not in ("waiting", "uploaded") or _answered(attempt)
        for shard, attempt in unfinished
    ):
        return None
    text = unfinished[0][0].attention or "the service cannot be reached"
    hint = (
        "The job is stored; `langbatch resume` goes on when the service answers. `langbatch doctor` checks "
        "the address: if it is wrong, cancel the job, mend it and submit again."
    )
    return Unreachable(text, hint=hint)


def _answered(attempt: Attempt | None) -> bool:
    """Whether an attempt has ended: the service was there, though what it did came to nothing."""
    return attempt is not None and attempt.ended_at is not None


def in_trouble(shards: Sequence[Shard]) -> bool:
    """Whether every shard that could move is held up by failing calls. Quota and grace are no outage."""
    moving = _first_in_line(shard for shard in shards if shard.state not in ("done", "needs_operator"))
    return bool(moving) and all(shard.waits_for == "trouble" for shard in moving)


@dataclass(slots=True)
class Patience:
    """How long one job is waited for: until it ends, a person must act, or its service has been out for
    `outage_seconds` (None: for ever). Times are monotonic."""

    outage_seconds: float | None
    _trouble_since: float | None = None

    def until_next_look(self, seen: Seen, now: float) -> float | LangBatchError:
        """Seconds to wait before the unfinished job is looked at again, or why waiting on is useless."""
        if seen.status.state == "draft":
            return not_started(seen.status.id)
        if seen.due is None:
            return NeedsOperator(seen.status.attention or "a shard needs a person")
        if (blocked := obstacle(seen.shards)) is not None:
            return blocked
        if not in_trouble(seen.shards):
            self._trouble_since = None
        elif self._trouble_since is None:
            self._trouble_since = now
        left = self._left(now)
        if left > 0:
            return min(seen.due, left)
        return Unreachable(
            f"gave up after {self.outage_seconds:g} s of trouble: {seen.status.attention}",
            hint=f"The job is unchanged. `langbatch resume {seen.status.id} --wait` goes on.",
        )

    def _left(self, now: float) -> float:
        """Seconds until an outage that is under way has lasted too long."""
        if self.outage_seconds is None or self._trouble_since is None:
            return math.inf
        return self._trouble_since + self.outage_seconds - now


@dataclass(slots=True)
class ClockWatch:
    """Notices that the wall clock was set back during a wait: by it, all is due later than was meant."""

    clock: Clock
    _seen: tuple[float, float] | None = None

    def was_set_back(self) -> bool:
        """Whether it was, since this was asked last."""
        wall, steady = self.clock.now(), self.clock.monotonic()
        before, self._seen = self._seen, (wall, steady)
        return before is not None and wall - before[0] < steady - before[1] - 1.0


def not_started(job_id: str) -> BatchStateError:
    """That a job is a draft: nothing of it was sent, and nothing is until somebody starts it."""
    return BatchStateError(
        f"job {job_id} was saved, but not started",
        hint="Batch.load(id).start() starts it, or `langbatch submit` of the same file.",
        code="not_started",
    )


def settling(shards: Sequence[tuple[Shard, Attempt | None]]) -> bool:
    """Whether a little patience may still bring a batch: the service is taking in a file, or stumbled
    after it had answered before."""
    return any(
        shard.waits_for == "file"
        or (
            shard.waits_for == "trouble"
            and (shard.state in ("uploading", "uploaded") or _answered(attempt))
            and shard.state != "needs_operator"
        )
        for shard, attempt in shards
    )


def progress_of(status: JobStatus) -> Progress:
    """How far the requests have come, by the service's own counts while a batch runs."""
    detail = status.attention or f"{status.state}: {status.status}"
    return Progress("wait", status.done, status.total, "requests", detail)
