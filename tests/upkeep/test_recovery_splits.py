"""`recover` of jobs whose shards were cut after submission: pieces have numbers out of order."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from langbatch import ids
from langbatch.config.resolving import resolve_target
from langbatch.emulator import EmulatorConfig
from langbatch.providers import open_provider
from langbatch.records import Attempt, Job, RemoteFile, Shard, ShardView, Tally, Target, Usage
from langbatch.running import quota
from langbatch.running.creating import BUDGET, PLACE, TARGETS, tags
from langbatch.shards.names import AttemptName, Extent, read_name
from langbatch.shards.snapshot import Snapshot
from langbatch.upkeep.destinations import NotRebuilt
from langbatch.upkeep.regathering import regather
from langbatch.upkeep.traces import Listing, Trace, read_traces
from langbatch.upkeep.uploads import Payload, Uploads
from support import SECRET_KEY, World, chat_line, requests_file, world

IDS = [f"r{n:02d}" for n in range(12)]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_API_KEY", SECRET_KEY)


def input_of(tmp_path: Path) -> tuple[Path, int]:
    source = requests_file(tmp_path / "in.jsonl", IDS)
    return source, quota.estimate_tokens(source.stat().st_size // len(IDS))


def lose(here: World, what: str) -> None:
    if what == "home":
        shutil.rmtree(here.home)
    else:
        for path in here.home.glob("langbatch.db*"):
            path.unlink()


def recover(here: World) -> tuple[str, ...]:
    with here.manager() as manager:
        done = manager.recover(**here.azure)
        assert done.skipped == ()
        return done.jobs


def order_of(here: World, job: str) -> list[int]:
    with here.manager() as manager:
        return [shard.index for shard in manager.status(job, offline=True).shards]


def finish(here: World, job: str) -> list[str]:
    with here.manager() as manager:
        assert manager.wait(job, timeout=1e6).all_succeeded
        return [result.custom_id for result in manager.results(job)]


@pytest.mark.parametrize("lost", ["database", "home"])
@pytest.mark.parametrize("told_at", ["create", "validation"])
def test_a_finished_job_of_cut_shards_comes_back_in_input_order(
    told_at: str, lost: str, tmp_path: Path
) -> None:
    source, each = input_of(tmp_path)
    with world(tmp_path, enqueued_token_limit=5 * each, token_limit_at=told_at) as here:
        with here.manager() as manager:
            job = manager.submit(source, **here.azure, max_requests_per_shard=6).id
        assert finish(here, job) == IDS
        order = order_of(here, job)
        assert order != sorted(order)
        lose(here, lost)
        assert recover(here) == (job,)
        assert order_of(here, job) == order
        assert finish(here, job) == IDS
        assert here.emulator.payments().executed == len(IDS)


@pytest.mark.parametrize("lost", ["database", "home"])
@pytest.mark.parametrize("told_at", ["create", "validation"])
def test_a_job_that_is_lost_while_its_pieces_wait_for_room_pays_for_each_request_once(
    told_at: str, lost: str, tmp_path: Path
) -> None:
    source, each = input_of(tmp_path)
    with world(tmp_path, enqueued_token_limit=5 * each, token_limit_at=told_at) as here:
        with here.manager() as manager:
            job = manager.submit(source, **here.azure, max_requests_per_shard=6).id
            # Until some pieces have been sent and others have not.
            states: set[str] = set()
            while not {"active", "waiting"} <= states:
                here.clock.sleep(2)
                shards = manager.status(job).shards
                states = {shard.state for shard in shards} if len(shards) > 2 else set()
        lose(here, lost)
        assert recover(here) == (job,)
        done = finish(here, job)
        # What was never uploaded is not known without the folder; the rest is in order, once.
        assert done == (IDS if lost == "database" else [name for name in IDS if name in done])
        assert here.emulator.payments().executed == len(done)
        assert here.emulator.payments().paid_twice == 0


def test_a_recovered_job_is_recovered_again_in_input_order(tmp_path: Path) -> None:
    source, each = input_of(tmp_path)
    with world(tmp_path, enqueued_token_limit=5 * each) as here:
        with here.manager() as manager:
            job = manager.submit(source, **here.azure, max_requests_per_shard=6).id
        finish(here, job)
        for lost in ("home", "database", "home"):
            lose(here, lost)
            assert recover(here) == (job,)
            assert finish(here, job) == IDS
        assert here.emulator.payments().executed == len(IDS)


# ---------------------------------------------------------------- from uploads alone


class Shelf:
    """Payloads as they were fetched, and the job that their names tell of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: list[RemoteFile] = []
        self.payloads: dict[str, Payload] = {}

    def put(self, shard: int, number: int, said: Extent | None, ids: list[str]) -> None:
        name = str(AttemptName("0a1b2c3d", JOB, shard, number, "abcdef01", said, None if said is None else 1))
        self.files.append(RemoteFile(name, "processed", filename=name))
        path = self.folder / name
        path.write_text("".join(chat_line(each) + "\n" for each in ids))
        parts = read_name(name)
        assert parts is not None
        self.payloads[name] = Payload(Trace(name, parts, 0), path, len(ids), "dep")

    def gather(self) -> tuple[list[tuple[int, int, int]], list[str], list[int], list[str]]:
        """The shards (number, first, requests), all ids in order, the numbers of unsent ones, the notes."""
        (job,) = read_traces([Listing(self.files, ())]).values()
        notes: list[str] = []
        found = regather(self.folder / "snapshot", job, Uploads(job, self.payloads), notes)
        snapshot = Snapshot(self.folder / "snapshot")
        plans = [(plan.index, plan.first, plan.count) for plan in found.plans]
        return plans, snapshot.ids(0, snapshot.total), sorted(found.unsent), notes


JOB = "job_01m7aaaaaaaaaaaaaaaaaaaaaa"


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def test_pieces_that_were_never_sent_are_taken_from_what_was_uploaded_before_the_cut(shelf: Shelf) -> None:
    shelf.put(0, 1, Extent(0, 6), IDS[:6])
    shelf.put(0, 2, Extent(0, 2), IDS[:2])
    shelf.put(1, 1, Extent(6, 6), IDS[6:])
    shelf.put(3, 1, Extent(4, 1), IDS[4:5])
    plans, ids, unsent, notes = shelf.gather()
    assert plans == [(0, 0, 2), (4, 2, 2), (3, 4, 1), (5, 5, 1), (1, 6, 6)]
    assert (ids, unsent, notes) == (IDS, [4, 5], [])


def test_a_shard_that_was_cut_and_not_sent_since_ends_where_its_piece_begins(shelf: Shelf) -> None:
    shelf.put(0, 1, Extent(0, 12), IDS)
    shelf.put(2, 1, Extent(8, 4), IDS[8:])
    assert shelf.gather()[:3] == ([(0, 0, 8), (2, 8, 4)], IDS, [])


def test_shards_that_reach_into_each_other_without_sharing_requests_are_not_brought_back(
    shelf: Shelf,
) -> None:
    shelf.put(0, 1, Extent(0, 6), IDS[:6])
    shelf.put(2, 1, Extent(4, 2), ["other", "one"])
    with pytest.raises(NotRebuilt, match="where shards 0 and 2 begin and end"):
        shelf.gather()


def test_a_retrys_file_alone_holds_only_the_rest_and_stays_in_its_place(shelf: Shelf) -> None:
    shelf.put(0, 1, Extent(0, 4), IDS[:4])
    shelf.put(1, 1, Extent(8, 4), IDS[8:])
    shelf.put(2, 2, Extent(4, 4), IDS[5:7])
    plans, ids, unsent, notes = shelf.gather()
    assert plans == [(0, 0, 4), (2, 4, 2), (1, 6, 4)]
    assert (ids, unsent) == (IDS[:4] + IDS[5:7] + IDS[8:], [])
    assert notes == ["of shard 2 only the requests of attempt 2 are known"]


def test_files_from_before_names_told_where_a_shard_begins_are_taken_by_number(shelf: Shelf) -> None:
    shelf.put(1, 1, None, IDS[6:])
    shelf.put(0, 1, None, IDS[:6])
    assert shelf.gather()[:2] == ([(0, 0, 6), (1, 6, 6)], IDS)
    shelf.put(2, 1, Extent(2, 2), IDS[2:4])
    shelf.put(3, 1, Extent(0, 2), IDS[:2])
    with pytest.raises(NotRebuilt, match="do not say where they begin"):
        Shelf.gather(shelf)


def test_a_job_from_before_names_told_where_a_shard_begins_comes_back(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        with here.manager() as manager:
            assert manager.jobs() == []
        old_job = ids.new_job_id(here.clock.now())
        arguments = {key: value for key, value in here.azure.items() if key != "provider"}
        provider = open_provider(*resolve_target("azure", "chat_completions", **arguments))
        for shard, names in enumerate((IDS[:6], IDS[6:])):
            path = tmp_path / "old.jsonl"
            path.write_text("".join(chat_line(name) + "\n" for name in names))
            start = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
            name = f"lb-0a1b2c3d-{old_job}-{shard:05d}-1-{start}.jsonl"
            with path.open("rb") as stream:
                file = provider.upload(name, stream, path.stat().st_size)
            while provider.get_file(file.id).status != "processed":
                here.clock.sleep(1)
            provider.create_batch(file.id, {"langbatch_tag": name, "langbatch_store": "0a1b2c3d"})
        provider.close()
        assert recover(here) == (old_job,)
        assert finish(here, old_job) == IDS
        assert here.counts()["batches"] == 2


@pytest.mark.parametrize(
    "name",
    [
        AttemptName("0a1b2c3d", JOB, 2, 3, "abcdef01"),
        AttemptName("0a1b2c3d", JOB, 123456, 3, "abcdef01", Extent(100_000, 7), 12),
    ],
)
def test_an_attempts_name_tells_its_parts_again(name: AttemptName) -> None:
    assert read_name(str(name)) == name
    assert EmulatorConfig().family_of(str(name)) == str(name).rpartition("-3-")[0]


@pytest.mark.parametrize(
    "name", ["", "mine.jsonl", "lb-0a1b2c3d-canary-0011.jsonl", "lb-x-y-00000-1-z.jsonl"]
)
def test_other_names_tell_nothing(name: str) -> None:
    assert read_name(name) is None


def test_a_batchs_metadata_is_within_the_services_limits_however_many_targets_there_are() -> None:
    def pairs(count: int) -> dict[str, str]:
        targets = [Target("azure", f"r{n}.openai.azure.com", "chat_completions", "d") for n in range(count)]
        job = Job(
            1, JOB, None, "", targets[0], "", 1, 0, "running", False, None, Tally(), Usage(), 0.0, 0.0, None,
            tuple(targets[1:]), max_tokens=5,
        )  # fmt: skip
        shard = Shard(1, 0, 0, 1, 1, 0, 10, state="creating", attempt=1)
        attempt = Attempt(1, 0, 1, "lb", 1, 0.0, target=count - 1)
        return tags("0a1b2c3d", "n" * 120, ShardView(job, shard, attempt))

    few, many = pairs(57), pairs(58)
    assert (len(few[TARGETS].split()), few[PLACE], few[BUDGET]) == (57, "56", "yes")
    assert not {TARGETS, PLACE} & many.keys()
    for found in (few, many, pairs(1)):
        assert len(found) <= 16
        assert all(len(key) <= 64 and len(value) <= 512 for key, value in found.items())
