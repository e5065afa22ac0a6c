"""What is true at the provider: files, batches and what each row came to, as functions of virtual time."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from langbatch.records import BatchCounts, BatchFault, RemoteBatch

#: How a batch ends if nobody cancels it.
End = Literal["completed", "refused", "bounced", "expired"]
RowKind = Literal["succeeded", "errored", "missing", "garbled", "garbled_id", "twice", "in_both_files"]
#: What can be read of a row in the batch's files: the success's serial number, an outcome, or nothing.
Reading = tuple[Literal["succeeded", "errored", "unreadable", "expired"], str] | None

_ROW_KINDS: Mapping[str, RowKind] = {
    "row_errored": "errored",
    "row_missing": "missing",
    "row_garbled": "garbled",
    "row_garbled_id": "garbled_id",
    "row_twice": "twice",
    "row_in_both_files": "in_both_files",
}
NEVER = float("inf")


@dataclass(slots=True)
class StoredFile:
    """A file. `ready_at` NEVER: it stays pending. Deleting it fences creates from `deleted_at` on."""

    id: str
    name: str
    content: bytes
    created_at: float
    ready_at: float
    listed_at: float = 0.0
    listed_name: str = ""
    listed_bytes: int = 0
    broken: bool = False
    deleted_at: float = NEVER
    gone_at: float = NEVER
    #: Downloads that were cut short without any sign but the batch's counts.
    silent_cuts: int = 0


@dataclass(slots=True)
class RowTruth:
    """One row's fate. `at` is the virtual time at which it would be run; what has run is paid for."""

    custom_id: str
    kind: RowKind
    serial: str
    at: float


@dataclass(slots=True)
class StoredBatch:
    id: str
    file: StoredFile
    metadata: Mapping[str, str] | None
    created_at: float
    listed_at: float
    end: End
    runs_at: float
    ends_at: float
    rows: list[RowTruth]
    rows_end_at: float = NEVER
    #: The unknown word is shown in this window, and the batch denied in that one.
    strange: tuple[float, float] = (NEVER, NEVER)
    hidden: tuple[float, float] = (NEVER, NEVER)
    output_late_until: float = 0.0
    output_gone: bool = False
    counts_null: bool = False
    unknown_row: bool = False
    list_lags: bool = False
    seen: bool = False
    cancelled_at: float | None = None
    cancel_takes: float = 0.0
    output: StoredFile | None = None
    error: StoredFile | None = None
    readings: dict[str, Reading] = field(default_factory=dict)
    closed: bool = False

    def status(self, now: float) -> str:
        """The status word at a moment of the service's life."""
        if self.cancelled_at is not None:
            return "cancelled" if now >= self.cancelled_at + self.cancel_takes else "cancelling"
        if now < self.runs_at:
            return "validating"
        if self.end in ("refused", "bounced"):
            return "failed"
        if now < self.ends_at:
            return "in_progress" if now < self.rows_end_at else "finalizing"
        return "expired" if self.end == "expired" else "completed"

    def ended(self, now: float) -> bool:
        return self.status(now) in ("completed", "failed", "expired", "cancelled")

    def denied(self, now: float) -> bool:
        """Whether the service says that it knows no such batch. It may forget one that a client has seen; one
        that nobody has seen yet could not be told from one never made."""
        return self.seen and self.hidden[0] <= now < self.hidden[1]

    @property
    def offers_nothing(self) -> bool:
        """Whether it has ended without a file of answers that could be fetched, and never will have one."""
        return self.closed and (self.output is None or self.output_gone)

    def executed(self, now: float) -> list[RowTruth]:
        """Rows that were run by now, and so paid for."""
        if self.end in ("refused", "bounced"):
            return []
        limit = now if self.cancelled_at is None else min(now, self.cancelled_at)
        return [row for row in self.rows if row.at <= limit]

    def as_seen(self, now: float, skew: float) -> RemoteBatch:
        status = self.status(now)
        shown = "pondering" if self.strange[0] <= now < self.strange[1] else status
        late = self.closed and now < self.output_late_until
        faults: tuple[BatchFault, ...] = ()
        if status == "failed":
            code = "token_limit_exceeded" if self.end == "bounced" else "model_not_found"
            faults = (BatchFault(code, "simulated"),)
        return RemoteBatch(
            id=self.id,
            status=shown,
            input_file_id=self.file.id,
            output_file_id=None if late or self.output is None else self.output.id,
            # Where counts do not add up, nobody could know that an error file is still to come.
            error_file_id=None if self.error is None or (late and status == "completed") else self.error.id,
            created_at=self.created_at + skew,
            counts=None if self.counts_null else self._counts(now, status),
            faults=faults,
            metadata=self.metadata,
        )

    def _counts(self, now: float, status: str) -> BatchCounts:
        if status in ("validating", "failed"):
            return BatchCounts()
        executed = self.executed(now)
        failed = sum(row.kind == "errored" for row in executed)
        missing = sum(row.kind == "missing" for row in executed)
        return BatchCounts(len(self.rows), len(executed) - failed - missing, failed)

    def honest(self) -> bool:
        """Whether the counts and the files of the completed batch agree line by line."""
        plain = (
            all(row.kind in ("succeeded", "errored", "missing") for row in self.rows) and not self.unknown_row
        )
        calm = self.end == "completed" and self.cancelled_at is None
        return plain and calm and not self.counts_null


def open_batch(
    batch_id: str,
    file: StoredFile,
    metadata: Mapping[str, str],
    now: float,
    rng: random.Random,
    draw: Callable[[str], str | None],
) -> StoredBatch:
    """A new batch with its whole future, a fault or two included."""
    knobs = {knob for knob in (draw("batch"), draw("batch")) if knob}
    validates = rng.uniform(5, 120)
    runs = rng.choice((60.0, 600.0, 3_000.0)) * rng.uniform(0.5, 1.5)
    if "batch_slow" in knobs:
        runs = max(12 * runs, 20_000.0)
    runs_at = now + validates
    rows_end_at = runs_at + runs
    end: End = "completed"
    if "batch_refused" in knobs:
        end = "refused"
    elif "batch_bounced" in knobs:
        end = "bounced"
    elif "batch_expires" in knobs:
        end = "expired"
    rows = []
    for place, line in enumerate(file.content.splitlines()):
        fault = draw("row")
        kind: RowKind = _ROW_KINDS.get(fault, "succeeded") if fault else "succeeded"
        at = runs_at + runs * rng.random()
        if end == "expired" and rng.random() < 0.5:
            at = NEVER
        rows.append(RowTruth(json.loads(line)["custom_id"], kind, f"{batch_id}.{place}", at))
        if fault == "row_unknown":
            knobs.add("row_unknown")
    batch = StoredBatch(
        batch_id,
        file,
        None if "batch_metadata_null" in knobs else dict(metadata),
        now,
        now,
        end,
        runs_at,
        rows_end_at + rng.uniform(1, 60),
        rows,
        rows_end_at,
        counts_null="batch_counts_null" in knobs,
        unknown_row="row_unknown" in knobs,
        list_lags="batch_list_lag" in knobs,
    )
    if "batch_strange" in knobs:
        batch.strange = (now + validates / 2, now + rng.choice((7_200.0, 60 * 3_600.0)))
    if "batch_hidden" in knobs:
        begins = now + rng.uniform(0, validates + runs)
        batch.hidden = (begins, begins + rng.choice((1_800.0, 30 * 3_600.0)))
    if "batch_lost" in knobs:
        batch.hidden = (now + rng.uniform(0, validates + runs), NEVER)
    if "batch_output_late" in knobs:
        # Without counts nobody could know that there is more to come.
        batch.counts_null = False
        batch.output_late_until = batch.ends_at + rng.choice((600.0, 30 * 3_600.0))
    if "batch_output_gone" in knobs:
        batch.output_gone = True
    return batch


def close_batch(batch: StoredBatch, now: float, new_file: Callable[[str, bytes], StoredFile]) -> None:
    """Write the files of a batch that has ended, once."""
    if batch.closed or not batch.ended(now):
        return
    batch.closed = True
    if batch.end in ("refused", "bounced") and batch.cancelled_at is None:
        return
    out: list[str] = []
    err: list[str] = []
    executed = {row.custom_id for row in batch.executed(now)}
    status = batch.status(now)
    for row in batch.rows:
        reading: Reading = None
        if row.custom_id not in executed:
            if status == "expired":
                err.append(_failed(row, "batch_expired"))
                reading = ("expired", "batch_expired")
        elif row.kind == "errored":
            err.append(_refused(row))
            reading = ("errored", "content_filter")
        elif row.kind == "garbled":
            out.append(_succeeded(row)[:-9])
            reading = ("unreadable", "unreadable")
        elif row.kind == "garbled_id":
            out.append('{"response": {"status_code": 200, "bo')
        elif row.kind != "missing":
            if row.kind == "in_both_files":
                err.append(_refused(row))
            out.extend([_succeeded(row)] * (2 if row.kind == "twice" else 1))
            reading = ("succeeded", row.serial)
        batch.readings[row.custom_id] = reading
    if batch.unknown_row:
        out.append(_succeeded(RowTruth("nobody-asked", "succeeded", f"{batch.id}.x", 0.0)))
    # The order of rows is not the order of requests (wire reference, 5).
    out.reverse()
    if out:
        batch.output = new_file("output", _lines(out))
        if batch.output_gone:
            batch.output.gone_at = 0.0
    # Azure names an error file of zero bytes where nothing failed.
    batch.error = new_file("error", _lines(err))


def _lines(rows: list[str]) -> bytes:
    return "".join(f"{row}\n" for row in rows).encode()


def _succeeded(row: RowTruth) -> str:
    return (
        f'{{"custom_id": "{row.custom_id}", "response": {{"body": {{"id": "{row.serial}", "choices": [], '
        f'"usage": {{"prompt_tokens": 3, "completion_tokens": 1}}}}, "status_code": 200}}, "error": null}}'
    )


def _refused(row: RowTruth) -> str:
    error = '{"code": "content_filter", "message": "filtered"}'
    return (
        f'{{"custom_id": "{row.custom_id}", "response": {{"body": {{"error": {error}}}, "status_code": 400}}, '
        '"error": null}'
    )


def _failed(row: RowTruth, code: str) -> str:
    error = f'{{"code": "{code}", "message": "not run"}}'
    return f'{{"custom_id": "{row.custom_id}", "response": null, "error": {error}}}'
