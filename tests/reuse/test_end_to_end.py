"""Equal requests are paid for once, and each has its result: through the real SDK against the emulator."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from langbatch import JobNotFinished, chat_completion_batch, failpoints
from langbatch.compat.storages import FileBatchStorage
from langbatch.emulator import RowError
from reuse.asking import check, paid, paid_ids, say, written
from support import world

SAYINGS = ["a", "b", "a", "c", "b", "a"]


class Died(BaseException):
    """The process ends here."""


def test_equal_requests_of_a_batch_are_sent_once_and_each_has_the_result(tmp_path: Path) -> None:
    source = written(tmp_path / "in.jsonl", SAYINGS)
    with world(tmp_path) as here, here.manager() as manager:
        job = manager.submit(source, dedupe=True, **here.azure)
        assert manager.wait(job.id).state == "completed"
        check(manager, job.id, SAYINGS)
        texts = [result.text for result in manager.results(job.id)]
        assert texts[0] == texts[2] == texts[5]
        assert texts[1] == texts[4]
        assert (paid(here), here.counts()["batches"]) == (3, 1)


def test_without_the_wish_every_request_is_sent(tmp_path: Path) -> None:
    with world(tmp_path) as here, here.manager() as manager:
        job = manager.submit(written(tmp_path / "in.jsonl", SAYINGS), **here.azure)
        manager.wait(job.id)
        assert paid(here) == len(SAYINGS)


def test_equal_requests_are_sent_once_whatever_shard_they_would_be_in(tmp_path: Path) -> None:
    sayings = list("abacbbabbdacbd")
    with world(tmp_path, answer=say) as here, here.manager() as manager:
        source = written(tmp_path / "in.jsonl", sayings)
        job = manager.submit(source, dedupe=True, max_requests_per_shard=2, **here.azure)
        assert manager.wait(job.id).state == "completed"
        check(manager, job.id, sayings)
        assert [result.text for result in manager.results(job.id)] == [f"said {saying}" for saying in sayings]
        assert paid_ids(here) == {"task-0": 1, "task-1": 1, "task-3": 1, "task-9": 1}
        assert here.counts()["batches"] == 2
        status = manager.status(job.id)
        assert status.reuse is not None
        assert dict(status.reuse) == {"sent": 4, "copies": 10, "answered": 0}
        assert [(shard.requests, shard.first_line) for shard in status.shards] == [(2, 1), (2, 4)]


def test_every_way_out_shows_copies_with_their_own_names_and_lines(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in written(tmp_path / "in.jsonl", SAYINGS).read_text().splitlines()]
    lines[2]["body"] = dict(reversed(lines[2]["body"].items()))  # says the same in another order
    source = tmp_path / "in.jsonl"
    source.write_text("\n" + "".join(json.dumps(line) + "\n" for line in lines))
    with world(tmp_path, answer=say) as here, here.manager() as manager:
        batch = chat_completion_batch(source, manager=manager, dedupe=True, **here.azure)
        batch.start()
        batch.wait()
        assert [(r.custom_id, r.line) for r in batch.results()] == [(f"task-{n}", n + 2) for n in range(6)]
        assert [r.request_line for r in batch.results(with_request=True)] == [
            line + b"\n" for line in source.read_bytes().splitlines()[1:]
        ]
        assert [record["custom_id"] for record in batch.get_results()[0]] == [f"task-{n}" for n in range(6)]
        plain = batch.get_results_file().read_bytes().splitlines()
        assert [(json.loads(line)["custom_id"], json.loads(line)["line"]) for line in plain] == [
            (f"task-{n}", n + 2) for n in range(6)
        ]
        assert batch.get_requests_by_custom_ids(["task-4", "task-2"]) == [lines[2], lines[4]]
        for name in ("out.csv", "out.jsonl"):
            exported = batch.export(tmp_path / name, with_request=name.endswith("jsonl")).read_text()
            assert [exported.count(f"task-{n}") for n in range(6)] == [1] * 6, exported
        written_out = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert [record["request"] for record in written_out] == [line["body"] for line in lines]
        assert (paid(here), here.counts()["batches"]) == (3, 1)


def test_before_the_end_copies_of_what_is_there_are_there(tmp_path: Path) -> None:
    sayings = list("abcabcca")
    faults = ("create-429-long@2",)
    with world(tmp_path, answer=say, faults=faults) as here, here.manager() as manager:
        source = written(tmp_path / "in.jsonl", sayings)
        job = manager.submit(source, dedupe=True, max_requests_per_shard=2, **here.azure)
        while manager.status(job.id).shards[0].state != "done":
            here.clock.sleep(1)
        status = manager.status(job.id)
        assert (status.counts.succeeded, status.counts.pending, status.total) == (5, 3, 8)
        assert [(r.custom_id, r.text) for r in manager.results(job.id, partial=True)] == [
            (f"task-{n}", f"said {sayings[n]}") for n in (0, 1, 3, 4, 7)
        ]
        with pytest.raises(JobNotFinished, match="3 of 8 requests have no result"):
            manager.results(job.id)
        manager.wait(job.id)
        check(manager, job.id, sayings)


def test_the_same_file_is_the_same_job_whatever_is_wished(tmp_path: Path) -> None:
    with world(tmp_path) as here, here.manager() as manager:
        source = written(tmp_path / "in.jsonl", SAYINGS)
        first = manager.submit(source, dedupe=True, **here.azure)
        manager.wait(first.id)
        assert manager.submit(source, **here.azure).id == first.id
        assert paid(here) == 3


@pytest.mark.parametrize("per_shard", [None, 1, 2])
def test_a_failure_is_copied_and_a_retry_sends_the_original_alone(
    per_shard: int | None, tmp_path: Path
) -> None:
    failing = {"a"}

    def answer(body: dict[str, Any], _: str) -> str | RowError:
        saying = body["messages"][0]["content"]
        return RowError(400, "content_filter") if saying in failing else f"said {saying}"

    with world(tmp_path, answer=answer) as here, here.manager() as manager:
        source = written(tmp_path / "in.jsonl", SAYINGS)
        batch = chat_completion_batch(source, manager=manager, **here.azure)
        batch.start(dedupe=True)
        job = manager.submit(source, max_requests_per_shard=per_shard, new=True, dedupe=True, **here.azure)
        for job_id in (batch.id, job.id):
            assert manager.wait(job_id).counts.errored == 3
            check(manager, job_id, SAYINGS)
        assert [request["custom_id"] for request in batch.get_unsuccessful_requests()] == [
            "task-0",
            "task-2",
            "task-5",
        ]
        assert [(f.code, f.requests) for f in manager.failures(job.id)] == [("content_filter", 3)]
        failing.clear()
        before = paid_ids(here)
        manager.retry(job.id)
        status = manager.wait(job.id)
        check(manager, job.id, SAYINGS)
        assert [result.text for result in manager.results(job.id)] == [f"said {saying}" for saying in SAYINGS]
        assert status.all_succeeded
        assert {
            name: count - before[name] for name, count in paid_ids(here).items() if count > before[name]
        } == {"task-0": 1}


def test_copies_are_cancelled_with_their_originals(tmp_path: Path) -> None:
    with world(tmp_path) as here, here.manager() as manager:
        source = written(tmp_path / "in.jsonl", SAYINGS)
        job = manager.submit(source, dedupe=True, start=False, **here.azure)
        manager.cancel(job.id)
        assert manager.wait(job.id).counts.cancelled == len(SAYINGS)
        check(manager, job.id, SAYINGS)
        assert paid(here) == 0


@pytest.mark.parametrize(
    ("outcome", "state"),
    [("expire_half", "completed"), ("cancel_half", "cancelled"), ("all_fail", "completed")],
)
def test_copies_end_as_their_originals_when_batches_end_early(
    outcome: str, state: str, tmp_path: Path
) -> None:
    sayings = list("abcdabcddcba")
    with world(tmp_path, outcome=outcome) as here, here.manager() as manager:
        source = written(tmp_path / "in.jsonl", sayings)
        job = manager.submit(source, dedupe=True, max_requests_per_shard=2, **here.azure)
        status = manager.wait(job.id)
        assert status.state == state
        check(manager, job.id, sayings)
        assert status.counts.succeeded == (0 if outcome == "all_fail" else 6)
        before = status.counts.succeeded
        manager.retry(job.id)
        status = manager.wait(job.id)
        check(manager, job.id, sayings)
        assert status.counts.succeeded >= before


def test_a_job_refused_for_good_fails_with_all_its_copies_and_can_be_retried(tmp_path: Path) -> None:
    faults = ("batch-fail=model_not_found@1",)
    with world(tmp_path, faults=faults) as here, here.manager() as manager:
        job = manager.submit(written(tmp_path / "in.jsonl", SAYINGS), dedupe=True, **here.azure)
        status = manager.wait(job.id)
        assert (status.state, status.counts.errored) == ("failed", len(SAYINGS))
        check(manager, job.id, SAYINGS)
        here.emulator.remove_faults()
        manager.retry(job.id)
        assert manager.wait(job.id).all_succeeded
        check(manager, job.id, SAYINGS)


def test_usage_is_what_was_paid_for_and_not_what_was_copied(tmp_path: Path) -> None:
    with world(tmp_path) as here, here.manager() as manager:
        alone = manager.submit(written(tmp_path / "one.jsonl", ["a", "b", "c"]), **here.azure)
        job = manager.submit(written(tmp_path / "in.jsonl", SAYINGS), dedupe=True, **here.azure)
        assert manager.wait(job.id).usage == manager.wait(alone.id).usage
        assert [result.usage for result in manager.results(job.id)][2] is not None


def test_a_quota_and_a_budget_are_asked_for_what_is_sent(tmp_path: Path) -> None:
    sayings = ["a", "b"] * 50
    with world(tmp_path) as here, here.manager() as manager:
        source = written(tmp_path / "in.jsonl", sayings)
        one = len(source.read_bytes().splitlines()[0]) // 4
        limited: dict[str, Any] = {**here.azure, "quota_tokens": 4 * one, "max_tokens": 8 * one + 2 * 16_384}
        source.write_text(source.read_text().replace('"model"', '"max_tokens": 10, "model"'))
        job = manager.submit(source, dedupe=True, **limited)
        status = manager.wait(job.id)
        assert (status.state, len(status.shards), status.counts.succeeded) == ("completed", 1, 100)


def test_a_draft_keeps_what_was_wished_until_it_is_started(tmp_path: Path) -> None:
    with world(tmp_path) as here, here.manager() as manager:
        source = written(tmp_path / "in.jsonl", SAYINGS)
        draft = chat_completion_batch(source, manager=manager, dedupe=True, **here.azure).save()
        status = manager.status(draft)
        assert (status.state, status.reuse, status.counts.pending) == ("draft", None, 6)
        assert list(manager.results(draft, partial=True)) == []
        manager.start(draft)
        assert manager.wait(draft).all_succeeded
        check(manager, draft, SAYINGS)
        assert paid(here) == 3


def test_several_models_are_parted_first_and_cut_then(tmp_path: Path) -> None:
    source = written(tmp_path / "in.jsonl", ["a", "a", "a", "b", "a", "a"])
    lines = source.read_text().splitlines(keepends=True)
    source.write_text("".join(lines[:2] + [line.replace("gpt-4o", "gpt-4o-mini") for line in lines[2:]]))
    service: dict[str, Any] = {
        "provider": "openai",
        "base_url": "https://api.openai.com/v1",
        "api_key": "any",
    }
    with world(tmp_path) as here, here.manager() as manager:
        job = manager.submit(source, dedupe=True, split_by_model=True, **service)
        assert manager.wait(job.id).state == "completed"
        assert paid_ids(here) == {"task-0": 1, "task-2": 1, "task-3": 1}
        assert [shard.requests for shard in manager.status(job.id).shards] == [1, 2]
        results = list(manager.results(job.id))
        assert [result.custom_id for result in results] == [f"task-{n}" for n in range(6)]
        assert results[0].text == results[1].text
        models = [(result.response or {})["body"]["model"] for result in results]
        assert models[0] == models[1] != models[2] == models[3] == models[4] == models[5]


@pytest.mark.parametrize("when", ["running", "ended", "failed"])
def test_with_the_database_lost_copies_come_back_with_the_jobs_folder(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_API_KEY", "any")
    source = written(tmp_path / "in.jsonl", SAYINGS)
    with world(tmp_path, **({"outcome": "all_fail"} if when == "failed" else {})) as here:
        with here.manager() as manager:
            job = manager.submit(source, dedupe=True, max_requests_per_shard=2, **here.azure)
            if when != "running":
                manager.wait(job.id)
                before = [result.to_jsonl() for result in manager.results(job.id)]
        for path in here.home.glob("langbatch.db*"):
            path.unlink()
        with here.manager() as manager:
            assert manager.recover(**here.azure).jobs == (job.id,)
            manager.wait(job.id)
            check(manager, job.id, SAYINGS)
            if when != "running":
                assert [result.to_jsonl() for result in manager.results(job.id)] == before
            times = 0 if when == "failed" else 1
            assert paid_ids(here) == dict.fromkeys(("task-0", "task-1", "task-3"), times)
            again = manager.submit(source, **here.azure)
            assert (again.id, again.created) == (job.id, False)


def test_with_everything_lost_what_was_sent_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_API_KEY", "any")
    with world(tmp_path) as here:
        with here.manager() as manager:
            job = manager.submit(
                written(tmp_path / "in.jsonl", SAYINGS), dedupe=True, max_requests_per_shard=2, **here.azure
            )
            manager.wait(job.id)
        shutil.rmtree(here.home)
        with here.manager() as manager:
            assert manager.recover(**here.azure).jobs == (job.id,)
            assert [result.custom_id for result in manager.results(job.id)] == ["task-0", "task-1", "task-3"]
            status = manager.status(job.id)
            assert (status.total, status.reuse, status.state) == (3, None, "completed")
            assert "requests that were never uploaded are not known" in str(status.attention)


def test_a_damaged_plan_is_given_up_by_a_recovery_and_what_was_sent_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_API_KEY", "any")
    with world(tmp_path) as here:
        with here.manager() as manager:
            job = manager.submit(written(tmp_path / "in.jsonl", SAYINGS), dedupe=True, **here.azure)
            manager.wait(job.id)
        for path in here.home.glob("langbatch.db*"):
            path.unlink()
        (here.home / "jobs" / job.id / "requests.copies").write_bytes(b"")
        with here.manager() as manager:
            manager.recover(**here.azure)
            assert [result.custom_id for result in manager.results(job.id)] == ["task-0", "task-1", "task-3"]
            assert "requests that were not sent" in str(manager.status(job.id).attention)


def test_a_copy_put_into_a_storage_holds_every_request(tmp_path: Path) -> None:
    with world(tmp_path) as here, here.manager() as manager:
        source = written(tmp_path / "in.jsonl", SAYINGS)
        storage = FileBatchStorage(tmp_path / "kept")
        batch = chat_completion_batch(source, manager=manager, dedupe=True, **here.azure)
        data, _ = storage.load(batch.save(storage))
        assert Path(data).read_bytes() == source.read_bytes()
        assert not (here.home / "jobs" / batch.id / "whole.jsonl").exists()


@pytest.mark.parametrize("nth", [1, 5, 10, 18, 26, 34, 42, 50])
def test_a_death_anywhere_costs_nothing_and_loses_no_copy(nth: int, tmp_path: Path) -> None:
    reached = 0

    def die(_: str) -> None:
        nonlocal reached
        reached += 1
        if reached == nth:
            raise Died

    source = written(tmp_path / "in.jsonl", SAYINGS)
    with world(tmp_path) as here:
        with here.manager() as manager, failpoints.listening(die), pytest.raises(Died):
            manager.wait(manager.submit(source, dedupe=True, **here.azure).id)
        with here.manager() as manager:
            job = manager.submit(source, dedupe=True, **here.azure)
            here.clock.sleep(3600)
            assert manager.wait(job.id).state == "completed"
            check(manager, job.id, SAYINGS)
            assert manager.status(job.id).counts.succeeded == len(SAYINGS)
            assert paid(here) == 3
