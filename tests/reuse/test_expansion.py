"""What is sent and what is not, parted and laid together again; and the results of both."""

from __future__ import annotations

import json
import tempfile
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langbatch.errors import BatchResultsError, BatchStorageError
from langbatch.folders import JobFolder
from langbatch.records import Tally, Target, Unsuccessful
from langbatch.requests.validation import ModelRun
from langbatch.reuse.expansion import Expansion, JoinedShard, expanded, readdressed, with_copies
from langbatch.reuse.parting import Parted, all_requests, part, runs_of_sent
from langbatch.reuse.plan import ReusePlan
from langbatch.shards.snapshot import Snapshot, SnapshotWriter

TARGET = Target("azure", "res.openai.azure.com", "chat_completions", "dep")


def request(number: int, saying: str, padding: int = 0) -> bytes:
    body = {"model": "m", "messages": [{"role": "user", "content": saying}]}
    line = {"custom_id": f"é{number}", "method": "POST", "url": "/x", "body": body}
    return json.dumps(line).encode() + b" " * padding + b"\n"


def written(folder: Path, lines: Sequence[bytes], *, inputs: Sequence[int] = ()) -> None:
    """A snapshot whose requests stood in every third line of the file."""
    with SnapshotWriter(folder) as writer:
        writer.add(
            lines,
            array("I", map(len, lines)),
            array("I", range(3, 3 * len(lines) + 3, 3)),
            [json.dumps(json.loads(line)["custom_id"], ensure_ascii=False).encode() for line in lines],
            array("I", inputs) if inputs else None,
        )
        writer.close()


def parted(folder: Path, sayings: Sequence[str], **options: Any) -> Parted | None:
    written(folder, [request(at, saying) for at, saying in enumerate(sayings)], **options)
    return part(folder, [TARGET], dedupe=True, cache=None)


def record(custom_id: str, outcome: str = "succeeded", text: str = "fine", line: int = 1) -> bytes:
    error = "null" if outcome == "succeeded" else f'{{"code": "{outcome}_code", "message": "m"}}'
    response = f'{{"status_code": 200, "body": {{"text":"{text}",  "n": 1.0}}}}'
    return (
        f'{{"id": "x", "custom_id": "{custom_id}", "outcome": "{outcome}", "line": {line}, "attempt": 2, '
        f'"response": {response}, "error": {error}}}\n'
    ).encode()


# ---------------------------------------------------------------- parting


@given(sayings=st.lists(st.sampled_from("abcdef"), min_size=1, max_size=30), begin=st.integers(0, 29))
def test_both_parts_laid_together_are_the_input(sayings: list[str], begin: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "job"
        lines = [request(at, saying) for at, saying in enumerate(sayings)]
        written(folder, lines)
        sha256 = Snapshot(folder).sha256
        found = part(folder, [TARGET], dedupe=True, cache=None)
        assert (found is None) == (len(set(sayings)) == len(sayings))
        whole, first = all_requests(JobFolder(folder)), min(begin, len(sayings))
        rest = len(sayings) - first
        assert whole.total == len(sayings)
        assert whole.sha256 == sha256
        assert list(whole.lines(first, rest)) == lines[first:]
        assert whole.ids(first, rest) == [f"é{at}" for at in range(first, len(sayings))]
        assert list(whole.line_numbers(first, rest)) == [3 * at + 3 for at in range(first, len(sayings))]
        with pytest.raises(ValueError, match="are not within"):
            whole.lines(first, rest + 1)


def test_the_snapshot_that_is_left_is_one_like_any_other(tmp_path: Path) -> None:
    found = parted(tmp_path / "job", "abacba")
    assert found is not None
    left = Snapshot(tmp_path / "job")
    assert left.total == 3
    assert list(left.lines(0, 3)) == [request(0, "a"), request(1, "b"), request(3, "c")]
    assert list(left.line_numbers(0, 3)) == [3, 6, 12]
    assert left.span(1, 2) == (len(request(0, "a")), sum(left.lengths(0, 3)))
    assert (found.written.total, found.written.sha256) == (3, left.sha256)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "job").rglob("*") if path.is_file()} == {
        0o600
    }
    assert not (tmp_path / "job" / "sent").exists()


def test_parts_of_any_size_lose_nothing(tmp_path: Path) -> None:
    """More requests than are moved at once, and some larger than is moved at once."""
    large = {7: 3 << 20, 8: 1 << 20, 9_000: 2 << 20}
    lines = [request(at, f"s{at % 6_000}", large.get(at, 0)) for at in range(9_001)]
    written(tmp_path / "job", lines)
    found = part(tmp_path / "job", [TARGET], dedupe=True, cache=None)
    assert found is not None
    assert (found.counts.sent, found.counts.copies) == (6_000, 3_001)
    whole = all_requests(JobFolder(tmp_path / "job"))
    assert all(ours == theirs for ours, theirs in zip(whole.lines(0, 9_001), lines, strict=True))


def test_embedding_inputs_stay_with_their_requests(tmp_path: Path) -> None:
    parted(tmp_path / "job", "aab", inputs=[5, 6, 7])
    assert list(Snapshot(tmp_path / "job").inputs(0, 2)) == [5, 7]


def test_runs_of_one_model_shrink_to_what_is_sent_of_them(tmp_path: Path) -> None:
    parted(tmp_path / "job", "abaabcb")
    runs = [ModelRun(0, 3, "x"), ModelRun(3, 2, "y"), ModelRun(5, 2, "z")]
    assert list(runs_of_sent(tmp_path / "job", runs)) == [ModelRun(0, 2, "x"), ModelRun(2, 1, "z")]


# ---------------------------------------------------------------- expansion


def test_a_record_readdressed_keeps_every_other_value_byte_for_byte() -> None:
    changed = readdressed(record("a", line=5), '"b\\"é"'.encode(), 9)
    assert changed == record("a", line=9).replace(b'"custom_id": "a"', '"custom_id": "b\\"é"'.encode())
    assert json.loads(readdressed(record("a"), b'"b"', 1, attempt=0))["attempt"] == 0


def test_half_a_surrogate_pair_in_an_answer_is_no_obstacle() -> None:
    odd = record("a", text="\\ud83d and 1e999")
    assert readdressed(odd, b'"b"', 1) == odd.replace(b'"custom_id": "a"', b'"custom_id": "b"')


def test_a_record_that_is_none_is_refused() -> None:
    with pytest.raises(BatchResultsError, match="cannot be read"):
        readdressed(b'{"custom_id": "a", \n', b'"b"', 1)


class Ground:
    """A job of shards of two requests, without duplicates; `records` are what was joined of them."""

    def __init__(
        self, folder: Path, sayings: str, records: Sequence[bytes | None], settled: bool = True
    ) -> None:
        self.folder = JobFolder(folder)
        parted(folder, sayings)
        self.shards = []
        for first in range(0, len(records), 2):
            found = records[first : first + 2]
            path = folder / f"{first}.jsonl"
            if None not in found:
                path.write_bytes(b"".join(each for each in found if each is not None))
            self.shards.append(
                JoinedShard(first, len(found), None if None in found else path, settled or first != 0)
            )

    def results(self) -> list[tuple[str, int, str] | None]:
        found = [
            None if each is None else json.loads(each)
            for each in Expansion(self.folder, self.shards).records()
        ]
        return [
            None if each is None else (each["custom_id"], each["line"], each["response"]["body"]["text"])
            for each in found
        ]


def test_copies_get_their_originals_result_across_shards(tmp_path: Path) -> None:
    sent = [record("é0", text="A", line=3), record("é1", text="B", line=6), record("é3", text="C", line=12)]
    assert Ground(tmp_path, "abacbaa", sent).results() == [
        ("é0", 3, "A"),
        ("é1", 6, "B"),
        ("é2", 9, "A"),
        ("é3", 12, "C"),
        ("é4", 15, "B"),
        ("é5", 18, "A"),
        ("é6", 21, "A"),
    ]


def test_copies_wait_for_their_originals_shard_and_for_no_other(tmp_path: Path) -> None:
    ground = Ground(tmp_path, "abccab", [None, None, record("é2", text="C", line=9)])
    assert ground.results() == [None, None, ("é2", 9, "C"), ("é3", 12, "C"), None, None]


def test_of_a_shard_that_is_retried_only_successes_are_copied(tmp_path: Path) -> None:
    sent = [record("é0", "errored", line=3), record("é1", text="B", line=6)]
    ground = Ground(tmp_path, "abba", sent, settled=False)
    assert ground.results() == [None, ("é1", 6, "B"), ("é2", 9, "B"), None]


def test_shards_may_be_left_out(tmp_path: Path) -> None:
    ground = Ground(tmp_path, "abcca", [record("é0"), record("é1"), record("é2", text="C", line=9)])
    del ground.shards[0]
    assert ground.results() == [None, None, ("é2", 9, "C"), ("é3", 12, "C"), None]


def test_a_joined_file_that_is_too_short_is_refused(tmp_path: Path) -> None:
    ground = Ground(tmp_path, "aabb", [record("é0"), record("é2")])
    (tmp_path / "0.jsonl").write_bytes(record("é0"))
    with pytest.raises(BatchResultsError, match="records are missing"):
        ground.results()


def test_results_joined_anew_while_they_are_read_are_not_mixed_up(tmp_path: Path) -> None:
    ground = Ground(tmp_path, "aabb", [record("é0"), record("é2")])
    records = Expansion(ground.folder, ground.shards).records()
    next(records)
    other = tmp_path / "other"
    other.write_bytes(record("é0", text="longer than before") + record("é2"))
    other.rename(tmp_path / "0.jsonl")
    with pytest.raises(BatchResultsError, match="joined anew"):
        list(records)


def test_thousands_of_shards_need_few_open_files(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    count = 400
    sayings = [f"s{at}" for at in range(count)] * 2
    parted(tmp_path / "job", sayings)
    shards = []
    for first in range(count):
        path = tmp_path / f"{first}.jsonl"
        path.write_bytes(record(f"é{first}", text=f"t{first}"))
        shards.append(JoinedShard(first, 1, path))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        found = list(Expansion(JobFolder(tmp_path / "job"), shards).records())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [json.loads(each or b"")["response"]["body"]["text"] for each in found] == [
        f"t{at}" for at in range(count)
    ] * 2


def test_results_held_that_are_gone_are_missed_in_words(tmp_path: Path) -> None:
    ground = Ground(tmp_path, "aab", [record("é0"), record("é2")])
    fates = ReusePlan(ground.folder).fates
    fates[1] = 1 << 31
    ground.folder.reuse_plan.write_bytes(fates.tobytes())
    with pytest.raises(BatchStorageError, match="missing or damaged"):
        ground.results()


# ---------------------------------------------------------------- counting


def test_copies_count_as_their_originals_ended() -> None:
    failed = [
        Unsuccessful(11, 40, "errored", "content_filter", 1),
        Unsuccessful(13, 50, "missing", "missing", 1),
    ]
    assert with_copies(Tally(succeeded=2, errored=1, missing=1), failed, 10, [4, 2, 0, 1]) == Tally(
        succeeded=6, errored=3, missing=2
    )


def test_failures_are_told_of_copies_too_in_the_inputs_order(tmp_path: Path) -> None:
    parted(tmp_path, "abacba")
    failed = [
        Unsuccessful(0, 3, "errored", "content_filter", 2),
        Unsuccessful(2, 12, "missing", "missing", 1),
    ]
    assert list(expanded(JobFolder(tmp_path), failed)) == [
        Unsuccessful(0, 3, "errored", "content_filter", 2),
        Unsuccessful(2, 9, "errored", "content_filter", 2),
        Unsuccessful(3, 12, "missing", "missing", 1),
        Unsuccessful(5, 18, "errored", "content_filter", 2),
    ]
