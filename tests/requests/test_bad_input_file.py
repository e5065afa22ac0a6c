"""Rows 1 to 14 of the bad-input catalogue: the file as a whole."""

from __future__ import annotations

import gzip
import io
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from input_files import AZURE, chat, faults, intake_of, keep, line, warned, write
from langbatch.errors import BatchStorageError, BatchValidationError
from langbatch.records import Progress
from langbatch.requests.validation import read_requests, spool_stdin
from langbatch.shards.snapshot import Snapshot, SnapshotWriter


def refused(path: Path, **changes: Any) -> str:
    with pytest.raises(BatchValidationError) as caught:
        intake_of(path, **changes)
    (problem,) = caught.value.problems
    assert problem.line == 0
    return problem.code


@pytest.mark.parametrize("content", [b"", b"\n", b" \n\t\r\n\n", b"\xef\xbb\xbf", b"   "])
def test_bad_01_file_without_requests_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "input.jsonl"
    path.write_bytes(content)
    assert refused(path) == "empty_file"


def test_bad_02_missing_final_newline_is_added_in_the_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "input.jsonl"
    path.write_bytes(line(chat("a")) + b"\n" + line(chat("b")))
    intake = keep(path, tmp_path / "job")
    assert (intake.total, intake.problems, intake.warnings) == (2, (), ())
    assert (tmp_path / "job" / "requests.jsonl").read_bytes() == path.read_bytes() + b"\n"


def test_bad_03_blank_lines_are_skipped_and_numbers_stay(tmp_path: Path) -> None:
    path = write(tmp_path, [b"", chat("a"), b"  \t", chat("b"), b""])
    intake = keep(path, tmp_path / "job")
    assert (intake.total, intake.lines, warned(intake)) == (2, 5, {"blank_lines": 3})
    assert intake.warnings[0].first_line == 1
    assert list(Snapshot(tmp_path / "job").line_numbers(0, 2)) == [2, 4]


def test_bad_04_byte_order_mark_at_the_start_is_stripped(tmp_path: Path) -> None:
    path = write(tmp_path, [b"\xef\xbb\xbf" + line(chat("a")), chat("b"), b"x"])
    intake = intake_of(path)
    assert warned(intake) == {"byte_order_mark": 1}
    assert intake.total == 2
    (problem,) = intake.problems
    assert problem.byte_offset == path.read_bytes().index(b"x\n")


def test_bad_04_byte_order_mark_elsewhere_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, [chat("a"), b"\xef\xbb\xbf" + line(chat("b")), chat("c", "data \ufeff is data")])
    assert faults(intake_of(path)) == [(2, "byte_order_mark")]


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (line(chat("b", "Größe")).decode().encode("latin-1"), "invalid_utf8"),
        (line(chat("b", "x")).replace(b"x", b"\xff"), "invalid_utf8"),
        (line(chat("b", "x")).replace(b"x", b"\xed\xa0\x80"), "invalid_utf8"),
        (line(chat("b", "x")).replace(b"x", b"\xc0\xaf"), "invalid_utf8"),
        (line(chat("b")).replace(b"dep", b"de\xe9p"), "invalid_utf8"),
        (line(chat("b")).replace(b'"b"', b'"\xe9"'), "invalid_utf8"),
        (line(chat("b")).replace(b'"model"', b'"\xe9": 1, "model"'), "invalid_utf8"),
        (line(chat("b", seed=1)).replace(b"1}", b'"\xfe"}'), "invalid_utf8"),
    ],
)
def test_bad_05_what_is_not_utf8_is_refused(tmp_path: Path, broken: bytes, code: str) -> None:
    assert faults(intake_of(write(tmp_path, [chat("a"), broken]))) == [(2, code)]


def test_bad_05_utf16_is_refused_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "input.jsonl"
    path.write_bytes((line(chat("a")) + b"\n" + line(chat("b")) + b"\n").decode().encode("utf-16"))
    intake = intake_of(path)
    assert intake.total == 0
    assert {code for _, code in faults(intake)} <= {"invalid_utf8", "nul_character"}


def test_bad_06_carriage_return_before_newline_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "input.jsonl"
    path.write_bytes(line(chat("a")) + b"\r\n" + line(chat("b")) + b"\r\n")
    intake = keep(path, tmp_path / "job")
    assert (intake.total, intake.warnings) == (2, ())
    assert (tmp_path / "job" / "requests.jsonl").read_bytes() == path.read_bytes().replace(b"\r", b"")


@pytest.mark.parametrize("odd", ["\u2028", "\u2029", "\u0085", "\x7f"])
def test_bad_07_only_the_newline_byte_ends_a_line(tmp_path: Path, odd: str) -> None:
    path = write(tmp_path, [chat("a", f"one{odd}two"), chat(f"b{odd}", "x")])
    intake = keep(path, tmp_path / "job")
    assert (intake.total, intake.lines) == (2, 2)
    assert (tmp_path / "job" / "requests.jsonl").read_bytes() == path.read_bytes()
    assert Snapshot(tmp_path / "job").ids(0, 2) == ["a", f"b{odd}"]


def test_bad_07_lone_carriage_return_between_tokens_is_white_space(tmp_path: Path) -> None:
    path = write(tmp_path, [line(chat("a")).replace(b'"body": ', b'"body":\r'), chat("b")])
    assert intake_of(path).total == 2


def test_bad_08_raw_nul_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, [chat("a"), line(chat("b", "x")).replace(b"x", b"\0"), b"\0"])
    assert faults(intake_of(path)) == [(2, "nul_character"), (3, "nul_character")]


def test_bad_08_escaped_nul_is_refused_in_custom_id_only(tmp_path: Path) -> None:
    path = write(tmp_path, [chat("a", "keep \0 this"), chat("b\0")])
    assert faults(intake_of(path)) == [(2, "invalid_custom_id")]


@pytest.mark.parametrize(
    "start", [b"\x1f\x8b\x08\x00", b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00", b"BZh9"]
)
def test_bad_09_packed_file_is_refused(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "input.jsonl"
    path.write_bytes(start + b"rest")
    assert refused(path) == "compressed_file"


def test_bad_09_gzip_is_unpacked_when_asked_for(tmp_path: Path) -> None:
    plain = write(tmp_path, [chat(str(number), "x" * 5000) for number in range(300)])
    path = tmp_path / "input.jsonl.gz"
    # Two members, and padding behind them, as `cat a.gz b.gz` and tapes make them.
    half = len(plain.read_bytes()) // 2
    data = plain.read_bytes()
    path.write_bytes(gzip.compress(data[:half]) + gzip.compress(data[half:]) + b"\0\0")
    intake = keep(path, tmp_path / "job", gzip=True)
    assert (intake.total, intake.problems) == (300, ())
    assert (tmp_path / "job" / "requests.jsonl").read_bytes() == data
    assert intake.bytes == path.stat().st_size
    assert Snapshot(tmp_path / "job").sha256 == intake_of(plain).sha256 != intake.sha256


def test_bad_09_gzip_bomb_is_refused_by_ratio_and_by_size(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress((b" " * 1023 + b"\n") * (96 << 10), 9))
    assert refused(path, gzip=True) == "unpacked_too_large"
    assert (
        refused(path, gzip=True, max_unpacked_bytes=1 << 20, max_unpacked_ratio=10_000)
        == "unpacked_too_large"
    )


@pytest.mark.parametrize("damage", ["cut", "flip", "tail"])
def test_bad_09_damaged_gzip_is_refused(tmp_path: Path, damage: str) -> None:
    packed = gzip.compress(line(chat("a")) + b"\n")
    path = tmp_path / "input.gz"
    path.write_bytes(
        {"cut": packed[:-9], "flip": packed[:-6] + b"\xff" + packed[-5:], "tail": packed + b"rubbish"}[damage]
    )
    assert refused(path, gzip=True) == "broken_gzip"


def test_bad_10_directory_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path) == "not_a_file"


def test_bad_10_fifo_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    assert refused(path) == "not_a_file"


def test_bad_10_device_is_refused() -> None:
    assert refused(Path("/dev/zero")) == "not_a_file"


def test_bad_10_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's whole path may have 107 bytes only
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        assert refused(Path("socket")) in ("not_a_file", "file_unreadable")


def test_bad_10_absent_file_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "nothing.jsonl") == "file_not_found"


def test_absent_file_is_named_with_the_folder_that_a_relative_path_begins_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, missing in (
        ("a.jsonl", f"file 'a.jsonl' in '{tmp_path}'"),
        ("b/a.jsonl", f"folder '{tmp_path}/b'"),
    ):
        with pytest.raises(BatchValidationError) as caught:
            intake_of(Path(name))
        assert str(caught.value).startswith(f"there is no {missing}; check its name")


def test_bad_11_standard_input_is_spooled_to_a_private_file(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        path = spool_stdin(io.BytesIO(line(chat("a")) + b"\n"), tmp_path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert intake_of(path).total == 1


def test_bad_11_two_that_read_standard_input_at_once_do_not_meet(tmp_path: Path) -> None:
    paths = [spool_stdin(io.BytesIO(text), tmp_path) for text in (b"x", b"y")]
    assert [path.read_bytes() for path in paths] == [b"x", b"y"]


def test_bad_11_a_folder_that_cannot_be_written_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BatchStorageError) as caught:
        spool_stdin(io.BytesIO(b"x"), tmp_path / "nowhere")
    assert caught.value.hint is not None


def test_bad_12_input_symlink_is_followed(tmp_path: Path) -> None:
    link = tmp_path / "link.jsonl"
    link.symlink_to(write(tmp_path, [chat("a")]))
    assert intake_of(link).total == 1


def test_bad_12_snapshot_is_not_written_through_a_symlink(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "requests.jsonl").symlink_to(victim)
    with pytest.raises(BatchStorageError):
        keep(write(tmp_path, [chat("a")]), tmp_path / "job")
    assert victim.read_text() == "precious"


def test_bad_13_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, [chat("a")])

    def append_once(_: Progress) -> None:
        if path.stat().st_size == size:
            with path.open("ab") as file:
                file.write(line(chat("late")) + b"\n")

    size = path.stat().st_size
    with pytest.raises(BatchValidationError) as caught, SnapshotWriter(tmp_path / "job") as writer:
        read_requests(path, AZURE, into=writer, on_progress=append_once)
    assert caught.value.problems[0].code == "file_changed"
    assert not (tmp_path / "job").exists()


def test_bad_14_snapshot_outlives_its_input_and_shows_tampering(tmp_path: Path) -> None:
    path = write(tmp_path, [chat("a"), chat("b")])
    intake = keep(path, tmp_path / "job")
    path.unlink()
    snapshot = Snapshot(tmp_path / "job")
    assert snapshot.sha256 == intake.sha256
    assert list(snapshot.lines(0, 2)) == [line(chat("a")) + b"\n", line(chat("b")) + b"\n"]
    copy = tmp_path / "job" / "requests.jsonl"
    copy.write_bytes(copy.read_bytes().replace(b"hello", b"hullo"))
    assert snapshot.sha256 != intake.sha256
