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
from langbatch.records import Target
from langbatch.reuse.cache import HELD, Answer, Cache, forget_job, index_path, is_indexed, write_index
from langbatch.reuse.digests import answerer, question
from langbatch.reuse.expansion import HeldRecords
from langbatch.reuse.plan import ANSWERED, SENT, ReuseCounts, ReusePlan, copies_of, plan_reuse
from langbatch.reuse.spool import Spool

HERE = Target("azure", "res.openai.azure.com", "chat_completions", "dep")
THERE = Target("azure", "other.openai.azure.com", "chat_completions", "dep")
ANY = Target("openai", "api.openai.com", "chat_completions")


def of(name: str) -> bytes:
    return blake2b(name.encode(), digest_size=16).digest()


def planned(
    folder: Path,
    names: Sequence[str],
    *,
    dedupe: bool = True,
    cache: Cache | None = None,
    targets: Sequence[Target] = (HERE,),
    models: Sequence[str] = (),
) -> ReuseCounts:
    named = models or ["m"] * len(names)
    asked = ((of(name), model) for name, model in zip(names, named, strict=True))
    return plan_reuse(JobFolder(folder), asked, targets, dedupe=dedupe, cache=cache)


def fates(folder: Path) -> list[int]:
    return list(ReusePlan(JobFolder(folder)).fates)


def record(name: str) -> bytes:
    return b'{"custom_id": "%b", "outcome": "succeeded"}\n' % name.encode()


def earlier_job(
    home: Path,
    job_id: str,
    names: Sequence[str],
    *,
    target: Target = HERE,
    model: str | None = None,
    mark: int = 1,
) -> Path:
    """A joined shard with a success for each name, and its index."""
    joined = JobFolder.of(home, job_id).joined(0)
    joined.parent.mkdir(parents=True, exist_ok=True)
    joined.write_bytes(b"".join(map(record, names)))
    who, offset, answers = answerer(target, model), 0, []
    for name in names:
        answers.append(Answer(question(of(name), who), 0, offset, record(name)))
        offset += len(record(name))
    path = index_path(home / "cache", job_id)
    write_index(path, answers, mark)
    return path


def cache(home: Path, *job_ids: str) -> Cache:
    return Cache(home, [index_path(home / "cache", job_id) for job_id in job_ids])


def held(folder: Path) -> dict[int, bytes]:
    """The records held, by the ordinals of the requests that they answer."""
    with HeldRecords(JobFolder(folder)) as records:
        return {
            ordinal: records.record(fate - ANSWERED)
            for ordinal, fate in enumerate(fates(folder))
            if fate >= ANSWERED
        }


# ---------------------------------------------------------------- dedupe


def test_equal_requests_are_copies_of_the_first_by_its_number_among_those_sent(tmp_path: Path) -> None:
    assert planned(tmp_path, "aabacb") == ReuseCounts(sent=3, copies=3, answered=0, answered_by={})
    assert fates(tmp_path) == [SENT, 1, SENT, 1, SENT, 2]
    assert list(copies_of(JobFolder(tmp_path)) or ()) == [2, 1, 0]
    assert list(copies_of(JobFolder(tmp_path), 1, 2) or ()) == [1, 0]


@pytest.mark.parametrize(("names", "dedupe"), [("aab", False), ("abc", True), ("", True)])
def test_where_every_request_is_sent_there_is_no_plan(names: str, dedupe: bool, tmp_path: Path) -> None:
    assert planned(tmp_path, names, dedupe=dedupe, cache=Cache(tmp_path, [])).sent == len(names)
    assert not ReusePlan.exists(JobFolder(tmp_path))
    assert copies_of(JobFolder(tmp_path)) is None
    assert list(tmp_path.iterdir()) == []


@given(names=st.lists(st.sampled_from("abcdefgh"), max_size=60))
def test_every_request_is_sent_or_a_copy_of_the_first_that_asks_the_same(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counts = planned(folder, names)
        distinct = list(dict.fromkeys(names))
        assert (counts.sent, counts.copies) == (len(distinct), len(names) - len(distinct))
        if counts.copies:
            firsts = [names.index(each) == at for at, each in enumerate(names)]
            assert fates(folder) == [
                SENT if first else 1 + distinct.index(each) for first, each in zip(firsts, names, strict=True)
            ]
            plan = ReusePlan(JobFolder(folder))
            assert [plan.sent_before(at) for at in range(plan.total + 1)] == [
                sum(firsts[:at]) for at in range(plan.total + 1)
            ]
            assert [1 + count for count in copies_of(JobFolder(folder)) or ()] == [
                names.count(each) for each in distinct
            ]


def test_the_model_in_the_lines_counts_where_no_target_replaces_it(tmp_path: Path) -> None:
    assert planned(tmp_path, "aaa", targets=[ANY], models=["m", "n", "m"]).sent == 2
    assert fates(tmp_path) == [SENT, SENT, 1]
    assert planned(tmp_path, "aaa", targets=[HERE], models=["m", "n", "m"]).sent == 1
    assert planned(tmp_path, "aaa", targets=[HERE, ANY], models=["m", "n", "m"]).sent == 2


def test_a_failure_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    def breaks_off() -> object:
        yield of("a"), None
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plan_reuse(JobFolder(tmp_path), breaks_off(), [HERE], dedupe=True)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_cut_off_plan_is_refused(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    planned(tmp_path, "aabb")
    for path in (folder.reuse_plan, folder.copies):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BatchStorageError, match="reuse"):
        ReusePlan(folder)
    with pytest.raises(BatchStorageError, match="copies"):
        copies_of(folder)
    with pytest.raises(BatchStorageError, match="copies"):
        copies_of(folder, 1, 5)


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
    earlier_job(tmp_path, "job_1", "abc")
    job = tmp_path / "job"
    job.mkdir()
    counts = planned(job, "xcaxc", cache=cache(tmp_path, "job_1"))
    assert counts == ReuseCounts(sent=1, copies=1, answered=3, answered_by={"job_1": 3})
    assert held(job) == {1: record("c"), 2: record("a"), 4: record("c")}
    assert [fates(job)[at] for at in (0, 3)] == [SENT, 1]
    assert len(JobFolder(job).held.read_bytes()) == len(record("c") + record("a"))


def test_without_dedupe_equal_requests_that_nobody_has_answered_are_all_sent(tmp_path: Path) -> None:
    earlier_job(tmp_path, "job_1", "a")
    assert planned(tmp_path, "axxa", dedupe=False, cache=cache(tmp_path, "job_1")).sent == 2


@pytest.mark.parametrize(
    ("target", "model"), [(THERE, None), (ANY, "dep"), (Target("azure", HERE.host, "responses", "dep"), None)]
)
def test_an_answer_of_somebody_else_is_none(target: Target, model: str | None, tmp_path: Path) -> None:
    earlier_job(tmp_path, "job_1", "a", target=target, model=model)
    assert planned(tmp_path, "ab", cache=cache(tmp_path, "job_1")).answered == 0


def test_an_answer_of_any_of_the_jobs_targets_serves_and_keeps_whose_it_is(tmp_path: Path) -> None:
    earlier_job(tmp_path, "job_1", "a", target=THERE)
    earlier_job(tmp_path, "job_2", "b", target=HERE)
    earlier_job(tmp_path, "job_3", "c", target=ANY, model="m")
    found = cache(tmp_path, "job_3", "job_2", "job_1")
    counts = planned(tmp_path, "abc", targets=[HERE, THERE], cache=found)
    assert counts.answered_by == {"job_1": 1, "job_2": 1}
    with HeldRecords(JobFolder(tmp_path)) as records:
        places = [records.place(fate - ANSWERED)[2] for fate in fates(tmp_path)[:2]]
    assert places == [1, 0]


def test_an_answer_at_two_targets_is_held_once(tmp_path: Path) -> None:
    earlier_job(tmp_path, "job_1", "a", target=THERE)
    earlier_job(tmp_path, "job_2", "a", target=HERE)
    found = cache(tmp_path, "job_2", "job_1")
    assert planned(tmp_path, "a", targets=[HERE, THERE], cache=found).answered_by == {"job_2": 1}
    assert JobFolder(tmp_path).held.read_bytes() == record("a")


def test_an_answer_held_outlives_the_job_it_came_from(tmp_path: Path) -> None:
    earlier_job(tmp_path, "job_1", "a")
    planned(tmp_path, "a", cache=cache(tmp_path, "job_1"))
    JobFolder.of(tmp_path, "job_1").joined(0).unlink()
    forget_job(tmp_path, "job_1")
    assert held(tmp_path) == {0: record("a")}


def test_results_of_a_job_that_was_deleted_are_not_found(tmp_path: Path) -> None:
    earlier_job(tmp_path, "job_1", "a")
    JobFolder.of(tmp_path, "job_1").joined(0).unlink()
    assert planned(tmp_path, "a", cache=cache(tmp_path, "job_1")).sent == 1


def test_results_that_were_joined_anew_are_not_taken_for_others(tmp_path: Path) -> None:
    earlier_job(tmp_path, "job_1", "ab")
    JobFolder.of(tmp_path, "job_1").joined(0).write_bytes(record("b") + record("a"))
    assert planned(tmp_path, "ab", cache=cache(tmp_path, "job_1")).sent == 2


def test_where_the_latest_jobs_result_is_gone_an_older_one_serves(tmp_path: Path) -> None:
    for job_id in ("job_1", "job_2"):
        earlier_job(tmp_path, job_id, "a")
    found = cache(tmp_path, "job_2", "job_1")
    assert planned(tmp_path, "a", cache=found).answered_by == {"job_2": 1}
    JobFolder.of(tmp_path, "job_2").joined(0).unlink()
    assert planned(tmp_path, "a", cache=found).answered_by == {"job_1": 1}


def test_what_a_job_held_itself_can_be_found_there(tmp_path: Path) -> None:
    folder = JobFolder.of(tmp_path, "job_1")
    folder.path.mkdir(parents=True)
    folder.held.write_bytes(record("x") + record("a"))
    asked = question(of("a"), answerer(HERE, None))
    path = index_path(tmp_path / "cache", "job_1")
    write_index(path, [Answer(asked, HELD, len(record("x")), record("a"))], 1)
    planned(tmp_path, "a", cache=cache(tmp_path, "job_1"))
    assert held(tmp_path) == {0: record("a")}


@pytest.mark.parametrize(
    "damage", [b"", b"something else", b"lbcache1" + bytes(1000), b"lbcache1" + b"\xff\x00" * 1500, None]
)
def test_a_damaged_index_finds_nothing_and_breaks_nothing(tmp_path: Path, damage: bytes | None) -> None:
    path = earlier_job(tmp_path, "job_1", "a")
    path.write_bytes(path.read_bytes()[:-1] if damage is None else damage)
    assert planned(tmp_path, "a", cache=cache(tmp_path, "job_1")).sent == 1


def test_an_index_is_out_of_date_when_its_mark_is_another(tmp_path: Path) -> None:
    path = index_path(tmp_path / "cache", "job_1")
    assert not is_indexed(path, 1)
    earlier_job(tmp_path, "job_1", "a", mark=1)
    assert is_indexed(path, 1)
    assert not is_indexed(path, 2)
    earlier_job(tmp_path, "job_1", "ab", mark=2)
    assert planned(tmp_path, "ab", cache=cache(tmp_path, "job_1")).answered == 2


def test_the_index_of_ten_thousand_results_finds_each_and_nothing_else(tmp_path: Path) -> None:
    names = [f"r{number}" for number in range(10_000)]
    earlier_job(tmp_path, "job_1", names)
    wanted = [*names[::7], "not there"]
    assert planned(tmp_path, wanted, cache=cache(tmp_path, "job_1")).answered == len(wanted) - 1
    assert held(tmp_path) == {at: record(name) for at, name in enumerate(wanted[:-1])}


def test_the_index_holds_no_text_and_is_its_owners(tmp_path: Path) -> None:
    path = earlier_job(tmp_path, "job_1", ["a-telling-name"])
    assert b"telling" not in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
