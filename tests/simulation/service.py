"""The simulated service: what each call does to what is true, and nothing about replies.

Replies, lost or bent ones included, are `provider`'s business. A call that arrives late is kept here and takes
effect at its time, against whatever is true then.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from langbatch.errors import QuotaFull, Refused, RemoteNotFound
from langbatch.records import RemoteFile
from simulation.batches import NEVER, StoredBatch, StoredFile, close_batch, open_batch
from simulation.stage import VirtualClock


@dataclass(slots=True)
class LateCall:
    """A call under way whose client has stopped waiting. `file_id`: the input file that it names, if any."""

    at: float
    act: Callable[[], object]
    file_id: str | None


class PaidTwice(AssertionError):
    """A second batch was made for a shard while its first one runs, and nobody had asked for it."""


class SimulatedService:
    """Files, batches and the ledger of what was run, at one endpoint."""

    def __init__(
        self,
        clock: VirtualClock,
        rng: random.Random,
        draw: Callable[[str], str | None],
        grace_seconds: float,
        all_services: list[SimulatedService],
    ) -> None:
        """Joins `all_services`: the ids of one are not known to another."""
        self._all = all_services
        self._name = "abc"[len(all_services)]
        all_services.append(self)
        self.files: dict[str, StoredFile] = {}
        self.batches: dict[str, StoredBatch] = {}
        self.late: list[LateCall] = []
        self.late_refused = 0
        #: Batches running at once that the enqueued-token quota has room for; None: no limit.
        self.room: int | None = rng.choice((None, None, None, 1, 2))
        self.bounces = rng.random() < 0.5
        self.skew = rng.choice((0.0, 0.0, -400.0, 3_000.0))
        #: Whether an operator has said, of some shard, that its batch does not count.
        self.resubmitted = False
        self._clock = clock
        self._rng = rng
        self._draw = draw
        #: A list may lag behind for less than the grace period: an assumption of promise 2, said in README.
        self._most_lag = 0.6 * grace_seconds
        #: A delete may need a moment before creates see it; together with the lag still within the grace.
        self.fence_lag = rng.choice((0.0, 0.0, 0.2 * grace_seconds))

    # ------------------------------------------------------------ time

    def catch_up(self) -> None:
        """Let late calls arrive and batches end, as time has passed."""
        now = self._clock.now()
        due = sorted((call for call in self.late if call.at <= now), key=lambda call: call.at)
        self.late = [call for call in self.late if call.at > now]
        for call in due:
            try:
                call.act()
            except (RemoteNotFound, Refused, QuotaFull):
                self.late_refused += 1
        for batch in self.batches.values():
            close_batch(batch, now, self._result_file)

    def arrives_late(
        self, seconds: float, act: Callable[[float], object], file_id: str | None = None
    ) -> None:
        at = self._clock.now() + seconds
        self.late.append(LateCall(at, lambda: act(at), file_id))

    # ------------------------------------------------------------ files

    def put_file(self, name: str, content: bytes, at: float, knob: str | None = None) -> StoredFile:
        file = StoredFile(
            f"file-{self._name}{len(self.files):04d}",
            name,
            content,
            at,
            at + self._rng.choice((0.0, 5.0, 200.0)),
            at,
            name,
            len(content),
        )
        match knob:
            case "file_never_ready":
                file.ready_at = NEVER
            case "file_error":
                file.broken = True
            case "file_wrong_bytes":
                file.listed_bytes -= 1
            case "file_renamed":
                file.listed_name = f"gateway-{len(self.files)}.jsonl"
            case "file_list_lag":
                file.listed_at += self._rng.uniform(10, 2_000)
            case _:
                pass
        self.files[file.id] = file
        return file

    def _result_file(self, name: str, content: bytes) -> StoredFile:
        return self.put_file(name, content, self._clock.now())

    def show_file(self, file: StoredFile) -> RemoteFile:
        now = self._clock.now()
        status = "error" if file.broken else "processed" if now >= file.ready_at else "pending"
        size = file.listed_bytes if status == "processed" else None
        return RemoteFile(file.id, status, size, file.listed_name, file.created_at + self.skew)

    def known_file(self, file_id: str) -> StoredFile:
        file = self.files.get(file_id)
        if file is None or self._clock.now() >= min(file.deleted_at, file.gone_at):
            raise RemoteNotFound(f"no such File object: {file_id}", status=404, code="notFound")
        return file

    def delete_file(self, file_id: str) -> None:
        self.known_file(file_id).deleted_at = self._clock.now()

    # ------------------------------------------------------------ batches

    def make_batch(
        self, file_id: str, metadata: Mapping[str, str], at: float, *, unchecked: bool = False
    ) -> StoredBatch:
        """A create that reaches the service at `at`: it needs its input file, and room. `unchecked`: it is
        taken without the file, and fails in validation."""
        file = self.files.get(file_id)
        gone = file is None or at >= file.deleted_at + self.fence_lag
        if file is None or (gone and not unchecked):
            raise RemoteNotFound(f"no such File object: {file_id}", status=404, code="notFound")
        if file.broken or at < file.ready_at:
            raise Refused(f"file {file_id} cannot be used yet", status=400, code="invalidPayload")
        running = [batch for batch in self.batches.values() if not batch.ended(at)]
        full = self.room is not None and len(running) >= self.room
        if full and not self.bounces:
            raise QuotaFull("enqueued tokens", status=400, code="token_limit_exceeded")
        batch = open_batch(
            f"batch_{self._name}{len(self.batches):04d}", file, metadata, at, self._rng, self._draw
        )
        if full:
            batch.end = "bounced"
        if gone:
            batch.end = "refused"
        if batch.list_lags:
            batch.listed_at = at + self._rng.uniform(0, self._most_lag)
        self.batches[batch.id] = batch
        everywhere = [other for service in self._all for other in service.batches.values()]
        twins = [
            other.id
            for other in everywhere
            if other is not batch and not other.ended(at) and shard_of(other.file) == shard_of(file)
        ]
        if twins and not self.resubmitted:
            raise PaidTwice(f"{batch.id} was made while {twins} ran for the same shard")
        return batch

    def known_batch(self, batch_id: str) -> StoredBatch:
        batch = self.batches.get(batch_id)
        if batch is None or batch.denied(self._clock.now()):
            raise RemoteNotFound(f"no such batch: {batch_id}", status=404, code="notFound")
        batch.seen = True
        return batch

    def listed_batches(self) -> list[StoredBatch]:
        """Newest first, without those that the list does not show yet or denies."""
        now = self._clock.now()
        shown = [batch for batch in self.batches.values() if batch.listed_at <= now and not batch.denied(now)]
        shown.sort(key=lambda batch: (batch.created_at, batch.id), reverse=True)
        return shown

    def cancel_batch(self, batch_id: str) -> StoredBatch:
        batch, now = self.known_batch(batch_id), self._clock.now()
        if batch.ended(now):
            if batch.status(now) == "cancelled":
                return batch
            raise Refused(f"Cannot cancel a batch with status '{batch.status(now)}'.", status=409)
        if batch.cancelled_at is None:
            batch.cancelled_at = now
            batch.cancel_takes = self._rng.uniform(1, 600)
        return batch


def shard_of(file: StoredFile) -> str:
    """The shard that an upload's name tells: all of it but attempt and hash."""
    return file.name.rsplit("-", 2)[0]
