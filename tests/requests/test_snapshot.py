"""The snapshot's files: what is in them, who may read them, how they are read in stretches."""

from __future__ import annotations

import hashlib
import os
import resource
import stat
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from input_files import AZURE, OPENAI, chat, embedding, faults, intake_of, keep, line, write
from langbatch.errors import BatchStorageError
from langbatch.requests.validation import read_requests
from langbatch.shards.snapshot import Snapshot, SnapshotWriter


@pytest.fixture
def lines() -> list[bytes]:
    """A little over a megabyte, so that it takes several blocks."""
    return [line(chat(f"ü-{number}", "x" * (number * 37 % 5000))) for number in range(500)]


@pytest.fixture
def snapshot(tmp_path: Path, lines: list[bytes]) -> Snapshot:
    keep(write(tmp_path, lines), tmp_path / "job")
    return Snapshot(tmp_path / "job")


@pytest.mark.parametrize(("first", "count"), [(0, 500), (0, 0), (500, 0), (1, 1), (123, 300), (499, 1)])
def test_stretches_are_read_alike_with_and_without_hint(
    snapshot: Snapshot, lines: list[bytes], first: int, count: int
) -> None:
    ends = [0, *accumulate(len(one) + 1 for one in lines)]
    wanted = [one + b"\n" for one in lines[first : first + count]]
    assert list(snapshot.lines(first, count)) == wanted
    assert list(snapshot.lines(first, count, byte_start=ends[first])) == wanted
    assert (
        snapshot.span(first, count)
        == snapshot.span(first, count, ends[first])
        == (ends[first], ends[first + count])
    )
    assert snapshot.ids(first, count) == [f"ü-{number}" for number in range(first, first + count)]
    assert list(snapshot.line_numbers(first, count)) == list(range(first + 1, first + count + 1))
    assert list(snapshot.lengths(first, count)) == [len(one) for one in wanted]
    assert list(snapshot.inputs(first, count)) == [1] * count


@pytest.mark.parametrize("with_marks", [True, False])
def test_stretches_far_in_are_read_from_the_mark_before_them(tmp_path: Path, with_marks: bool) -> None:
    """Without marks, as in a snapshot of an early version, they are found from the start."""
    lines = [line(chat(f"ü-{number}", "x" * (number % 7))) for number in range(9000)]
    keep(write(tmp_path, lines), tmp_path / "job")
    marks = tmp_path / "job" / "requests.marks"
    assert marks.stat().st_size == 3 * 16
    if not with_marks:
        marks.unlink()
    snapshot = Snapshot(tmp_path / "job")
    for first in (0, 4095, 4096, 4097, 8192, 8999, 9000):
        count = min(3, 9000 - first)
        assert list(snapshot.lines(first, count)) == [one + b"\n" for one in lines[first : first + count]]
        assert snapshot.ids(first, count) == [f"ü-{number}" for number in range(first, first + count)]


@pytest.mark.parametrize(("first", "count"), [(-1, 1), (0, 501), (501, 0), (3, -1)])
def test_stretches_outside_are_an_error(snapshot: Snapshot, first: int, count: int) -> None:
    with pytest.raises(ValueError, match="not within"):
        snapshot.lines(first, count)
    with pytest.raises(ValueError, match="not within"):
        snapshot.ids(first, count)


def test_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        keep(write(tmp_path, [chat("a"), b"bad"]), tmp_path / "home" / "job", skip_invalid=True)
    finally:
        os.umask(old)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "home").rglob("*")}
    private = ("requests.jsonl", "requests.idx", "requests.ids", "requests.marks", "rejects.jsonl")
    assert modes == {"job": 0o700, **dict.fromkeys(private, 0o600)}


def test_existing_files_are_not_overwritten(tmp_path: Path) -> None:
    keep(write(tmp_path, [chat("a")]), tmp_path / "job")
    with pytest.raises(BatchStorageError):
        SnapshotWriter(tmp_path / "job")
    assert Snapshot(tmp_path / "job").ids(0, 1) == ["a"]


def test_exception_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), SnapshotWriter(tmp_path / "job"):
        raise RuntimeError
    assert not (tmp_path / "job").exists()


def test_damaged_index_is_noticed(tmp_path: Path, snapshot: Snapshot) -> None:
    index = tmp_path / "job" / "requests.idx"
    index.write_bytes(index.read_bytes()[:-3])
    with pytest.raises(BatchStorageError):
        Snapshot(tmp_path / "job")
    with pytest.raises(BatchStorageError):
        snapshot.lengths(490, 10)


def test_copy_shorter_than_its_index_is_noticed(tmp_path: Path, snapshot: Snapshot) -> None:
    os.truncate(tmp_path / "job" / "requests.jsonl", 1000)
    with pytest.raises(BatchStorageError):
        list(snapshot.lines(0, 500))


def test_embedding_inputs_are_kept_per_request(tmp_path: Path) -> None:
    given_inputs = ["one", ["a", "b", "c"], [1, 2, 3], [[1], [2, 3]]]
    path = write(tmp_path, [embedding(str(number), given) for number, given in enumerate(given_inputs)])
    intake = keep(path, tmp_path / "job", OPENAI)
    assert list(Snapshot(tmp_path / "job").inputs(0, 4)) == [1, 3, 1, 2]
    assert list(Snapshot(tmp_path / "job").inputs(2, 2)) == [1, 2]
    assert intake.embedding_inputs == 7


CHUNKS = st.sampled_from(
    [
        lambda number: line(chat(f"id-{number}", "x" * (number * 997 % 60_000))),
        lambda number: line(chat(f"id-{number}", "plain")) + b"\r",
        lambda number: b"  " + line(chat(f"id-{number}", "spaced")) + b"\t",
        lambda number: line(chat(f"Ü{number}", seed=number)),
        lambda number: line(chat("twice", "x" * number)),
        lambda _: b"",
        lambda _: b"broken",
        lambda _: b"y" * 300_000,
    ]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(CHUNKS, min_size=1, max_size=40), st.booleans(), st.booleans())
def test_copy_hash_and_index_tell_of_the_accepted_lines(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[Any], final_newline: bool, mark: bool
) -> None:
    folder = tmp_path_factory.mktemp("any")
    lines = [chunk(number) for number, chunk in enumerate(chunks)] + [line(chat("last"))]
    path = folder / "input.jsonl"
    path.write_bytes(
        (b"\xef\xbb\xbf" if mark else b"") + b"\n".join(lines) + (b"\n" if final_newline else b"")
    )
    accepted: list[tuple[int, bytes]] = []
    ids: set[object] = set()
    for number, one in enumerate(lines, 1):
        trimmed = one.strip(b" \t\r")
        if trimmed.startswith(b"{") and (custom_id := trimmed[:40].split(b'"')[3]) not in ids:
            ids.add(custom_id)
            accepted.append((number, trimmed + b"\n"))
    intake = keep(path, folder / "job", skip_invalid=True)
    snapshot = Snapshot(folder / "job")
    assert (snapshot.total, intake.total, intake.lines) == (len(accepted), len(accepted), len(lines))
    assert (
        list(zip(snapshot.line_numbers(0, snapshot.total), snapshot.lines(0, snapshot.total), strict=True))
        == accepted
    )
    assert intake.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert snapshot.sha256 == hashlib.sha256(b"".join(one for _, one in accepted)).hexdigest()
    data = path.read_bytes()
    for problem in intake.problems:
        assert data[problem.byte_offset :].startswith(lines[problem.line - 1])
    refused = {number for number, _ in faults(intake)}
    blank = sum(not one.strip(b" \t\r") for one in lines)
    assert intake.rejected == len(refused) == len(lines) - blank - len(accepted)


def test_writer_announces_the_hash_of_what_it_wrote(tmp_path: Path) -> None:
    path = write(tmp_path, [chat("a"), b"", chat("b")])
    with SnapshotWriter(tmp_path / "job") as writer:
        intake = read_requests(path, AZURE, into=writer)
    assert writer.written is not None
    assert writer.written.total == intake.total == 2
    assert (
        writer.written.bytes == (tmp_path / "job" / "requests.jsonl").stat().st_size == intake.request_bytes
    )
    assert writer.written.sha256 == Snapshot(tmp_path / "job").sha256 != intake.sha256


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Forty bytes a request at most, for an input with ids that fold and ten times the lines."""

    def grown_bytes(requests: int) -> int:
        path = tmp_path / f"{requests}.jsonl"
        with path.open("wb") as file:
            for number in range(requests):
                file.write(line(chat(f"REQ-{number}", "x" * 60)) + b"\n")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert intake_of(path).total == requests
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024

    grown_bytes(10_000)
    assert grown_bytes(150_000) < 150_000 * 40 + (8 << 20)
