"""`recover` of jobs that went to several targets: what one of them shows is never taken for all there is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from langbatch import BatchStateError, JobManager, NeedsOperator, Recovery
from langbatch.emulator import Emulator, EmulatorConfig, routed
from langbatch.records import RemoteBatch, RemoteFile, Target
from langbatch.running.creating import PLACE, TARGETS
from langbatch.targets import mark
from langbatch.upkeep.destinations import Listed, NotRebuilt, find_destinations
from langbatch.upkeep.traces import JobTrace, Listing, read_traces
from support import SECRET_KEY, VirtualClock, requests_file

IDS = [f"r{n:02d}" for n in range(12)]
EAST: dict[str, Any] = {"azure_endpoint": "https://east.openai.azure.com", "deployment": "mini-east"}
WEST: dict[str, Any] = {"azure_endpoint": "https://west.openai.azure.com", "deployment": "mini-west"}
COMMON: dict[str, Any] = {"provider": "azure", "api_key": SECRET_KEY, "api_version": "2025-04-01-preview"}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_API_KEY", SECRET_KEY)


@dataclass(frozen=True)
class Resources:
    """One store and two services that know nothing of each other."""

    home: Path
    clock: VirtualClock
    east: Emulator
    west: Emulator

    def manager(self, profile: str | None = None) -> JobManager:
        return JobManager(self.home, clock=self.clock, profile=profile)

    def submit(self, folder: Path, *targets: dict[str, Any], size: int = 2, **options: Any) -> str:
        source = requests_file(folder / "in.jsonl", IDS, max_completion_tokens=5)
        with self.manager() as manager:
            return manager.submit(
                source, **COMMON, targets=targets or (EAST, WEST), max_requests_per_shard=size, **options
            ).id

    def recover(self, *targets: dict[str, Any]) -> Recovery:
        with self.manager() as manager:
            return manager.recover(**COMMON, targets=targets)

    def finish(self, job: str) -> list[str]:
        """Wait for the job; its custom_ids in order. Every request has succeeded."""
        with self.manager() as manager:
            assert manager.wait(job, timeout=1e6).all_succeeded
            return [result.custom_id for result in manager.results(job)]

    def calls(self) -> list[int]:
        """Uploads and batches at each service."""
        reports = [emulator.report()["counts"] for emulator in (self.east, self.west)]
        return [report[name] for report in reports for name in ("uploads", "batches")]

    def executed(self) -> int:
        return self.east.payments().executed + self.west.payments().executed

    def lose(self, what: str) -> None:
        if what == "home":
            shutil.rmtree(self.home)
        else:
            for path in self.home.glob("langbatch.db*"):
                path.unlink()


@contextmanager
def resources(
    tmp_path: Path, *, east: dict[str, Any] | None = None, west: dict[str, Any] | None = None
) -> Iterator[Resources]:
    clock = VirtualClock()

    def emulator(name: str, config: dict[str, Any] | None) -> Emulator:
        settings = EmulatorConfig.instant(**(config or {}))
        return Emulator(settings, clock=clock.emulated, folder=tmp_path / name)

    with (
        emulator("east", east) as one,
        emulator("west", west) as two,
        routed(one, host="east.openai.azure.com"),
        routed(two, host="west.openai.azure.com"),
    ):
        yield Resources(tmp_path / "home", clock, one, two)


# ---------------------------------------------------------------- two resources


@pytest.mark.parametrize("lost", ["database", "home"])
def test_a_job_of_two_resources_is_left_alone_until_both_are_named(lost: str, tmp_path: Path) -> None:
    with resources(tmp_path) as here:
        job = here.submit(tmp_path)
        calls = here.calls()
        assert calls == [3, 3, 3, 3]
        here.lose(lost)
        for one in (EAST, WEST):
            done = here.recover(one)
            assert done.jobs == ()
            ((skipped, reason),) = done.skipped
            assert skipped == job
            assert "of its 2 targets, 1 cannot be found" in reason
            assert "--profile" in reason
            with here.manager() as manager:
                assert manager.jobs() == []
        # In another order than at submission: the job's own order counts.
        assert here.recover(WEST, EAST).jobs == (job,)
        assert here.finish(job) == IDS
        assert here.calls() == calls
        assert here.executed() == len(IDS)
        with here.manager() as manager:
            places = [target.model for target in manager._store.find(job).targets]
            assert places == ["mini-east", "mini-west"]
            assert [s.target.rpartition("/")[2] for s in manager.status(job).shards].count("mini-west") == 3


@pytest.mark.parametrize("lost", ["database", "home"])
def test_a_finished_job_of_two_resources_comes_back_with_every_result(lost: str, tmp_path: Path) -> None:
    with resources(tmp_path) as here:
        job = here.submit(tmp_path)
        here.finish(job)
        here.lose(lost)
        assert here.recover(EAST, WEST).jobs == (job,)
        assert here.finish(job) == IDS
        assert here.executed() == len(IDS)
        assert here.recover(EAST, WEST) == Recovery(known=(job,))


def test_shards_that_nobody_ever_sent_are_sent_once_both_resources_have_been_looked_at(
    tmp_path: Path,
) -> None:
    full = {"faults": ("upload-quota@2",) * 9}
    with resources(tmp_path, east=full, west=full) as here:
        job = here.submit(tmp_path)
        assert here.calls() == [1, 1, 1, 1]
        here.lose("database")
        assert here.recover(EAST).jobs == ()
        assert here.recover(WEST).jobs == ()
        assert here.calls() == [1, 1, 1, 1]
        assert here.recover(EAST, WEST).jobs == (job,)
        assert here.finish(job) == IDS
        assert here.executed() == len(IDS)


def test_the_same_bytes_on_the_same_targets_are_the_recovered_job(tmp_path: Path) -> None:
    with resources(tmp_path) as here:
        job = here.submit(tmp_path)
        here.lose("database")
        here.recover(WEST, EAST)
        assert here.submit(tmp_path) == job


def name_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile `prod` of both resources."""
    profiles = tmp_path / "profiles.toml"
    profiles.write_text(
        '[prod]\nprovider = "azure"\n'
        '[[prod.targets]]\nazure_endpoint = "https://east.openai.azure.com"\ndeployment = "mini-east"\nweight = 2\n'
        '[[prod.targets]]\nazure_endpoint = "https://west.openai.azure.com"\ndeployment = "mini-west"\n'
    )
    monkeypatch.setenv("LANGBATCH_PROFILES", str(profiles))


def test_doctor_looks_at_every_target_of_a_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name_both(tmp_path, monkeypatch)
    with resources(tmp_path) as here, here.manager("prod") as manager:
        assert manager.doctor().healthy
        here.west.add_faults("list-401-key")
        diagnosis = manager.doctor()
        told = [finding.what for finding in diagnosis if finding.check == "configuration"]
        assert ["mini-east" in what for what in told] == [True, False]
        assert ["mini-west" in what for what in told] == [False, True]
        (wrong,) = [finding for finding in diagnosis if finding.level == "problem"]
        assert wrong.check == "sign_in"


def test_a_profile_names_all_targets_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name_both(tmp_path, monkeypatch)
    with resources(tmp_path) as here:
        with here.manager("prod") as manager:
            source = requests_file(tmp_path / "in.jsonl", IDS, max_completion_tokens=5)
            job = manager.submit(source, max_requests_per_shard=2).id
        here.lose("database")
        with here.manager("prod") as manager:
            assert manager.recover().jobs == (job,)
            assert manager._store.find(job).target.weight == 2
        assert here.finish(job) == IDS
        assert here.executed() == len(IDS)


def test_an_unreadable_list_at_one_of_two_resources_changes_nothing(tmp_path: Path) -> None:
    with resources(tmp_path) as here:
        job = here.submit(tmp_path)
        here.lose("home")
        here.west.add_faults("list-500")
        with pytest.raises(Exception, match="500"):
            here.recover(EAST, WEST)
        with here.manager() as manager:
            assert manager.jobs() == []
        here.west.remove_faults("list-500")
        assert here.recover(EAST, WEST).jobs == (job,)
        assert here.finish(job) == IDS


def test_jobs_with_one_target_come_back_beside_those_with_two(tmp_path: Path) -> None:
    with resources(tmp_path) as here:
        both = here.submit(tmp_path)
        single = {name: here.submit(tmp_path, target) for name, target in (("e", EAST), ("w", WEST))}
        here.lose("home")
        assert here.recover(EAST).jobs == (single["e"],)
        assert sorted(here.recover(EAST, WEST).jobs) == sorted((both, single["w"]))
        for job in (both, *single.values()):
            assert here.finish(job) == IDS
        with here.manager() as manager:
            assert [t.model for t in manager._store.find(single["w"]).targets] == ["mini-west"]
        assert here.executed() == 3 * len(IDS)


def test_two_deployments_of_one_resource_each_have_their_own_batches_again(tmp_path: Path) -> None:
    one, two = {**EAST, "deployment": "a"}, {**EAST, "deployment": "b"}
    with resources(tmp_path) as here:
        job = here.submit(tmp_path, one, two)
        with here.manager() as manager:
            before = [shard.target for shard in manager.status(job, offline=True).shards]
        here.lose("home")
        listings = here.east.report()["calls"].get("list", 0)
        assert here.recover(one).jobs == ()
        assert here.recover(two, one).jobs == (job,)
        assert here.east.report()["calls"].get("list", 0) - listings <= 4
        with here.manager() as manager:
            assert [shard.target for shard in manager.status(job, offline=True).shards] == before
        assert here.finish(job) == IDS
        assert here.executed() == len(IDS)


# ---------------------------------------------------------------- what is not known is not sent


@pytest.mark.parametrize("lost", ["database", "home"])
def test_files_alone_say_that_there_were_other_targets_and_nothing_is_sent(lost: str, tmp_path: Path) -> None:
    dropped = {"faults": ("create-drop", "list-500")}
    with resources(tmp_path, east=dropped, west=dropped) as here:
        job = here.submit(tmp_path)
        assert here.calls() == [3, 0, 3, 0]
        here.lose(lost)
        for emulator in (here.east, here.west):
            emulator.remove_faults("create-drop")
            emulator.remove_faults("list-500")
        assert "it has 2 targets, and only 1 named" in here.recover(EAST).skipped[0][1]
        # No batch tells which targets these were: both that are named now may be others.
        assert here.recover(EAST, WEST).jobs == (job,)
        with here.manager() as manager:
            with pytest.raises(NeedsOperator, match="which targets the job had is not known"):
                manager.wait(job)
            assert here.calls() == [3, 0, 3, 0]
            for shard in manager.status(job).shards:
                manager.resubmit(job, shard=shard.index)
        assert here.finish(job) == IDS
        assert here.executed() == len(IDS)


def test_a_batch_elsewhere_is_not_paid_again_though_its_shards_first_file_lies_here(tmp_path: Path) -> None:
    # The file of the first attempt stays where the move to the other resource could not delete it.
    east = {"faults": ("create-token-limit", "delete-file-500")}
    with resources(tmp_path, east=east) as here:
        job = here.submit(tmp_path, size=12)
        assert here.calls() == [1, 0, 1, 1]
        here.lose("database")
        assert here.recover(EAST).jobs == ()
        assert here.recover(EAST, WEST).jobs == (job,)
        assert here.finish(job) == IDS
        assert here.calls() == [1, 0, 1, 1]


def test_a_budget_that_is_lost_holds_back_what_was_not_sent(tmp_path: Path) -> None:
    with resources(tmp_path, east={"faults": ("upload-quota@2",) * 9}) as here:
        job = here.submit(tmp_path, EAST, max_tokens=10_000_000)
        assert here.calls()[:2] == [1, 1]
        here.lose("database")
        assert here.recover(EAST).jobs == (job,)
        with here.manager() as manager:
            with pytest.raises(NeedsOperator, match="had a budget"):
                manager.wait(job)
            assert here.calls()[:2] == [1, 1]
            assert manager.status(job).counts.succeeded == 2


# ---------------------------------------------------------------- afterwards


def test_a_recovered_jobs_files_are_purged_at_both_resources(tmp_path: Path) -> None:
    with resources(tmp_path) as here:
        job = here.submit(tmp_path)
        here.lose("home")
        here.recover(EAST, WEST)
        here.finish(job)
        with here.manager() as manager:
            manager.purge(job)
        assert here.east.report()["files"] == here.west.report()["files"] == []


def test_gc_tidies_every_target_of_a_job(tmp_path: Path) -> None:
    with resources(tmp_path) as here:
        job = here.submit(tmp_path)
        here.finish(job)
        with here.manager() as manager:
            told = manager.gc(dry_run=True)
            assert len(told.deleted) == 6 * 3
            assert len(here.west.report()["files"]) == 9
            assert sorted(manager.gc().deleted) == sorted(told.deleted)
            assert here.east.report()["files"] == here.west.report()["files"] == []
            assert len(list(manager.results(job))) == len(IDS)


def test_gc_spares_the_files_of_jobs_that_could_not_be_brought_back(tmp_path: Path) -> None:
    with resources(tmp_path) as here:
        both, single = here.submit(tmp_path), here.submit(tmp_path, EAST)
        here.lose("home")
        assert here.recover(EAST).jobs == (single,)
        here.finish(single)
        here.clock.sleep(3 * 86_400)
        with here.manager() as manager:
            manager.gc()
        names = [file["filename"] for file in here.east.report()["files"] if file["purpose"] == "batch"]
        assert len(names) == 3
        assert all(both in name for name in names)
        assert here.recover(EAST, WEST).jobs == (both,)
        assert here.finish(both) == IDS


def test_batches_that_show_neither_tag_nor_file_hold_back_what_they_may_be_and_can_be_adopted(
    tmp_path: Path,
) -> None:
    with resources(tmp_path, west={"faults": ("batch-metadata-null",)}) as here:
        job = here.submit(tmp_path)
        with here.manager() as manager:
            provider = manager._access.provider(manager._store.find(job), 1)
            batches = {s.index: str(s.batch_id) for s in manager.status(job, offline=True).shards}
            for file in here.west.report()["files"]:
                provider.delete_file(file["id"])
        here.lose("database")
        calls = here.calls()
        assert here.recover(EAST, WEST).jobs == (job,)
        with here.manager() as manager:
            with pytest.raises(NeedsOperator, match="shows no tag, and its file is gone"):
                manager.wait(job)
            stuck = [shard.index for shard in manager.status(job).shards if shard.state == "needs_operator"]
            assert len(stuck) == 3
            for shard in stuck:
                manager.adopt(job, batches[shard], shard=shard)
        assert here.finish(job) == IDS
        assert here.calls() == calls
        assert here.executed() == len(IDS)


def test_a_batch_that_a_shard_did_not_send_is_not_looked_for_elsewhere(tmp_path: Path) -> None:
    dropped = {"faults": ("create-drop", "list-500")}
    with resources(tmp_path, east=dropped) as here:
        stuck = here.submit(tmp_path, EAST, WEST, size=6)
        other = here.submit(tmp_path, WEST, size=12)
        with here.manager() as manager:
            with pytest.raises(NeedsOperator):
                manager.wait(stuck, timeout=1e6)
            batch = manager.status(other).shards[0].batch_id
            with pytest.raises(BatchStateError, match="knows no batch"):
                manager.adopt(stuck, str(batch))


# ---------------------------------------------------------------- pure


def where(name: str, model: str | None = None) -> Target:
    return Target("azure", f"{name}.openai.azure.com", "chat_completions", model)


def seen(
    listing: int, shard: int, *, targets: str = "f0n2t2-", metadata: dict[str, str] | None = None
) -> Listing:
    name = f"lb-0a1b2c3d-job_01m7aaaaaaaaaaaaaaaaaaaaaa-{targets}{shard:05d}-1-abcdef01.jsonl"
    file = RemoteFile(f"f{shard}", "processed", filename=name)
    batches = [RemoteBatch(f"b{shard}", "completed", f"f{shard}", metadata=metadata)] if metadata else []
    return Listing([file], batches)


def traced(*listings: Listing) -> JobTrace:
    (job,) = read_traces(listings).values()
    return job


def test_the_jobs_own_order_of_targets_is_found_by_their_marks() -> None:
    one, two, three = where("one", "a"), where("two", "b"), where("three", "c")
    said = {TARGETS: f"{mark(two)} {mark(one)}", PLACE: "0"}
    job = traced(seen(0, 0), seen(1, 1, metadata=said), Listing((), ()))
    found = find_destinations(job, [Listed(one, 0), Listed(two, 1), Listed(three, 2)], {})
    assert [each.target for each in found.targets] == [two, one]
    assert found.are_all
    assert [found.place_of(job.shards[shard][0], None) for shard in (0, 1)] == [1, 0]


@pytest.mark.parametrize("second", ["elsewhere", "other-deployment"])
def test_as_many_targets_as_the_job_had_are_not_enough_if_they_are_others(second: str) -> None:
    one, two = where("one", "a"), where("two", "b")
    other = where("three", "b") if second == "elsewhere" else where("two", "c")
    job = traced(seen(0, 0, metadata={TARGETS: f"{mark(one)} {mark(two)}"}))
    with pytest.raises(NotRebuilt, match="of its 2 targets, 1 cannot be found"):
        find_destinations(job, [Listed(one, 0), Listed(other, 1)], {})


def test_batches_that_name_different_targets_are_not_believed() -> None:
    one, two = where("one", "a"), where("two", "b")
    job = traced(
        seen(0, 0, metadata={TARGETS: f"{mark(one)} {mark(two)}"}),
        seen(1, 1, metadata={TARGETS: f"{mark(two)} {mark(one)}"}),
    )
    assert not find_destinations(job, [Listed(one, 0), Listed(two, 1)], {}).are_all


def test_what_lies_at_a_target_that_the_job_does_not_name_is_not_brought_back() -> None:
    one, two, three = where("one", "a"), where("two", "b"), where("three", "c")
    job = traced(seen(0, 0, metadata={TARGETS: f"{mark(one)} {mark(two)}"}), Listing((), ()), seen(2, 1))
    with pytest.raises(NotRebuilt, match="does not name as its own"):
        find_destinations(job, [Listed(one, 0), Listed(two, 1), Listed(three, 2)], {})


def test_of_two_deployments_at_one_resource_the_lines_tell_which_one_a_job_with_one_target_had() -> None:
    one, two = where("same", "a"), where("same", "b")
    job = traced(seen(0, 0, targets=""))
    (name,) = (trace.name for trace in job.traces)
    found = find_destinations(job, [Listed(one, 0), Listed(two, 0)], {name: "b"})
    assert ([each.target for each in found.targets], found.are_all) == ([two], True)


def test_a_job_from_before_targets_were_told_that_lies_at_two_resources_may_lie_at_more() -> None:
    one, two = where("one", "a"), where("two", "b")
    job = traced(seen(0, 0, targets=""), seen(1, 1, targets=""))
    found = find_destinations(job, [Listed(one, 0), Listed(two, 1)], {})
    assert ([each.target for each in found.targets], found.are_all) == ([one, two], False)
