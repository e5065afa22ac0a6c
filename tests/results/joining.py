"""Builders of provider rows and a join on real files, shared by the tests here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from langbatch.publish import publishing
from langbatch.records import Outcome
from langbatch.results.join import AttemptPieces, JoinReport, Piece, Verdict, join_shard


def chat_body(text: str | None = "fine", **message: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": text, **message},
            }
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }


def success(custom_id: str, body: object | None = None, **row: Any) -> dict[str, Any]:
    given = chat_body() if body is None else body
    return {
        "custom_id": custom_id,
        "response": {"status_code": 200, "request_id": "req", "body": given},
        "error": None,
        **row,
    }


def http_failure(custom_id: str, status: int = 400, body: object | None = None) -> dict[str, Any]:
    error = {"message": "no such thing", "type": "bad", "param": None, "code": "content_filter"}
    given = {"error": error} if body is None else body
    return {
        "custom_id": custom_id,
        "response": {"status_code": status, "request_id": "req", "body": given},
        "error": None,
    }


def never_ran(custom_id: str, code: str = "batch_expired", message: str = "too late") -> dict[str, Any]:
    return {"custom_id": custom_id, "response": None, "error": {"code": code, "message": message}}


def encoded(row: object, *, compact: bool = False) -> bytes:
    return json.dumps(row, separators=(",", ":") if compact else None).encode()


@dataclass(frozen=True)
class Tried:
    """One attempt: the raw lines of its files, and what it says of requests without a row."""

    output: Sequence[bytes] = ()
    error: Sequence[bytes] = ()
    verdict: tuple[Outcome, str, str] = ("missing", "missing", "nothing is said")
    sent: frozenset[int] | None = None
    final_newline: bool = True


@dataclass(frozen=True)
class Joined:
    report: JoinReport
    lines: list[bytes]
    quarantine: bytes

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    @property
    def outcomes(self) -> list[str]:
        return [record["outcome"] for record in self.records]

    @property
    def codes(self) -> list[str | None]:
        return [record["error"] and record["error"]["code"] for record in self.records]


def join(
    folder: Path,
    ids: Sequence[str],
    *tried: Tried,
    first_ordinal: int = 0,
    max_row_bytes: int = 1 << 20,
    executor: Executor | None = None,
    range_bytes: int = 0,
) -> Joined:
    """Write each attempt's files, join them, and give back what came out, split on newline bytes."""
    attempts = []
    for number, item in enumerate(tried, start=1):
        pieces = []
        files: tuple[tuple[Literal["output", "error"], Sequence[bytes]], ...] = (
            ("output", item.output),
            ("error", item.error),
        )
        for part, lines in files:
            path = folder / f"00000-{number}-{part}.jsonl"
            path.write_bytes(b"\n".join(lines) + (b"\n" if lines and item.final_newline else b""))
            pieces.append(Piece(number, path, part))
        attempts.append(AttemptPieces(number, tuple(pieces), Verdict(number, *item.verdict), item.sent))
    out, quarantine = folder / "joined.jsonl", folder / "quarantine.jsonl"
    with publishing(out) as sink, publishing(quarantine) as aside:
        report = join_shard(
            ids,
            [10 + place for place in range(len(ids))],
            first_ordinal,
            attempts,
            sink,
            aside,
            max_row_bytes=max_row_bytes,
            executor=executor,
            range_bytes=range_bytes,
        )
    written = out.read_bytes()
    assert written.endswith(b"\n") or not ids
    return Joined(report, written.split(b"\n")[:-1], quarantine.read_bytes())
