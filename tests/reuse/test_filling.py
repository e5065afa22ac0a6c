"""Results of requests that were not sent, put into the joined files."""

from __future__ import annotations

import json
from array import array
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from langbatch.errors import BatchResultsError
from langbatch.folders import JobFolder
from langbatch.records import Tally, Unsuccessful
from langbatch.results.join import AttemptPieces, Piece, Verdict, join_shard
from langbatch.reuse.cache import Cache, JoinedShard, index_job
from langbatch.reuse.digests import body_digest
from langbatch.reuse.filling import FillReport, OriginalRecords, ShardRecords, fill_shard, readdressed
from langbatch.reuse.plan import ReusePlan, plan_reuse


def record(custom_id: str, outcome: str = "succeeded", line: int = 1, text: str = "fine") -> bytes:
    error = "null" if outcome == "succeeded" else f'{{"code": "{outcome}_code", "message": "m"}}'
    response = f'{{"status_code": 200, "body": {{"text":"{text}",  "n": 1.0}}}}'
    return (
        f'{{"id": "x", "custom_id": "{custom_id}", "outcome": "{outcome}", "line": {line}, "attempt": 2, '
        f'"response": {response}, "error": {error}}}\n'
    ).encode()


def test_a_record_readdressed_keeps_every_other_byte() -> None:
    changed = readdressed(record("a", line=5), 'b"é', 9)
    assert changed == record("a", line=9).replace(b'"custom_id": "a"', '"custom_id": "b\\"é"'.encode())
    assert json.loads(readdressed(record("a"), "b", 9, attempt=0))["attempt"] == 0


class Ground:
    """A job of shards of three requests, two of them joined from what was sent."""

    def __init__(self, folder: Path, digests: bytes, records: dict[int, bytes]) -> None:
        self.folder = folder
        plan_reuse(folder, [bytes([digest]) * 16 for digest in digests], dedupe=True)
        self.plan = ReusePlan(folder)
        self.total = len(digests)
        self.shards = []
        for first in range(0, self.total, 3):
            path = folder / f"{first}.jsonl"
            requests = min(3, self.total - first)
            silent = [record(f"id{at}", "missing", at + 1) for at in range(first, first + requests)]
            path.write_bytes(b"".join(records.get(first + at, each) for at, each in enumerate(silent)))
            self.shards.append(ShardRecords(first, requests, path))

    def fill(self, shard: int) -> tuple[FillReport, list[dict[str, Any]]]:
        held = self.shards[shard]
        ordinals = range(held.first, held.first + held.requests)
        out = BytesIO()
        with OriginalRecords(self.shards, self.plan.originals()) as original, held.path.open("rb") as joined:
            report = fill_shard(
                joined,
                out,
                self.plan,
                held.first,
                [f"id{at}" for at in ordinals],
                [at + 1 for at in ordinals],
                original,
            )
        held.path.write_bytes(out.getvalue())
        return report, [json.loads(line) for line in out.getvalue().splitlines()]


def test_copies_get_their_originals_result_across_shards(tmp_path: Path) -> None:
    sent = {
        0: record("id0", line=1, text="A"),
        1: record("id1", line=2, text="B"),
        3: record("id3", line=4, text="C"),
    }
    ground = Ground(tmp_path, b"abacba", sent)
    report, first = ground.fill(0)
    assert [each["response"]["body"]["text"] for each in first] == ["A", "B", "A"]
    assert [(each["custom_id"], each["line"], each["attempt"]) for each in first] == [
        ("id0", 1, 2),
        ("id1", 2, 2),
        ("id2", 3, 2),
    ]
    assert report == FillReport(Tally(succeeded=3), [], 1)
    report, second = ground.fill(1)
    assert [each["response"]["body"]["text"] for each in second] == ["C", "B", "A"]
    assert report.filled == 2


def test_a_failed_originals_copies_fail_alike_and_are_counted(tmp_path: Path) -> None:
    ground = Ground(tmp_path, b"aba", {0: record("id0", "errored"), 1: record("id1", line=2)})
    report, _ = ground.fill(0)
    assert report.tally == Tally(succeeded=1, errored=2)
    assert report.unsuccessful == [
        Unsuccessful(0, 1, "errored", "errored_code", 2),
        Unsuccessful(2, 3, "errored", "errored_code", 2),
    ]


def test_filling_twice_changes_nothing(tmp_path: Path) -> None:
    ground = Ground(tmp_path, b"aba", {0: record("id0"), 1: record("id1", line=2)})
    assert ground.fill(0) == ground.fill(0)


def test_filling_after_a_retry_brings_the_new_result(tmp_path: Path) -> None:
    ground = Ground(tmp_path, b"aba", {0: record("id0", "errored"), 1: record("id1", line=2)})
    ground.fill(0)
    path = ground.shards[0].path
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([record("id0", text="at last"), *lines[1:]]))
    report, records = ground.fill(0)
    assert report.tally == Tally(succeeded=3)
    assert records[2]["response"]["body"]["text"] == "at last"


def test_an_original_that_is_not_joined_yet_is_an_error_not_a_guess(tmp_path: Path) -> None:
    ground = Ground(tmp_path, b"abca", {0: record("id0")})
    with OriginalRecords(ground.shards[1:], ground.plan.originals()) as original:
        with pytest.raises(BatchResultsError, match="request 1 "):
            original(0)


def test_a_joined_file_that_is_too_short_is_refused(tmp_path: Path) -> None:
    ground = Ground(tmp_path, b"aba", {0: record("id0"), 1: record("id1")})
    ground.shards[0].path.write_bytes(record("id0"))
    with pytest.raises(BatchResultsError, match="fewer records"):
        ground.fill(0)


def test_originals_are_found_at_any_distance(tmp_path: Path) -> None:
    path = tmp_path / "joined.jsonl"
    records = [record(f"id{at}", line=at + 1, text="x" * (at % 50)) for at in range(2000)]
    path.write_bytes(b"".join(records))
    shards = [ShardRecords(0, 2000, path)]
    with OriginalRecords(shards, array("I", [0, 7, 1500, 1999])) as original:
        assert [original(at) for at in (1999, 0, 1500, 7)] == [records[at] for at in (1999, 0, 1500, 7)]
        with pytest.raises(BatchResultsError):
            original(8)


def request(custom_id: str, content: str) -> bytes:
    body = {"model": "m", "messages": [{"role": "user", "content": content}]}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/x", "body": body}).encode() + b"\n"


def row(custom_id: str, text: str) -> bytes:
    body = {
        "choices": [{"message": {"content": text}}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }
    response = {"status_code": 200, "request_id": "r", "body": body}
    return (
        json.dumps({"id": "x", "custom_id": custom_id, "response": response, "error": None}).encode() + b"\n"
    )


def joined(folder: JobFolder, lines: list[bytes], rows: list[bytes], plan: ReusePlan | None) -> int:
    """What harvesting does; returns the input tokens that were paid for."""
    piece = folder.piece(0, 1, "output")
    piece.parent.mkdir(parents=True, exist_ok=True)
    piece.write_bytes(b"".join(rows))
    ids = [json.loads(line)["custom_id"] for line in lines]
    numbers = list(range(1, len(lines) + 1))
    sent = None if plan is None else plan.sent(0, len(lines))
    attempt = AttemptPieces(1, (Piece(1, piece, "output"),), Verdict(1, "missing", "missing", "no row"), sent)
    out, quarantine, filled = BytesIO(), BytesIO(), BytesIO()
    report = join_shard(ids, numbers, 0, [attempt], out, quarantine)
    assert quarantine.getvalue() == b""
    path = folder.joined(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(out.getvalue())
    if plan is not None:
        with (
            OriginalRecords([ShardRecords(0, len(lines), path)], plan.originals()) as original,
            path.open("rb") as file,
        ):
            fill_shard(file, filled, plan, 0, ids, numbers, original)
        path.write_bytes(filled.getvalue())
    return report.usage.input_tokens or 0


def test_two_jobs_end_to_end_pay_for_each_question_once(tmp_path: Path) -> None:
    one, two = JobFolder.of(tmp_path, "job_1"), JobFolder.of(tmp_path, "job_2")
    first = [request("a", "red"), request("b", "blue")]
    assert joined(one, first, [row("b", "BLUE"), row("a", "RED")], None) == 14
    digests = [body_digest(line, "chat_completions", "gpt-4o") for line in first]
    index_job(tmp_path, "job_1", digests, [JoinedShard(0, one.joined(0), 2)], mark=2)

    second = [request("p", "blue"), request("q", "green"), request("r", "green"), request("s", "red")]
    two.path.mkdir(parents=True)
    counts = plan_reuse(
        two.path,
        (body_digest(line, "chat_completions", "gpt-4o") for line in second),
        dedupe=True,
        cache=Cache(tmp_path),
    )
    assert (counts.sent, counts.copies, counts.answered) == (1, 1, 2)
    assert joined(two, second, [row("q", "GREEN")], ReusePlan(two.path)) == 7
    records = [json.loads(line) for line in two.joined(0).read_bytes().splitlines()]
    assert [
        (each["custom_id"], each["line"], each["attempt"], each["outcome"], each["response"]["body"]["choices"][0]["message"]["content"])
        for each in records
    ] == [
        ("p", 1, 0, "succeeded", "BLUE"),
        ("q", 2, 1, "succeeded", "GREEN"),
        ("r", 3, 1, "succeeded", "GREEN"),
        ("s", 4, 0, "succeeded", "RED"),
    ]  # fmt: skip
