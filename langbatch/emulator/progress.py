"""What becomes of a batch. Nothing runs in the background: a batch moves when somebody looks.

The heavy steps (validation, execution, writing the result files) happen at the first look that needs
them, under that batch's own lock, so that other calls go on. Each can be repeated after a crash.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from langbatch.emulator.blobs import blob_path
from langbatch.emulator.context import Context
from langbatch.emulator.execution import (
    RunPlan,
    Totals,
    execute,
    never_run_rows,
    rows_meant,
    totals_after,
)
from langbatch.emulator.files import Files
from langbatch.emulator.objects import BatchRecord, Checked, Ending, LineFault
from langbatch.emulator.profiles import PROFILES
from langbatch.emulator.stages import ENDED, Course, Stage, stage_of
from langbatch.emulator.validation import Rules, check_file
from langbatch.emulator.wire import FileBlocks, create_private


class Progress:
    """Moves batches along."""

    def __init__(self, context: Context, files: Files) -> None:
        self._context = context
        self._files = files
        self._locks: dict[str, threading.Lock] = {}

    def look(self, batch_id: str, *, counts: bool = True) -> tuple[BatchRecord, Stage | None, Totals]:
        """A batch as it stands now. `counts`: whether this is a look of the client's.

        The stage is None for a batch that ended.
        """
        with self._lock_of(batch_id):
            record = self._context.storage.batch(batch_id)
            if record is None:
                raise KeyError(batch_id)
            if record.ending is None and counts:
                record = replace(record, looks=record.looks + 1)
                self._context.storage.save_batch(record)
            return self._advance(record)

    def cancel(self, batch_id: str) -> tuple[BatchRecord, Stage | None, Totals]:
        """Begin to cancel, unless it ended or is being cancelled already."""
        with self._lock_of(batch_id):
            record = self._context.storage.batch(batch_id)
            if record is None:
                raise KeyError(batch_id)
            record, stage, totals = self._advance(record)
            if stage is None or record.cancelled_at is not None:
                return record, stage, totals
            now = self._context.now()
            elapsed = self._context.elapsed(record.created_at, record.looks, now)
            record = replace(record, cancelled_at=elapsed, cancel_seen_at=now)
            rows = stage_of(self._course(record), elapsed).rows if record.checked is not None else 0
            with self._context.storage.transaction():
                self._context.storage.save_batch(record, executed_rows=rows)
                self._context.storage.count("committed", "cancels")
            return self._advance(record)

    def settle_payments(self) -> None:
        """Work out the rows of every open batch, looked at or not: they will have to be paid for."""
        for open_batch in list(self._context.storage.batches(open_only=True)):
            with self._lock_of(open_batch.id):
                record = self._context.storage.batch(open_batch.id)
                if record is None or record.ending is not None:
                    continue
                record, stage, _ = self._advance(record)
                if stage is not None and record.cancelled_at is None:
                    record = self._checked(record)
                    if record.checked is not None and not record.checked.faults:
                        self._executed(record)

    # ------------------------------------------------------------ one step

    def _advance(self, record: BatchRecord) -> tuple[BatchRecord, Stage | None, Totals]:
        if record.ending is not None:
            ending = record.ending
            done = Totals(0, 0, ending.completed, ending.failed, ending.input_tokens, ending.output_tokens)
            return record, None, done
        validated_at = self._context.config.timing.validating
        elapsed = self._context.elapsed(record.created_at, record.looks, self._context.now())
        never = record.cancelled_at is not None and record.cancelled_at < validated_at
        if elapsed >= validated_at and not never:
            record = self._checked(record)
            if record.checked is not None and record.checked.faults:
                return self._advance(self._fail(record, record.checked.faults))
            record = self._executed(record)
            late = self._spoiled(record)
            if late is not None:
                return self._advance(self._fail(record, (late,)))
        stage = stage_of(self._course(record), elapsed)
        if stage.status in ENDED:
            return self._advance(self._conclude(record, stage))
        if stage.status == "validating" or not record.executed:
            return record, stage, Totals()
        return record, stage, totals_after(self._run_folder(record), stage.rows)

    def _course(self, record: BatchRecord) -> Course:
        config = self._context.config
        total = record.checked.requests if record.checked is not None else 0
        # With looks there is no such thing as 24 hours.
        expires = PROFILES[record.family].expires and config.timing.unit == "seconds"
        stop = None
        if "batch-expire" in record.quirks:
            stop = ("expired", rows_meant(record.quirks["batch-expire"], total))
        elif "batch-cancel" in record.quirks:
            stop = ("cancelled", rows_meant(record.quirks["batch-cancel"], total))
        return Course(
            timing=config.timing,
            total=total,
            window=config.window_seconds if expires else None,
            cancelled_at=record.cancelled_at,
            stop=stop,  # type: ignore[arg-type]
        )

    def _checked(self, record: BatchRecord) -> BatchRecord:
        if record.checked is not None:
            return record
        record = replace(record, checked=self._check(record))
        self._context.storage.save_batch(record)
        return record

    def _check(self, record: BatchRecord) -> Checked:
        config, profile = self._context.config, PROFILES[record.family]
        if record.refused is not None:
            return Checked(0, record.model, (record.refused,))
        source = self._source(record)
        if source is None:
            code = "input_no_permissions" if record.input_blob else "invalid_request"
            return Checked(0, None, (LineFault(code, "The input could not be read."),))
        strict = profile.strict_urls if config.strict_urls is None else config.strict_urls
        rules = Rules(
            requests_limit=config.requests_limit or profile.requests_limit,
            endpoint=record.endpoint if strict else None,
            deployments=config.deployments,
            standard_deployments=config.standard_deployments,
            errors_listed=config.errors_listed,
            bom_is_json_fault=record.family == "openai",
        )
        return check_file(source, rules)

    def _executed(self, record: BatchRecord) -> BatchRecord:
        if record.executed or record.checked is None:
            return record
        context, storage = self._context, self._context.storage
        source = self._source(record)
        if source is None:
            return record
        profile = PROFILES[record.family]
        plan = RunPlan(
            seed=context.config.seed,
            batch_id=record.id,
            number=record.number,
            created_at=int(record.created_at),
            azure=profile.content_filters,
            row_ids=profile.row_ids,
            failure_rate=context.config.failure_rate,
            answer=context.config.answer,
            quirks=record.quirks,
        )
        storage.forget_executions(record.number)
        family = context.config.family_of(record.sent_filename)

        def keep(rows: list[tuple[int, str, int]]) -> None:
            storage.add_executions(
                [(record.number, position, family, custom_id, paid) for position, custom_id, paid in rows]
            )

        rows = execute(plan, source, self._run_folder(record), keep)
        record = replace(record, executed=True)
        if record.cancelled_at is not None:
            rows = stage_of(self._course(record), record.cancelled_at).rows
        elif (stop := self._course(record).stop) is not None:
            rows = stop[1]
        storage.save_batch(record, executed_rows=rows)
        return record

    def _spoiled(self, record: BatchRecord) -> LineFault | None:
        """Whether the input was changed under a running batch."""
        storage = self._context.storage
        modified = LineFault("input_modified", "The input was modified while the batch was running.")
        if record.input_blob is not None:
            blob = storage.blob(blob_path(record.input_blob))
            return modified if blob is None or blob[0] != record.input_blob_generation else None
        if self._context.config.deleted_input == "fail" and record.input_file_id is not None:
            file = storage.file(record.input_file_id)
            return modified if file is None or file.deleted_at is not None else None
        return None

    def _fail(self, record: BatchRecord, faults: tuple[LineFault, ...]) -> BatchRecord:
        ending = Ending("failed", self._context.now(), 0, 0, 0, None, None, 0, 0, faults)
        record = replace(record, ending=ending, tokens=0)
        self._context.storage.save_batch(record, executed_rows=0)
        self._tidy(record)
        return record

    # ------------------------------------------------------------ the end

    def _conclude(self, record: BatchRecord, stage: Stage) -> BatchRecord:
        """Write the result files and the ending. Until the last commit it can be done again."""
        context, storage = self._context, self._context.storage
        folder = self._run_folder(record)
        totals = totals_after(folder, stage.rows) if record.executed else Totals()
        scale = 1.0 if context.config.timing.unit == "seconds" else 0.0
        at = record.created_at + stage.since * scale if scale else context.now()
        output, error = storage.incoming(), storage.incoming()
        _copy(folder / "output", totals.output_bytes, output)
        _copy(folder / "error", totals.error_bytes, error)
        self._append_never_run(record, stage, error)
        if "rows-no-final-newline" in record.quirks:
            _strip_final_newline(output)
            _strip_final_newline(error)
        with storage.transaction():
            output_id, error_id = self._publish(record, stage, output, error, at)
            ending = Ending(
                status=stage.status,
                at=at,
                rows=stage.rows,
                completed=totals.completed,
                failed=totals.failed,
                output_file_id=output_id,
                error_file_id=error_id,
                input_tokens=totals.input_tokens,
                output_tokens=totals.output_tokens,
            )
            record = replace(record, ending=ending)
            storage.save_batch(record, executed_rows=stage.rows)
        self._tidy(record)
        return record

    def _publish(
        self, record: BatchRecord, stage: Stage, output: Path, error: Path, at: float
    ) -> tuple[str | None, str | None]:
        has_output = output.stat().st_size > 0
        # A clean Azure job still gets an error file, of zero bytes (§5).
        has_error = error.stat().st_size > 0
        empty_error = PROFILES[record.family].empty_error_file and stage.status == "completed"
        if record.input_blob is not None:
            self._publish_blobs(record, output, error if has_error else None)
            return None, None
        seconds = record.output_expires_seconds
        ids: list[str | None] = []
        for part, wanted, what in (
            (output, has_output, "output"),
            (error, has_error or empty_error, "error"),
        ):
            if wanted:
                name = f"{record.id}_{what}.jsonl"
                ids.append(self._files.add_result(record.family, name, part, at, seconds).id)
            else:
                part.unlink()
                ids.append(None)
        return ids[0], ids[1]

    def _publish_blobs(self, record: BatchRecord, output: Path, error: Path | None) -> None:
        folder = f"{record.output_folder}/{record.id.removeprefix('batch_')}"
        for part, name in ((output, "results.jsonl"), (error, "errors.jsonl")):
            if part is not None:
                content = f"blob-{record.id}-{name}"
                part.replace(self._context.storage.content(content))
                self._context.storage.put_blob(blob_path(f"{folder}/{name}"), content)

    def _append_never_run(self, record: BatchRecord, stage: Stage, error: Path) -> None:
        listed = stage.status == "expired" or (
            stage.status == "cancelled" and self._context.config.cancelled_rows == "listed"
        )
        if not listed or not record.executed:
            return
        code = "batch_expired" if stage.status == "expired" else "batch_cancelled"
        rows = never_run_rows(self._ids_from(record, stage.rows), code, PROFILES[record.family].row_ids)
        with error.open("ab") as file:
            file.writelines(rows)

    def _ids_from(self, record: BatchRecord, position: int, page: int = 5_000) -> Iterator[str]:
        while True:
            rows = self._context.storage.query(
                "SELECT custom_id FROM executions WHERE batch_seq = ? AND position >= ? "
                "ORDER BY position LIMIT ?",
                (record.number, position, page),
            )
            yield from (str(row[0]) for row in rows)
            if len(rows) < page:
                return
            position += page

    # ------------------------------------------------------------ places

    def _source(self, record: BatchRecord) -> Path | None:
        storage = self._context.storage
        if record.input_blob is not None:
            blob = storage.blob(blob_path(record.input_blob))
            return None if blob is None else storage.content(blob[1])
        path = storage.content(record.input_file_id or "")
        return path if path.is_file() else None

    def _run_folder(self, record: BatchRecord) -> Path:
        return self._context.storage.run_folder(record.id)

    def _tidy(self, record: BatchRecord) -> None:
        """Drop what only the running batch needed."""
        storage = self._context.storage
        shutil.rmtree(self._run_folder(record), ignore_errors=True)
        if record.input_file_id is not None:
            file = storage.file(record.input_file_id)
            gone = file is None or file.deleted_at is not None
            if gone and not storage.input_in_use(record.input_file_id):
                storage.content(record.input_file_id).unlink(missing_ok=True)

    def _lock_of(self, batch_id: str) -> threading.Lock:
        with self._context.storage.lock:
            return self._locks.setdefault(batch_id, threading.Lock())


def _copy(source: Path, length: int, target: Path) -> None:
    with create_private(target) as file:
        if length:
            file.writelines(FileBlocks(source, length))


def _strip_final_newline(path: Path) -> None:
    size = path.stat().st_size
    if size == 0:
        return
    with path.open("rb+") as file:
        file.seek(size - 1)
        if file.read(1) == b"\n":
            file.truncate(size - 1)
