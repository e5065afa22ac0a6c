"""Files appear whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from langbatch.errors import BatchResultsError, BatchStorageError
from langbatch.publish import TEMPORARY_PREFIX, private_folder, publishing


def test_a_published_file_is_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    path.chmod(0o644)
    with publishing(path) as file:
        file.write(b"new" * 100_000)
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new" * 100_000
    assert path.stat().st_mode & 0o777 == 0o600
    assert [item.name for item in tmp_path.iterdir()] == ["out"]


def test_the_mode_asked_for_is_given_whatever_the_umask(tmp_path: Path) -> None:
    with publishing(tmp_path / "out", 0o644):
        pass
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_everything_as_it_was(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")

    def fail() -> None:
        with publishing(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["out"]


def test_a_killed_writer_leaves_the_old_file_and_a_name_to_sweep(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    script = (
        "import os, signal, sys; from pathlib import Path; from langbatch.publish import publishing\n"
        "with publishing(Path(sys.argv[1])) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    [left] = [item for item in tmp_path.iterdir() if item != path]
    assert left.name.startswith(TEMPORARY_PREFIX)
    assert left.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("there", [True, False])
def test_bad_12_an_output_is_never_written_through_a_link(tmp_path: Path, there: bool) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    if there:
        real.write_bytes(b"untouched")
    link.symlink_to(real)
    with pytest.raises(BatchResultsError) as refusal, publishing(link) as file:
        file.write(b"x")
    assert refusal.value.code == "output_is_link"
    assert link.is_symlink()
    assert real.exists() is there
    assert not there or real.read_bytes() == b"untouched"


def test_bad_12_a_link_made_while_writing_is_refused_too(tmp_path: Path) -> None:
    link = tmp_path / "link"
    with pytest.raises(BatchResultsError), publishing(link):
        link.symlink_to(tmp_path / "real")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["link"]


def test_a_folder_or_device_is_no_output(tmp_path: Path) -> None:
    for path in (tmp_path, Path(os.devnull)):
        with pytest.raises(BatchResultsError), publishing(path):
            pass


def test_without_replace_a_file_that_exists_stays(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with publishing(path, replace=False) as file:
        file.write(b"first")
    with pytest.raises(BatchResultsError) as refusal, publishing(path, replace=False) as file:
        file.write(b"second")
    assert refusal.value.code == "output_exists"
    assert path.read_bytes() == b"first"


def test_without_replace_a_file_made_while_writing_stays(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with pytest.raises(BatchResultsError), publishing(path, replace=False):
        path.write_bytes(b"theirs")
    assert path.read_bytes() == b"theirs"
    assert [item.name for item in tmp_path.iterdir()] == ["out"]


def test_private_folders_are_closed_to_others_and_old_ones_stay(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    made = private_folder(tmp_path / "a" / "b")
    assert private_folder(made) == made
    assert made.stat().st_mode & 0o777 == 0o700
    assert made.parent.stat().st_mode & 0o777 == 0o700
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(BatchStorageError):
        private_folder(tmp_path / "taken")
