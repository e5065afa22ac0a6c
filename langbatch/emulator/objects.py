"""What the emulator remembers of files and batches. Times are epoch seconds of the emulator's clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from langbatch.emulator.profiles import Family

FileFate = Literal["processed", "pending", "error"]


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file. `sent_filename` is the name the client gave, even where a gateway stores another.

    `fate` is what becomes of it once `pending` is over; `shown_bytes` is the size as the service tells
    it, which may be a lie. `lag` keeps it out of lists until that time.
    """

    id: str
    family: Family
    filename: str
    sent_filename: str
    purpose: str
    bytes: int
    shown_bytes: int | None
    created_at: float
    expires_at: float | None = None
    fate: FileFate = "processed"
    instant: bool = False
    looks: int = 0
    listed_from: float = 0.0
    deleted_at: float | None = None


@dataclass(frozen=True, slots=True)
class LineFault:
    """One entry of `errors.data`."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """What validation found: either faults, or a number of requests of one model."""

    requests: int
    model: str | None
    faults: tuple[LineFault, ...] = ()


@dataclass(frozen=True, slots=True)
class Ending:
    """How a batch ended. `rows` is how many rows, in execution order, were run."""

    status: str
    at: float
    rows: int
    completed: int
    failed: int
    output_file_id: str | None
    error_file_id: str | None
    input_tokens: int
    output_tokens: int
    faults: tuple[LineFault, ...] = ()


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """One batch. `quirks` are the faults drawn for it when it was created, so that what becomes of it
    depends on nothing but this record, its input and the time.

    `cancelled_at` is counted like elapsed time: seconds since creation, or looks.
    """

    id: str
    number: int
    family: Family
    version: str | None
    input_file_id: str | None
    sent_filename: str
    endpoint: str
    completion_window: str
    created_at: float
    metadata: dict[str, str] | None = None
    output_expires_seconds: float | None = None
    input_blob: str | None = None
    input_blob_generation: int | None = None
    output_folder: str | None = None
    model: str | None = None
    tokens: int = 0
    quirks: dict[str, str | None] = field(default_factory=dict)
    refused: LineFault | None = None
    listed_from: float = 0.0
    looks: int = 0
    cancelled_at: float | None = None
    cancel_seen_at: float | None = None
    checked: Checked | None = None
    executed: bool = False
    ending: Ending | None = None


@dataclass(frozen=True, slots=True)
class ParkedCreate:
    """A create whose connection was dropped and that takes effect only later."""

    due: float
    family: Family
    version: str | None
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class UploadSession:
    """A file sent in parts. Part ids in the order of their arrival; `blocks` are Azure's second ids."""

    id: str
    family: Family
    filename: str
    purpose: str
    bytes: int
    mime_type: str
    created_at: float
    status: Literal["pending", "completed", "cancelled"] = "pending"
    parts: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    file_id: str | None = None
    expires_after_seconds: float | None = None
