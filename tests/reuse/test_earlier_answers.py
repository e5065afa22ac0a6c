"""`cache=True`: what earlier jobs have had is copied, not asked again; through the real SDK."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from langbatch import JobManager, chat_completion_batch, failpoints
from langbatch.emulator import RowError
from reuse.asking import check, paid, paid_ids, say, written
from support import World, world


class Died(BaseException):
    """The process ends here."""


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, answer=say) as made:
        yield made


def done(manager: JobManager, source: Path, **options: Any) -> str:
    job = manager.submit(source, **options)
    manager.wait(job.id)
    return job.id


def texts(manager: JobManager, job_id: str) -> list[str | None]:
    return [result.text for result in manager.results(job_id)]


def calls(here: World) -> dict[str, int]:
    found: dict[str, int] = here.emulator.report()["calls"]
    return found


def test_only_what_nobody_has_answered_is_sent_and_all_comes_in_the_inputs_order(
    here: World, tmp_path: Path
) -> None:
    with here.manager() as manager:
        first = done(manager, written(tmp_path / "1.jsonl", list("abc")), **here.azure)
        sayings = list("xbaybc")
        job = done(manager, written(tmp_path / "2.jsonl", sayings, name="other"), cache=True, **here.azure)
        check(manager, job, sayings, name="other")
        assert texts(manager, job) == [f"said {saying}" for saying in sayings]
        assert [result.attempt for result in manager.results(job)] == [1, 0, 0, 1, 0, 0]
        status = manager.status(job)
        assert status.reuse is not None
        assert dict(status.reuse) == {"sent": 2, "copies": 0, "answered": 4}
        assert [shard.requests for shard in status.shards] == [2]
        assert {name for name in paid_ids(here) if name.startswith("other")} == {"other-0", "other-3"}
        body_of = {r.custom_id: r.response for r in manager.results(first)}
        assert [r.response for r in manager.results(job)][2] == body_of["task-0"]


def test_a_job_that_is_answered_completely_ends_without_a_call(here: World, tmp_path: Path) -> None:
    with here.manager() as manager:
        first = done(manager, written(tmp_path / "1.jsonl", list("abc")), **here.azure)
        before = calls(here)
        job = manager.submit(written(tmp_path / "2.jsonl", list("cab")), cache=True, **here.azure)
        assert job.created
        status = manager.wait(job.id)
        assert (status.state, status.status, status.shards) == ("completed", "completed", ())
        assert (status.all_succeeded, status.usage.input_tokens, status.cost) == (True, None, None)
        assert status.finished_at is not None
        check(manager, job.id, list("cab"))
        assert [r.custom_id for r in manager.results(job.id, with_request=True)] == [
            "task-0",
            "task-1",
            "task-2",
        ]
        assert not manager.cancel(job.id)
        manager.retry(job.id)
        assert manager.set_budget(job.id, max_tokens=5).state == "completed"
        assert manager.advance() is None
        assert {j.id: j.state for j in manager.jobs()} == {first: "completed", job.id: "completed"}
        again = manager.submit(tmp_path / "2.jsonl", **here.azure)
        assert (again.id, again.created) == (job.id, False)
        assert calls(here) == before


def test_a_draft_that_is_answered_completely_ends_when_it_is_started(here: World, tmp_path: Path) -> None:
    with here.manager() as manager:
        done(manager, written(tmp_path / "1.jsonl", list("abc")), **here.azure)
        before = calls(here)
        source = written(tmp_path / "2.jsonl", list("cab"))
        batch = chat_completion_batch(source, manager=manager, cache=True, **here.azure)
        assert manager.status(batch.save(), offline=True).state == "draft"
        batch.start()
        assert batch.wait().all_succeeded
        check(manager, batch.id, list("cab"))
        assert calls(here) == before


def test_nothing_is_reused_unless_it_is_wished(here: World, tmp_path: Path) -> None:
    with here.manager() as manager:
        done(manager, written(tmp_path / "1.jsonl", ["a"]), **here.azure)
        done(manager, written(tmp_path / "2.jsonl", ["a", "b"]), **here.azure)
        assert paid(here) == 3
        assert not (here.home / "cache").exists()


def test_copies_and_answers_go_together(here: World, tmp_path: Path) -> None:
    sayings = list("xaxbxyay")
    with here.manager() as manager:
        done(manager, written(tmp_path / "1.jsonl", list("ab")), **here.azure)
        source = written(tmp_path / "2.jsonl", sayings, name="n")
        job = done(manager, source, cache=True, dedupe=True, max_requests_per_shard=1, **here.azure)
        check(manager, job, sayings, name="n")
        assert texts(manager, job) == [f"said {saying}" for saying in sayings]
        assert [name for name in paid_ids(here) if name.startswith("n")] == ["n-0", "n-5"]


@pytest.mark.parametrize(
    "other",
    [
        {"azure_endpoint": "https://other.openai.azure.com"},
        {"deployment": "another"},
        {"provider": "openai", "base_url": "https://api.openai.com/v1"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_another_endpoint_or_deployment_is_another_question(
    other: dict[str, Any], here: World, tmp_path: Path
) -> None:
    with here.manager() as manager:
        done(manager, written(tmp_path / "1.jsonl", ["a"]), **here.azure)
        options = {**here.azure, **other}
        if "base_url" in other:
            options = {**other, "api_key": "any"}
        done(manager, written(tmp_path / "2.jsonl", ["a", "a"]), cache=True, **options)
        assert paid(here) == 3


def test_it_does_not_matter_where_the_deployment_is_named(here: World, tmp_path: Path) -> None:
    with here.manager() as manager:
        first = written(tmp_path / "1.jsonl", ["a"], model="anything")
        done(manager, first, deployment="gpt-4o", **here.azure)
        done(manager, written(tmp_path / "2.jsonl", ["a", "a"], model="gpt-4o"), cache=True, **here.azure)
        assert paid(here) == 1


def test_of_several_deployments_each_answer_stays_that_of_one(here: World, tmp_path: Path) -> None:
    both = [{"deployment": "one"}, {"deployment": "two"}]
    with here.manager() as manager:
        source = written(tmp_path / "1.jsonl", list("abcd"))
        first = done(manager, source, targets=both, max_requests_per_shard=1, **here.azure)
        went = [shard.target.rpartition("/")[2] for shard in manager.status(first).shards]
        assert set(went) == {"one", "two"}
        done(manager, written(tmp_path / "2.jsonl", list("dcba")), cache=True, targets=both, **here.azure)
        assert paid(here) == 4

        def asked_of_one(name: str) -> list[bool]:
            """Which of the four need not be sent to `one`."""
            source = written(tmp_path / f"{name}.jsonl", list("abcd"), name=name)
            job = done(manager, source, cache=True, deployment="one", **here.azure)
            found = [result.attempt == 0 for result in manager.results(job)]
            manager.purge(job)
            return found

        assert asked_of_one("x") == [each == "one" for each in went]
        manager.purge(first)  # what is left holds the answers, and says whose each is
        assert asked_of_one("y") == [each == "one" for each in went]


def test_failures_are_asked_again(tmp_path: Path) -> None:
    def answer(body: dict[str, Any], custom_id: str) -> str | RowError:
        return RowError(500, "server_error") if custom_id == "task-1" else say(body, custom_id)

    with world(tmp_path, answer=answer) as here, here.manager() as manager:
        done(manager, written(tmp_path / "1.jsonl", list("ab")), **here.azure)
        job = done(manager, written(tmp_path / "2.jsonl", list("ab"), name="n"), cache=True, **here.azure)
        check(manager, job, list("ab"), name="n")
        assert [r.attempt for r in manager.results(job)] == [0, 1]


def test_a_job_that_still_runs_offers_what_has_ended(tmp_path: Path) -> None:
    with world(tmp_path, answer=say, faults=("create-429-long@2",)) as here, here.manager() as manager:
        source = written(tmp_path / "1.jsonl", list("ab"))
        running = manager.submit(source, max_requests_per_shard=1, **here.azure)
        while manager.status(running.id).shards[0].state != "done":
            here.clock.sleep(1)
        job = done(manager, written(tmp_path / "2.jsonl", list("ba"), name="n"), cache=True, **here.azure)
        assert [r.attempt for r in manager.results(job)] == [1, 0]
        # Once it has ended, all of it is there.
        manager.wait(running.id)
        shutil.rmtree(here.home / "jobs" / job)
        last = done(manager, written(tmp_path / "3.jsonl", list("bba"), name="n"), cache=True, **here.azure)
        assert [r.attempt for r in manager.results(last)] == [0, 0, 0]


def test_answers_stay_when_the_earlier_job_is_purged_and_can_be_had_from_the_later(
    here: World, tmp_path: Path
) -> None:
    with here.manager() as manager:
        first = done(manager, written(tmp_path / "1.jsonl", list("ab")), **here.azure)
        second = done(manager, written(tmp_path / "2.jsonl", list("bca")), cache=True, **here.azure)
        assert (here.home / "cache" / f"{first}.idx").exists()
        manager.purge(first)
        assert not (here.home / "cache" / f"{first}.idx").exists()
        check(manager, second, list("bca"))
        third = done(manager, written(tmp_path / "3.jsonl", list("abc")), cache=True, **here.azure)
        check(manager, third, list("abc"))
        assert texts(manager, third) == ["said a", "said b", "said c"]
        assert paid(here) == 3
        manager.purge(second)
        manager.purge(third)
        done(manager, written(tmp_path / "4.jsonl", list("abcc")), cache=True, **here.azure)
        assert paid(here) == 7


def test_a_job_that_was_retried_is_asked_anew(tmp_path: Path) -> None:
    failing = {"a"}

    def answer(body: dict[str, Any], custom_id: str) -> str | RowError:
        if body["messages"][0]["content"] in failing:
            return RowError(500, "server_error", "a message that takes its room in the joined file")
        return say(body, custom_id)

    with world(tmp_path, answer=answer) as here, here.manager() as manager:
        first = done(manager, written(tmp_path / "1.jsonl", list("abc")), **here.azure)
        second = done(manager, written(tmp_path / "2.jsonl", list("cab")), cache=True, **here.azure)
        check(manager, second, list("cab"))
        failing.clear()
        manager.retry(first)
        manager.wait(first)
        before = paid(here)
        third = done(manager, written(tmp_path / "3.jsonl", list("bca")), cache=True, **here.azure)
        assert texts(manager, third) == ["said b", "said c", "said a"]
        assert paid(here) == before


@pytest.mark.parametrize("damage", ["snapshot", "joined", "cut", "all"])
def test_an_earlier_job_whose_files_are_damaged_is_no_obstacle(
    damage: str, here: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with here.manager() as manager:
        first = done(manager, written(tmp_path / "1.jsonl", list("ab")), **here.azure)
        folder = here.home / "jobs" / first
        joined = folder / "joined" / "00000.jsonl"
        match damage:
            case "snapshot":
                (folder / "requests.idx").unlink()
            case "joined":
                joined.write_bytes(b"no record\n" * 2)
            case "cut":
                joined.write_bytes(joined.read_bytes().splitlines(keepends=True)[0])
            case "all":
                shutil.rmtree(folder)
        job = done(manager, written(tmp_path / "2.jsonl", list("ba")), cache=True, **here.azure)
        check(manager, job, list("ba"))
        assert paid(here) == 4
        assert [record.levelname for record in caplog.records if record.name == "langbatch"] == ["WARNING"]
        assert f"results of job {first} (" in caplog.text
        assert "cannot be reused" in caplog.text


def test_a_preview_counts_what_would_be_sent_and_keeps_nothing(here: World, tmp_path: Path) -> None:
    with here.manager() as manager:
        done(manager, written(tmp_path / "1.jsonl", ["a " * 1000, "b"]), **here.azure)
        source = written(tmp_path / "2.jsonl", ["a " * 1000, "x", "x", "x"])
        whole = manager.preview(source, **here.azure)
        assert whole.reuse is None
        found = manager.preview(source, dedupe=True, cache=True, max_requests_per_shard=1, **here.azure)
        assert found.to_dict()["reuse"] == {"sent": 1, "copies": 2, "answered": 1}
        assert [(shard.requests, shard.first) for shard in found.shards] == [(1, 0)]
        assert found.forecast.tokens.input_tokens * 10 < whole.forecast.tokens.input_tokens
        assert found.intake == whole.intake
        assert not (here.home / "cache").exists()
        nothing = manager.preview(written(tmp_path / "3.jsonl", ["b"]), cache=True, **here.azure)
        assert (nothing.shards, nothing.forecast.tokens.input_tokens) == ((), 0)
    with JobManager(tmp_path / "new home") as manager:
        assert manager.preview(source, cache=True, provider="azure").reuse is None
    assert not (tmp_path / "new home").exists()


def test_leftovers_are_swept(here: World, tmp_path: Path) -> None:
    """An index without its job, and a folder whose job's row was never written."""
    with here.manager() as manager:
        first = done(manager, written(tmp_path / "1.jsonl", list("ab")), **here.azure)
        done(manager, written(tmp_path / "2.jsonl", list("aab")), cache=True, **here.azure)
        kept = here.home / "cache" / f"{first}.idx"
        stale = kept.with_name("job_00000000000000000000000000.idx")
        shutil.copy(kept, stale)
        unborn = here.home / "jobs" / "job_00000000000000000000000000"
        shutil.copytree(
            here.home / "jobs" / first,
            unborn,
            ignore=shutil.ignore_patterns("joined", "pieces", "sent", "o*", "q*"),
        )
        (unborn / "unsent").mkdir()
        here.clock.sleep(1e9)
        swept = manager.gc().swept
        assert {stale, unborn} <= set(swept)
        assert kept.exists()


def test_with_the_database_lost_answers_come_back_with_the_jobs_folder(
    here: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_API_KEY", "any")
    sayings = list("xabyxa")
    with here.manager() as manager:
        first = done(manager, written(tmp_path / "1.jsonl", list("ab")), **here.azure)
        source = written(tmp_path / "2.jsonl", sayings)
        job = done(manager, source, cache=True, dedupe=True, max_requests_per_shard=1, **here.azure)
        before = [result.to_jsonl() for result in manager.results(job)]
        reuse = manager.status(job).reuse
    for path in here.home.glob("langbatch.db*"):
        path.unlink()
    with here.manager() as manager:
        assert set(manager.recover(**here.azure).jobs) == {first, job}
        manager.wait(job)
        check(manager, job, sayings)
        assert [result.to_jsonl() for result in manager.results(job)] == before
        assert manager.status(job).reuse == reuse
        assert manager.submit(source, **here.azure).id == job
        assert paid(here) == 4


@pytest.mark.parametrize("nth", [1, 3, 8, 16, 24, 32, 44, 56, 70])
def test_a_death_anywhere_costs_nothing_and_loses_no_answer(nth: int, here: World, tmp_path: Path) -> None:
    reached = 0

    def die(_: str) -> None:
        nonlocal reached
        reached += 1
        if reached == nth:
            raise Died

    sayings = list("xaxbaccx")
    wishes: dict[str, Any] = {"dedupe": True, "cache": True, "max_requests_per_shard": 1, **here.azure}
    with here.manager() as manager:
        done(manager, written(tmp_path / "1.jsonl", list("ab")), **here.azure)
    source = written(tmp_path / "2.jsonl", sayings, name="n")
    with here.manager() as manager, failpoints.listening(die), pytest.raises(Died):
        manager.wait(manager.submit(source, **wishes).id)
    with here.manager() as manager:
        here.clock.sleep(3600)
        job = done(manager, source, **wishes)
        check(manager, job, sayings, name="n")
        assert texts(manager, job) == [f"said {saying}" for saying in sayings]
        assert {name: count for name, count in paid_ids(here).items() if name[0] == "n"} == {
            "n-0": 1,
            "n-5": 1,
        }
