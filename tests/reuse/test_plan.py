"""The plan: which requests are sent, copies, or answered."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langbatch.errors import BatchStorageError
from langbatch.folders import JobFolder
from langbatch.publish import TEMPORARY_PREFIX
from langbatch.reuse.cache import Cache, JoinedShard, forget_job, index_job, is_indexed
from langbatch.reuse.plan import PLAN, Answered, CopyOf, ReuseCounts, ReusePlan, Send, plan_reuse
from langbatch.reuse.spool import Spool


def of(name: str) -> bytes:
    return blake2b(name.encode(), digest_size=16).digest()


def planned(
    folder: Path, names: Sequence[str], *, dedupe: bool = True, cache: Cache | None = None
) -> ReuseCounts:
    return plan_reuse(folder, (of(name) for name in names), dedupe=dedupe, cache=cache)


def fates(folder: Path) -> list[object]:
    plan = ReusePlan(folder)
    return [plan.fate(ordinal) for ordinal in range(plan.total)]


def record(name: str, outcome: str = "succeeded") -> bytes:
    return (
        b'{"custom_id": "%b", "outcome": "%b", "line": 1, "attempt": 1, "response": null, "error": null}\n'
        % (
            name.encode(),
            outcome.encode(),
        )
    )


def earlier_job(home: Path, job_id: str, shards: Sequence[Sequence[bytes]]) -> list[JoinedShard]:
    joined = []
    for index, records in enumerate(shards):
        path = JobFolder.of(home, job_id).joined(index)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(records))
        joined.append(JoinedShard(index, path, len(records)))
    return joined


def answer_of(plan: ReusePlan, ordinal: int) -> bytes:
    fate = plan.fate(ordinal)
    assert isinstance(fate, Answered)
    return plan.answer(fate.place)


# ---------------------------------------------------------------- dedupe


def test_equal_requests_are_copies_of_the_first(tmp_path: Path) -> None:
    assert planned(tmp_path, "abacab") == ReuseCounts(sent=3, copies=3, answered=0, answers_of={})
    assert fates(tmp_path) == [Send(), Send(), CopyOf(0), Send(), CopyOf(0), CopyOf(1)]


def test_without_dedupe_equal_requests_are_all_sent(tmp_path: Path) -> None:
    assert planned(tmp_path, "aab", dedupe=False).sent == 3
    assert fates(tmp_path) == [Send()] * 3


@given(names=st.lists(st.sampled_from("abcdefgh"), max_size=60))
def test_every_copys_original_is_the_first_of_its_equals_and_sent(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counts = planned(folder, names)
        expected = [
            Send() if names.index(each) == at else CopyOf(names.index(each)) for at, each in enumerate(names)
        ]
        assert fates(folder) == expected
        assert counts.sent + counts.copies == len(names)


def test_what_a_shard_sends_is_told_in_the_jobs_ordinals_and_in_its_own(tmp_path: Path) -> None:
    planned(tmp_path, "abacab")
    plan = ReusePlan(tmp_path)
    in_job = plan.sent(2, 3)
    in_shard = plan.sent(2, 3, counted_from=2)
    assert [ordinal for ordinal in range(6) if ordinal in in_job] == [3]
    assert [ordinal for ordinal in range(6) if ordinal in in_shard] == [1]
    assert len(in_job) == len(in_shard) == 1
    assert list(plan.sends(2, 3)) == [False, True, False]


def test_originals_are_those_with_copies_in_order(tmp_path: Path) -> None:
    planned(tmp_path, "abcbaca")
    assert list(ReusePlan(tmp_path).originals()) == [0, 1, 2]
    planned(tmp_path, "abcc")
    assert list(ReusePlan(tmp_path).originals()) == [2]


def test_a_job_without_a_plan_is_told_from_one_with(tmp_path: Path) -> None:
    assert not ReusePlan.exists(tmp_path)
    planned(tmp_path, "a")
    assert ReusePlan.exists(tmp_path)


def test_a_failure_on_the_way_leaves_no_plan(tmp_path: Path) -> None:
    def breaks_off() -> object:
        yield of("a")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plan_reuse(tmp_path, breaks_off(), dedupe=True)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_cut_off_plan_is_refused(tmp_path: Path) -> None:
    planned(tmp_path, "abc")
    whole = (tmp_path / PLAN).read_bytes()
    (tmp_path / PLAN).write_bytes(whole[:-1])
    with pytest.raises(BatchStorageError, match=PLAN):
        ReusePlan(tmp_path)


def test_many_digests_go_through_files_and_come_back_in_order(tmp_path: Path) -> None:
    count = 250_000
    with Spool(tmp_path, 4) as spool:
        for number in range(count):
            spool.add(of(str(number)), number.to_bytes(4, "little"))
        assert [path.name.startswith(TEMPORARY_PREFIX) for path in tmp_path.iterdir()] == [True]
        numbers: list[int] = []
        for first_byte in range(256):
            part = [int.from_bytes(entry[16:], "little") for entry in spool.entries_of(first_byte)]
            assert part == sorted(part)
            assert all(of(str(number))[0] == first_byte for number in part[:3])
            numbers += part
    assert sorted(numbers) == list(range(count))
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- cache


def test_what_an_earlier_job_has_had_is_not_sent_again(tmp_path: Path) -> None:
    shards = earlier_job(tmp_path, "job_1", [[record("a"), record("b")], [record("c")]])
    assert index_job(tmp_path, "job_1", map(of, "abc"), shards, mark=3) == 3
    job = tmp_path / "job"
    job.mkdir()
    counts = planned(job, "xcax", cache=Cache(tmp_path))
    assert counts == ReuseCounts(sent=1, copies=1, answered=2, answers_of={"job_1": 2})
    plan = ReusePlan(job)
    assert plan.fate(0) == Send()
    assert plan.fate(3) == CopyOf(0)
    assert (answer_of(plan, 1), answer_of(plan, 2)) == (record("c"), record("a"))


def test_only_successes_are_reused(tmp_path: Path) -> None:
    shards = earlier_job(tmp_path, "job_1", [[record("a", "errored"), record("b", "expired"), record("c")]])
    assert index_job(tmp_path, "job_1", map(of, "abc"), shards, mark=1) == 1
    assert planned(tmp_path, "abc", cache=Cache(tmp_path)).answered == 1


def test_an_answer_held_outlives_the_job_it_came_from(tmp_path: Path) -> None:
    shards = earlier_job(tmp_path, "job_1", [[record("a")]])
    index_job(tmp_path, "job_1", [of("a")], shards, mark=1)
    planned(tmp_path, "a", cache=Cache(tmp_path))
    shards[0].path.unlink()
    forget_job(tmp_path, "job_1")
    assert ReusePlan(tmp_path).answer(0) == record("a")


def test_results_of_a_job_that_was_deleted_are_not_found(tmp_path: Path) -> None:
    shards = earlier_job(tmp_path, "job_1", [[record("a")]])
    index_job(tmp_path, "job_1", [of("a")], shards, mark=1)
    shards[0].path.unlink()
    assert planned(tmp_path, "a", cache=Cache(tmp_path)).sent == 1


def test_results_that_were_joined_anew_are_not_taken_for_others(tmp_path: Path) -> None:
    shards = earlier_job(tmp_path, "job_1", [[record("a"), record("b")]])
    index_job(tmp_path, "job_1", map(of, "ab"), shards, mark=2)
    earlier_job(tmp_path, "job_1", [[record("b"), record("a")]])
    assert planned(tmp_path, "ab", cache=Cache(tmp_path)).sent == 2


def test_where_the_latest_jobs_result_is_gone_an_older_one_serves(tmp_path: Path) -> None:
    for job_id in ("job_1", "job_2"):
        shards = earlier_job(tmp_path, job_id, [[record("a")]])
        index_job(tmp_path, job_id, [of("a")], shards, mark=1)
    assert planned(tmp_path, "a", cache=Cache(tmp_path)).answers_of == {"job_2": 1}
    shards[0].path.unlink()
    assert planned(tmp_path, "a", cache=Cache(tmp_path)).answers_of == {"job_1": 1}


def test_a_job_does_not_find_itself(tmp_path: Path) -> None:
    shards = earlier_job(tmp_path, "job_1", [[record("a")]])
    index_job(tmp_path, "job_1", [of("a")], shards, mark=1)
    assert planned(tmp_path, "a", cache=Cache(tmp_path, leave_out="job_1")).sent == 1


@pytest.mark.parametrize("damage", [b"", b"something else", b"lbcache1" + bytes(1000), None])
def test_a_damaged_index_finds_nothing_and_breaks_nothing(tmp_path: Path, damage: bytes | None) -> None:
    shards = earlier_job(tmp_path, "job_1", [[record("a")]])
    index_job(tmp_path, "job_1", [of("a")], shards, mark=1)
    path = tmp_path / "cache" / "job_1.idx"
    path.write_bytes(path.read_bytes()[:-1] if damage is None else damage)
    assert planned(tmp_path, "a", cache=Cache(tmp_path)).sent == 1


def test_an_index_is_built_again_when_its_mark_is_another(tmp_path: Path) -> None:
    shards = earlier_job(tmp_path, "job_1", [[record("a"), record("b", "errored")]])
    assert not is_indexed(tmp_path, "job_1", 1)
    index_job(tmp_path, "job_1", map(of, "ab"), shards, mark=1)
    assert is_indexed(tmp_path, "job_1", 1)
    assert not is_indexed(tmp_path, "job_1", 2)
    shards = earlier_job(tmp_path, "job_1", [[record("a"), record("b")]])
    index_job(tmp_path, "job_1", map(of, "ab"), shards, mark=2)
    assert planned(tmp_path, "ab", cache=Cache(tmp_path)).answered == 2


def test_the_index_of_ten_thousand_results_finds_each_and_nothing_else(tmp_path: Path) -> None:
    names = [f"r{number}" for number in range(10_000)]
    shards = earlier_job(
        tmp_path, "job_1", [[record(name) for name in names[:4000]], [record(name) for name in names[4000:]]]
    )
    index_job(tmp_path, "job_1", map(of, names), shards, mark=0)
    wanted = [*names[::7], "not there"]
    assert planned(tmp_path, wanted, cache=Cache(tmp_path)).answered == len(wanted) - 1
    plan = ReusePlan(tmp_path)
    assert all(answer_of(plan, at) == record(name) for at, name in enumerate(wanted[:-1]))


def test_the_index_holds_no_text_and_is_its_owners(tmp_path: Path) -> None:
    shards = earlier_job(tmp_path, "job_1", [[record("a-telling-name")]])
    index_job(tmp_path, "job_1", [of("a-telling-name")], shards, mark=1)
    path = tmp_path / "cache" / "job_1.idx"
    assert b"telling" not in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("digests", ["a", "abc"])
def test_requests_and_results_out_of_step_are_not_indexed(tmp_path: Path, digests: str) -> None:
    shards = earlier_job(tmp_path, "job_1", [[record("a")], [record("b")]])
    with pytest.raises(ValueError, match="there are more"):
        index_job(tmp_path, "job_1", map(of, digests), shards, mark=1)
    assert not is_indexed(tmp_path, "job_1", 1)


def test_a_shard_without_all_its_records_is_not_indexed(tmp_path: Path) -> None:
    (shard,) = earlier_job(tmp_path, "job_1", [[record("a")]])
    with pytest.raises(BatchStorageError):
        index_job(tmp_path, "job_1", map(of, "ab"), [JoinedShard(0, shard.path, 2)], mark=1)
    assert not is_indexed(tmp_path, "job_1", 1)
