"""Running a batch: input lines in a shuffled order become output rows and error rows (§5).

All rows are worked out at once, in execution order, with running totals beside them. A batch that is
cancelled or expires after k rows is then a prefix of the two files, cut where the totals of row k say.

A request may ask for trouble: `emulator-MARK` in its `custom_id` or in its body's `user`.

| mark | the row |
|---|---|
| `fail-400` (any status from 400 to 599) | fails with that HTTP status |
| `filtered` | prompt refused by the content filter: 400, `content_filter` |
| `filtered-answer`, `length` | succeeds with that finish reason (`content_filter`, `length`) |
| `expire` | `batch_expired` in the error file |
| `missing` | in neither file |
| `status-0` | in the output file with `status_code: 0` |
| `malformed` | a line that is no JSON |
| `duplicate` | comes twice |
| `in-both-files` | in the output and in the error file |
| `unknown-id` | as it should be, and beside it a row for an id nobody sent |
| `u2028` | its text holds a raw U+2028 |
"""

from __future__ import annotations

import re
import struct
import uuid
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from langbatch.emulator import answers
from langbatch.emulator.config import Answer, RowError
from langbatch.emulator.faults import share
from langbatch.emulator.wire import create_private

MARK = re.compile(
    r"emulator-(fail-[45]\d\d|filtered-answer|filtered|length|expire|missing|lost|status-0|malformed"
    r"|duplicate|in-both-files|unknown-id|u2028)(?![a-z0-9])"
)
#: Batch quirks that put a mark on that many rows, the first ones in execution order.
QUIRK_MARKS: Mapping[str, str] = {
    "rows-fail": "fail-500",
    "rows-filtered": "filtered",
    "rows-filtered-answer": "filtered-answer",
    "rows-expire": "expire",
    "rows-lost": "lost",
    "rows-status-0": "status-0",
    "rows-malformed": "malformed",
    "rows-duplicate": "duplicate",
    "rows-in-both-files": "in-both-files",
    "rows-unknown-id": "unknown-id",
    "rows-u2028": "u2028",
}
_TOTALS = struct.Struct("<QQIIQQ")
_CHUNK_ROWS = 5_000


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What the rows of one batch depend on; the same plan gives the same bytes."""

    seed: int
    batch_id: str
    number: int
    created_at: int
    azure: bool
    row_ids: bool
    failure_rate: float
    answer: Answer | None
    quirks: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the first rows of a run."""

    output_bytes: int = 0
    error_bytes: int = 0
    completed: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class _Line(msgspec.Struct):
    custom_id: str
    url: str
    body: msgspec.Raw


@dataclass(slots=True)
class _Row:
    output: bytes = b""
    error: bytes = b""
    completed: int = 0
    failed: int = 0
    paid: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


def rows_meant(param: str | None, total: int) -> int:
    """A quirk's number of rows: `half`, `all` or a number."""
    if param == "half":
        return total // 2
    return total if param == "all" else min(total, int(param or 0))


def line_offsets(path: Path) -> array[int]:
    offsets = array("Q")
    position = 0
    with path.open("rb") as file:
        for line in file:
            offsets.append(position)
            position += len(line)
    return offsets


def execute(
    plan: RunPlan, source: Path, folder: Path, record: Callable[[list[tuple[int, str, int]]], None]
) -> int:
    """Write `output`, `error` and `totals` into `folder`; the number of rows.

    `record` is told (position, custom_id, paid) of every row, some thousands at a time.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    offsets = line_offsets(source)
    Random(f"{plan.seed}:{plan.number}").shuffle(offsets)
    marks = _quirk_marks(plan.quirks, len(offsets))
    lines = msgspec.json.Decoder(_Line)
    bodies = msgspec.json.Decoder(answers.AskedBody)
    sums = [0] * 6
    chunk: list[tuple[int, str, int]] = []
    with ExitStack() as stack:
        requests = stack.enter_context(source.open("rb"))
        output = stack.enter_context(create_private(folder / "output"))
        error = stack.enter_context(create_private(folder / "error"))
        totals = stack.enter_context(create_private(folder / "totals"))
        for position, offset in enumerate(offsets):
            requests.seek(offset)
            raw = requests.readline()
            line = lines.decode(raw)
            try:
                body = bodies.decode(line.body)
            except msgspec.DecodeError:
                body = answers.AskedBody()
            row = _run(plan, line, body, len(raw), marks(position))
            output.write(row.output)
            error.write(row.error)
            added = (len(row.output), len(row.error), row.completed, row.failed)
            for index, value in enumerate((*added, row.input_tokens, row.output_tokens)):
                sums[index] += value
            totals.write(_TOTALS.pack(*sums))
            chunk.append((position, line.custom_id, row.paid))
            if len(chunk) == _CHUNK_ROWS:
                record(chunk)
                chunk = []
    record(chunk)
    return len(offsets)


def totals_after(folder: Path, rows: int) -> Totals:
    """The sums over the first `rows` rows of a run that was executed."""
    if rows == 0:
        return Totals()
    with (folder / "totals").open("rb") as file:
        file.seek((rows - 1) * _TOTALS.size)
        return Totals(*_TOTALS.unpack(file.read(_TOTALS.size)))


def never_run_rows(ids: Iterator[str], code: str, plan_row_ids: bool) -> Iterator[bytes]:
    """Rows that were not executed: `response` null, the reason in `error` (§5)."""
    message = "This request could not be executed before the completion window expired."
    if code != "batch_expired":
        message = "This request was not executed because the batch was cancelled."
    for custom_id in ids:
        row = {"custom_id": custom_id, "response": None, "error": {"code": code, "message": message}}
        if plan_row_ids:
            row = {"id": f"batch_req_{answers.unique(custom_id, code)}", **row}
        yield msgspec.json.encode(row) + b"\n"


def _quirk_marks(quirks: Mapping[str, str | None], total: int) -> Callable[[int], str | None]:
    """Which rows, by position, get a mark. Quirks take rows one after the other and never share one."""
    spans: list[tuple[int, int, str]] = []
    start = 0
    for name, mark in QUIRK_MARKS.items():
        if name in quirks:
            end = start + rows_meant(quirks[name], total)
            spans.append((start, end, mark))
            start = end
    everywhere = "fail-500" if "batch-all-fail" in quirks else None
    return lambda position: everywhere or next((m for a, b, m in spans if a <= position < b), None)


def _run(plan: RunPlan, line: _Line, body: answers.AskedBody, line_bytes: int, mark: str | None) -> _Row:
    custom_id = line.custom_id
    if mark is None:
        asked = MARK.search(custom_id) or (MARK.search(body.user) if isinstance(body.user, str) else None)
        mark = asked[1] if asked else None
    if mark is None and plan.failure_rate and share(plan.seed, custom_id, "fails") < plan.failure_rate:
        mark = "fail-500"
    key = answers.unique(plan.seed, custom_id, body.model)
    if mark == "missing":
        return _Row()
    if mark == "expire":
        return _Row(error=b"".join(never_run_rows(iter([custom_id]), "batch_expired", plan.row_ids)))
    if mark == "filtered":
        return _failed(plan, custom_id, key, 400, answers.filtered_body(plan.azure))
    if mark is not None and mark.startswith("fail-"):
        status = int(mark[5:])
        return _failed(plan, custom_id, key, status, _refusal_body(status))
    return _succeeded(plan, line, body, line_bytes, key, mark)


def _succeeded(
    plan: RunPlan, line: _Line, body: answers.AskedBody, line_bytes: int, key: str, mark: str | None
) -> _Row:
    custom_id = line.custom_id
    input_tokens = max(1, line_bytes // 4)
    finish = {"filtered-answer": "content_filter", "length": "length"}.get(mark or "", "stop")
    said: dict[str, Any] | str | RowError
    if plan.answer is None:
        said = answers.standard_text(body, custom_id)
    else:
        try:
            answered: Any = plan.answer(msgspec.json.decode(line.body), custom_id)
            if isinstance(answered, str | dict):
                msgspec.json.encode(answered)  # what cannot be sent is the function's fault, too
            elif not isinstance(answered, RowError):
                what = f"The answer function returned {type(answered).__name__}, no text, body or RowError."
                answered = RowError(500, "answer_function", what)
            said = answered
        except Exception as problem:  # noqa: BLE001 - the user's code may raise anything; the batch goes on
            said = RowError(500, "answer_function", f"The answer function raised {type(problem).__name__}.")
    if isinstance(said, RowError):
        return _failed(plan, custom_id, key, said.status_code, answers.error_body(said.code, said.message))
    if isinstance(said, str):
        text = "cut\u2028here " + said if mark == "u2028" else said
        whole, output_tokens = answers.response_body(
            line.url.removeprefix("/v1"),
            body,
            key,
            text,
            created=plan.created_at,
            input_tokens=input_tokens,
            azure=plan.azure,
            finish_reason=finish,
        )
    else:
        whole = said
        usage = said.get("usage")
        told: dict[str, Any] = usage if isinstance(usage, dict) else {}
        input_tokens = int(told.get("prompt_tokens", told.get("input_tokens", input_tokens)))
        output_tokens = int(told.get("completion_tokens", told.get("output_tokens", 0)))
    row = _row_bytes(plan, custom_id, key, 0 if mark == "status-0" else 200, whole)
    done = _Row(row, b"", 1, 0, 1, input_tokens, output_tokens)
    if mark == "malformed":
        done.output = row[: len(row) // 2] + b"\n"
    elif mark == "lost":
        done.output = b""
    elif mark == "duplicate":
        done.output = row + row
    elif mark == "unknown-id":
        done.output = row + _row_bytes(plan, f"nobody-sent-{key[:8]}", key, 200, whole)
    elif mark == "in-both-files":
        done.error = _failed(plan, custom_id, key, 500, _refusal_body(500)).error
    return done


def _failed(plan: RunPlan, custom_id: str, key: str, status: int, body: dict[str, Any]) -> _Row:
    return _Row(error=_row_bytes(plan, custom_id, key, status, body), failed=1)


def _refusal_body(status: int) -> dict[str, Any]:
    code = {429: "rate_limit_exceeded", 404: "DeploymentNotFound", 400: "invalid_request_error"}.get(
        status, "server_error" if status >= 500 else f"http_{status}"
    )
    return answers.error_body(code, f"The emulator was asked to fail this request with {status}.")


def _row_bytes(plan: RunPlan, custom_id: str, key: str, status: int, body: dict[str, Any]) -> bytes:
    if plan.row_ids:
        return (
            msgspec.json.encode(
                {
                    "id": f"batch_req_{key}",
                    "custom_id": custom_id,
                    "response": {"status_code": status, "request_id": f"req_{key}", "body": body},
                    "error": None,
                }
            )
            + b"\n"
        )
    response = {"body": body, "request_id": str(uuid.UUID(key)), "status_code": status}
    return msgspec.json.encode({"custom_id": custom_id, "response": response, "error": None}) + b"\n"
