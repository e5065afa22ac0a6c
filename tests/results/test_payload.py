"""What an attempt uploads."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from langbatch.errors import BatchStorageError
from langbatch.shards.payload import write_payload

LINES = [b'{"custom_id":"%d","body":{"model":"mine"}}' % number for number in range(4)]


def set_model(line: bytes, model: str | None, url: str | None) -> bytes:
    assert not line.endswith(b"\n")
    return line if model is None else line.replace(b'"mine"', b'"' + model.encode() + b'"')


def test_lines_go_out_as_they_are_where_the_target_needs_no_edit(tmp_path: Path) -> None:
    path = tmp_path / "0-1.jsonl"
    payload = write_payload(iter(LINES), path, model=None, url=None, edit=set_model)
    expected = b"".join(line + b"\n" for line in LINES)
    assert path.read_bytes() == expected
    assert (payload.path, payload.bytes, payload.requests, payload.edited) == (path, len(expected), 4, 0)
    assert payload.sha256 == hashlib.sha256(expected).hexdigest()
    assert path.stat().st_mode & 0o777 == 0o600


def test_each_line_ends_with_one_newline_however_it_came(tmp_path: Path) -> None:
    write_payload([LINES[0] + b"\n", LINES[1]], tmp_path / "p", model="mine", url=None, edit=set_model)
    assert (tmp_path / "p").read_bytes() == LINES[0] + b"\n" + LINES[1] + b"\n"


def test_edits_are_applied_and_counted(tmp_path: Path) -> None:
    payload = write_payload(
        [*LINES, b'{"custom_id":"x","body":{"model":"other"}}'],
        tmp_path / "p",
        model="dep",
        url=None,
        edit=set_model,
    )
    assert payload.edited == 4
    assert (tmp_path / "p").read_bytes().count(b'"dep"') == 4
    assert payload.bytes == (tmp_path / "p").stat().st_size


def test_a_retry_sends_only_the_selected_requests(tmp_path: Path) -> None:
    payload = write_payload(
        iter(LINES), tmp_path / "p", model=None, url=None, edit=set_model, ordinals={1, 3}
    )
    assert payload.requests == 2
    assert (tmp_path / "p").read_bytes() == LINES[1] + b"\n" + LINES[3] + b"\n"


def test_nothing_to_send_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(BatchStorageError):
        write_payload(iter(LINES), tmp_path / "p", model=None, url=None, edit=set_model, ordinals=set())
    assert list(tmp_path.iterdir()) == []
