"""Builders of input files, shared by the tests of reading and judging them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from langbatch.records import Limits
from langbatch.requests.validation import Intake, Rules, read_requests
from langbatch.shards.snapshot import Snapshot, SnapshotWriter

AZURE = Rules(kind=None, provider="azure", limits=Limits(requests=100_000, file_bytes=200_000_000))
OPENAI = replace(AZURE, provider="openai", limits=Limits(50_000, 200_000_000, 50_000))


def chat(custom_id: object = "a", text: object = "hello", **body: Any) -> dict[str, Any]:
    """A good chat request; `body` adds to or replaces its body's keys."""
    return {
        "custom_id": custom_id,
        "method": "POST",
        "url": "/chat/completions",
        "body": {"model": "dep", "messages": [{"role": "user", "content": text}], **body},
    }


def embedding(custom_id: str, given: object) -> dict[str, Any]:
    return {
        "custom_id": custom_id,
        "method": "POST",
        "url": "/v1/embeddings",
        "body": {"model": "dep", "input": given},
    }


def line(request: object) -> bytes:
    return json.dumps(request, ensure_ascii=False).encode()


def write(folder: Path, lines: Iterable[bytes | dict[str, Any]], name: str = "input.jsonl") -> Path:
    """A file of these lines, each with a newline."""
    path = folder / name
    path.write_bytes(b"".join((one if isinstance(one, bytes) else line(one)) + b"\n" for one in lines))
    return path


def intake_of(path: Path, rules: Rules = AZURE, **changes: Any) -> Intake:
    return read_requests(path, replace(rules, **changes))


def keep(path: Path, folder: Path, rules: Rules = AZURE, **changes: Any) -> Intake:
    """Read `path` into a snapshot in `folder`."""
    with SnapshotWriter(folder) as writer:
        intake = read_requests(path, replace(rules, **changes), into=writer)
    if writer.written is not None:
        # The hash is taken while writing, in one of two ways; it must be that of what is on disk.
        assert writer.written.sha256 == Snapshot(folder).sha256
        assert writer.written.total == Snapshot(folder).total == intake.total
    return intake


def faults(intake: Intake) -> list[tuple[int, str]]:
    return [(problem.line, problem.code) for problem in intake.problems]


def warned(intake: Intake) -> dict[str, int]:
    return {warning.code: warning.count for warning in intake.warnings}
