"""Full, read-only and lossy disks, and a database that another process holds: said clearly, nothing lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from killing import disturbed
from killing.ground import Ground
from killing.processes import Nursery


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with Nursery(tmp_path_factory.mktemp("processes")) as opened:
        yield opened


@pytest.fixture
def place(nursery: Nursery, tmp_path: Path) -> Iterator[Ground]:
    with disturbed.stage(tmp_path, nursery) as opened:
        yield opened


@pytest.mark.parametrize(
    ("name", "hit"),
    [
        pytest.param("fsync.before", 2, id="snapshot"),
        pytest.param("rename.before", 1, id="job-folder"),
        pytest.param("rename.before", 5, id="downloaded-piece"),
        pytest.param("fsync.before", 20, id="joined-results"),
    ],
)
def test_a_disk_that_fills_up_is_told_and_the_job_goes_on_later(name: str, hit: int, place: Ground) -> None:
    child = disturbed.disk_full_from(place, name, hit)
    assert child.code == disturbed.MEND_THIS_MACHINE
    assert "No space left on device" in child.err
    assert child.carried_out
    assert disturbed.finish(place).batches == 2


@pytest.mark.parametrize("file_bytes", [1_000, 120_000])
def test_files_that_cannot_grow_stop_the_database_but_lose_nothing(file_bytes: int, place: Ground) -> None:
    assert disturbed.no_file_beyond(place, file_bytes).code == disturbed.MEND_THIS_MACHINE
    assert disturbed.finish(place).batches == 2


def test_a_home_that_is_read_only_from_the_start_is_told(place: Ground) -> None:
    child = disturbed.read_only_fresh_home(place)
    assert child.code == disturbed.MEND_THIS_MACHINE
    assert "denied" in child.err
    disturbed.finish(place)


def test_a_home_that_becomes_read_only_loses_nothing(place: Ground) -> None:
    assert disturbed.read_only_later(place).code == disturbed.MEND_THIS_MACHINE
    assert disturbed.finish(place).batches == 2


@pytest.mark.parametrize(
    ("name", "hit"), [("call.upload.after", 1), ("call.create_batch.after", 1), ("call.get_batch.after", 3)]
)
def test_a_database_held_while_a_call_is_under_way_loses_no_id(name: str, hit: int, place: Ground) -> None:
    child = disturbed.database_held_from(place, name, hit)
    assert child.code == disturbed.MEND_THIS_MACHINE
    assert "locked" in child.err
    found = disturbed.finish(place)
    assert (found.batches, found.orphan_files) == (2, 0)


@pytest.mark.parametrize("recover", [False, True])
@pytest.mark.parametrize("table", ["sqlite_master", "attempts"])
def test_a_damaged_database_is_told_and_either_way_out_leads_to_every_result(
    table: str, recover: bool, place: Ground
) -> None:
    child = disturbed.database_damaged(place, table, recover=recover)
    assert child.code == disturbed.MEND_THIS_MACHINE
    assert "recover --from-remote" in child.err
    assert disturbed.finish(place).batches == 2


def test_a_database_of_a_newer_version_is_left_as_it_is(place: Ground) -> None:
    child = disturbed.database_of_a_newer_version(place)
    assert child.code == disturbed.MEND_THIS_MACHINE
    assert disturbed.finish(place).batches == 2


@pytest.mark.parametrize("hit", [1, 5, 9])
def test_a_rename_that_a_power_cut_undoes_was_not_counted_on(hit: int, place: Ground) -> None:
    disturbed.lossy_disk_at(place, hit)
    assert disturbed.finish(place).batches == 2
