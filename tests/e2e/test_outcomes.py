"""Promise 1 through the real SDK: one result per request, in input order, whatever the batch's end."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from langbatch import BatchStateError, JobNotFinished, Result, SetupError, chat_completion_batch
from langbatch.emulator import RowError
from support import SECRET_KEY, SECRET_PROMPT, World, chat_line, requests_file, world

IDS = [f"task-{n}" for n in range(8)]
SERVICES: dict[str, dict[str, Any]] = {
    "2024-10-21": {"provider": "azure", "azure_endpoint": "https://r.openai.azure.com", "api_version": "2024-10-21"},
    "2025-04-01-preview": {
        "provider": "azure", "azure_endpoint": "https://r.openai.azure.com", "api_version": "2025-04-01-preview",
    },
    "v1": {"provider": "azure", "azure_endpoint": "https://r.openai.azure.com", "api_version": "v1"},
    "openai": {"provider": "openai", "base_url": "https://api.openai.com/v1"},
}  # fmt: skip


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {**SERVICES[request.param], "api_key": SECRET_KEY}


def run(
    here: World, tmp_path: Path, service: dict[str, Any], ids: list[str] = IDS
) -> tuple[str, list[Result], dict[str, int]]:
    source = requests_file(tmp_path / "in.jsonl", ids)
    with here.manager() as manager:
        job = manager.submit(source, **service)
        status = manager.wait(job.id)
        results = list(manager.results(job.id, with_request=True))
    assert [r.custom_id for r in results] == ids
    assert [r.line for r in results] == list(range(1, len(ids) + 1))
    assert all(r.request is not None and r.request["messages"] for r in results)
    counts = {name: status.counts[name] for name in status.counts if status.counts[name]}
    assert sum(counts.values()) == status.total == len(ids)
    return status.state, results, counts


def test_all_succeed_though_azure_adds_a_zero_byte_error_file(
    tmp_path: Path, service: dict[str, Any]
) -> None:
    with world(tmp_path) as here:
        state, results, counts = run(here, tmp_path, service)
        assert (state, counts) == ("completed", {"succeeded": 8})
        assert all(r.error is None and r.status_code == 200 and r.text for r in results)
        assert here.emulator.payments().max_paid == 1


def test_all_fail_without_an_output_file(tmp_path: Path, service: dict[str, Any]) -> None:
    with world(tmp_path, outcome="all_fail") as here:
        state, results, counts = run(here, tmp_path, service)
        assert (state, counts) == ("completed", {"errored": 8})
        assert all(r.error is not None and r.status_code and r.status_code >= 400 for r in results)


def test_a_mixed_job_has_each_request_with_its_own_outcome(tmp_path: Path, service: dict[str, Any]) -> None:
    ids = [
        "plain", "emulator-fail-429", "emulator-filtered", "emulator-missing", "emulator-status-0",
        "emulator-expire", "emulator-malformed", "emulator-duplicate", "emulator-u2028", "emulator-in-both-files",
    ]  # fmt: skip
    with world(tmp_path) as here:
        state, results, _ = run(here, tmp_path, service, ids)
        assert state == "completed"
        outcomes = {r.custom_id: r.outcome for r in results}
        assert outcomes == {
            "plain": "succeeded",
            "emulator-fail-429": "errored",
            "emulator-filtered": "errored",
            "emulator-missing": "missing",
            "emulator-status-0": "errored",
            "emulator-expire": "expired",
            "emulator-malformed": outcomes["emulator-malformed"],
            "emulator-duplicate": "succeeded",
            "emulator-u2028": "succeeded",
            "emulator-in-both-files": "succeeded",
        }
        assert outcomes["emulator-malformed"] in ("missing", "unreadable")
        codes = {r.custom_id: r.error.code for r in results if r.error}
        assert codes["emulator-filtered"] in ("content_filter", "content_policy_violation")
        assert codes["emulator-missing"] == "missing"
        assert codes["emulator-status-0"] == "http_0"
        assert codes["emulator-expire"] == "batch_expired"


def test_an_expired_batch_keeps_what_was_paid_for(tmp_path: Path) -> None:
    with world(tmp_path, outcome="expire_half") as here:
        state, results, counts = run(here, tmp_path, {**SERVICES["openai"], "api_key": SECRET_KEY})
        assert state == "completed"
        assert counts == {"succeeded": 4, "expired": 4}
        assert {r.error.code for r in results if r.error} == {"batch_expired"}


@pytest.mark.parametrize("rows", ["absent", "listed"])
def test_a_batch_cancelled_half_way_keeps_what_was_paid_for(
    rows: str, tmp_path: Path, service: dict[str, Any]
) -> None:
    with world(tmp_path, outcome="cancel_half", cancelled_rows=rows) as here:
        state, _, counts = run(here, tmp_path, service)
        assert state == "cancelled"
        assert counts == {"succeeded": 4, "missing" if rows == "absent" else "cancelled": 4}


def test_cancel_stops_the_batch_and_harvests_it(tmp_path: Path, service: dict[str, Any]) -> None:
    source = requests_file(tmp_path / "in.jsonl", IDS)
    with world(tmp_path) as here, here.manager() as manager:
        job = manager.submit(source, **service)
        while manager.status(job.id).status != "in_progress":
            here.clock.sleep(1)
        assert manager.cancel(job.id)
        status = manager.wait(job.id)
        assert status.state == status.status == "cancelled"
        assert here.counts()["cancels"] == 1
        assert sum(status.counts[n] for n in status.counts) == 8
        assert status.counts.pending == 0
        assert not manager.cancel(job.id)


def test_cancel_before_anything_was_sent_ends_every_request_as_cancelled(tmp_path: Path) -> None:
    source = requests_file(tmp_path / "in.jsonl", IDS)
    with world(tmp_path) as here, here.manager() as manager:
        job = manager.submit(source, start=False, **here.azure)
        assert manager.cancel(job.id)
        status = manager.wait(job.id)
        assert (status.state, status.counts.cancelled) == ("cancelled", 8)
        assert here.counts()["uploads"] == 0
        assert {r.error.code for r in manager.results(job.id) if r.error} == {"cancelled"}


def test_a_job_the_provider_refuses_for_good_is_failed_and_can_be_retried(tmp_path: Path) -> None:
    source = requests_file(tmp_path / "in.jsonl", IDS)
    with world(tmp_path, faults=("batch-fail=model_not_found@1",)) as here, here.manager() as manager:
        job = manager.submit(source, **here.azure)
        status = manager.wait(job.id)
        assert status.state == status.status == "failed"
        results = list(manager.results(job.id))
        assert {(r.outcome, r.error.code if r.error else "") for r in results} == {
            ("errored", "model_not_found")
        }
        manager.retry(job.id)
        again = manager.wait(job.id)
        assert (again.state, again.counts.succeeded) == ("completed", 8)
        assert {r.attempt for r in manager.results(job.id)} == {2}


def test_retry_sends_only_what_did_not_succeed_and_never_overwrites_a_success(tmp_path: Path) -> None:
    failing = {"task-2", "task-5"}

    def answer(body: dict[str, Any], custom_id: str) -> str | RowError:
        return RowError(429, "429") if custom_id in failing else f"fine {custom_id}"

    with world(tmp_path, answer=answer) as here, here.manager() as manager:
        job = manager.submit(requests_file(tmp_path / "in.jsonl", IDS), **here.azure)
        first = manager.wait(job.id)
        assert (first.counts.succeeded, first.counts.errored) == (6, 2)
        failing.clear()
        manager.retry(job.id)
        assert manager.wait(job.id).counts.succeeded == 8
        assert [r.attempt for r in manager.results(job.id)] == [1, 1, 2, 1, 1, 2, 1, 1]
        assert here.emulator.payments().executed == 8 + 2


def test_retry_asks_before_it_pays_a_fourth_time_for_requests_that_always_fail(tmp_path: Path) -> None:
    failing = {"task-2", "task-5"}

    def answer(body: dict[str, Any], custom_id: str) -> str | RowError:
        return RowError(400, "content_filter") if custom_id in failing else "fine"

    with world(tmp_path, answer=answer) as here, here.manager() as manager:
        job = manager.submit(requests_file(tmp_path / "in.jsonl", IDS), **here.azure)
        manager.wait(job.id)  # brought successes, so it does not count
        for _ in range(3):
            manager.retry(job.id)
            manager.wait(job.id)
        with pytest.raises(BatchStateError, match="2 requests fail each time") as refused:
            manager.retry(job.id)
        assert "--force" in (refused.value.hint or "")
        assert manager.status(job.id).state == "completed"
        assert len(list(manager.results(job.id))) == 8
        assert here.counts()["batches"] == 4
        failing.clear()
        manager.retry(job.id, force=True)
        assert manager.wait(job.id).all_succeeded


def test_while_a_retry_runs_what_had_failed_is_pending_again(tmp_path: Path) -> None:
    with world(tmp_path, faults=("rows-fail=2",)) as here, here.manager() as manager:
        job = manager.submit(requests_file(tmp_path / "in.jsonl", IDS), **here.azure)
        assert manager.wait(job.id).counts.errored == 2
        status = manager.retry(job.id)
        assert (status.state, status.counts.succeeded, status.counts.pending) == ("running", 6, 2)
        partial = list(manager.results(job.id, partial=True, with_request=True))
        assert [r.outcome for r in partial] == ["succeeded"] * 6
        out = tmp_path / "partial.jsonl"
        manager.export(job.id, out, partial=True)
        assert [json.loads(row)["custom_id"] for row in out.read_text().splitlines()] == [
            r.custom_id for r in partial
        ]


def test_the_deployment_in_the_lines_and_the_one_given_are_the_same_target(tmp_path: Path) -> None:
    source = requests_file(tmp_path / "in.jsonl", IDS, model="dep")
    with world(tmp_path) as here, here.manager() as manager:
        first = manager.submit(source, **here.azure)
        assert manager.submit(source, deployment="dep", **here.azure).id == first.id
        assert manager.submit(source, deployment="other", **here.azure).id != first.id


def test_submitting_again_with_the_right_api_version_mends_the_job(tmp_path: Path) -> None:
    source = requests_file(tmp_path / "in.jsonl", IDS)
    with world(tmp_path, faults=("upload-404@1",)) as here:
        with here.manager() as manager, pytest.raises(SetupError, match="api-version"):
            manager.submit(source, **here.azure | {"api_version": "2024-02-01"})
        with here.manager() as manager:
            again = manager.submit(source, **here.azure)
            assert not again.created
            assert manager.target_of(again.id).settings["api_version"] == here.azure["api_version"]
            assert manager.wait(again.id).counts.succeeded == 8


def test_a_long_outage_of_uploads_is_ridden_out(tmp_path: Path) -> None:
    with world(tmp_path, faults=("upload-503-html*12",)) as here:
        state, _, counts = run(here, tmp_path, here.azure)
        assert (state, counts) == ("completed", {"succeeded": 8})
        assert here.counts()["batches"] == 1


def test_token_quota_is_waited_for_and_is_no_failure(tmp_path: Path) -> None:
    faults = ("create-token-limit*2", "batch-token-limit*2")
    with world(tmp_path, faults=faults) as here:
        state, _, counts = run(here, tmp_path, here.azure)
        assert (state, counts) == ("completed", {"succeeded": 8})
        assert here.emulator.faults_fired() == {"create-token-limit": 2, "batch-token-limit": 2}
        assert here.emulator.payments().max_paid == 1


@pytest.mark.parametrize(
    "fault",
    [
        "download-truncated", "download-short", "download-html", "download-reset", "download-503-html",
        "download-429-long", "rows-no-final-newline", "poll-503-html", "poll-429-date", "poll-429-garbage",
        "get-file-500", "poll-drop", "batch-capital-status", "batch-iso-times", "batch-null-counts",
        "batch-endpoint-null", "batch-ids-empty", "batch-unknown-status", "upload-429-short", "create-429",
    ],
)  # fmt: skip
def test_passing_trouble_and_odd_replies_cost_time_and_nothing_else(fault: str, tmp_path: Path) -> None:
    with world(tmp_path, faults=(f"{fault}*2",)) as here:
        state, _, counts = run(here, tmp_path, here.azure)
        assert (state, counts) == ("completed", {"succeeded": 8})
        assert here.emulator.faults_fired()[fault] >= 1
        assert here.counts()["batches"] == 1


def test_bad_53_completed_without_an_output_file_is_looked_at_again_and_then_given_to_a_person(
    tmp_path: Path,
) -> None:
    from langbatch import NeedsOperator

    source = requests_file(tmp_path / "in.jsonl", IDS)
    with world(tmp_path, faults=("batch-no-output-file",)) as here, here.manager() as manager:
        job = manager.submit(source, **here.azure)
        with pytest.raises(NeedsOperator, match="offers no file"):
            manager.wait(job.id)
        assert manager.status(job.id).counts.pending == 8


def test_many_shards_are_one_job_with_one_ordered_result(tmp_path: Path, service: dict[str, Any]) -> None:
    ids = [f"r{n}" for n in range(25)]
    with world(tmp_path) as here, here.manager() as manager:
        job = manager.submit(requests_file(tmp_path / "in.jsonl", ids), max_requests_per_shard=10, **service)
        status = manager.wait(job.id)
        assert [s.requests for s in status.shards] == [10, 10, 5]
        assert [r.custom_id for r in manager.results(job.id)] == ids
        assert here.counts()["batches"] == 3


def test_mixed_models_become_shards_of_one_model_each(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    models = ["m1", "m1", "m2", "m1", "m2", "m2"]
    source.write_text("".join(chat_line(f"r{n}", model=m) + "\n" for n, m in enumerate(models)))
    with world(tmp_path) as here, here.manager() as manager:
        job = manager.submit(source, split_by_model=True, **here.azure)
        status = manager.wait(job.id)
        assert [s.requests for s in status.shards] == [2, 1, 1, 2]
        assert [r.custom_id for r in manager.results(job.id)] == [f"r{n}" for n in range(6)]
        assert status.counts.succeeded == 6


def test_results_are_refused_before_the_end_and_streamed_with_partial(tmp_path: Path) -> None:
    with world(tmp_path) as here, here.manager() as manager:
        job = manager.submit(requests_file(tmp_path / "in.jsonl", IDS), **here.azure)
        with pytest.raises(JobNotFinished):
            manager.results(job.id)
        with pytest.raises(BatchStateError):
            manager.results_file(job.id)
        assert list(manager.results(job.id, partial=True)) == []


def test_a_job_goes_on_in_another_process_with_its_target_from_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world(tmp_path) as here:
        with here.manager() as manager:
            job = manager.submit(requests_file(tmp_path / "in.jsonl", IDS), **here.azure)
        monkeypatch.setenv("AZURE_API_KEY", SECRET_KEY)
        with here.manager() as manager:
            assert manager.wait(job.id).state == "completed"


def test_no_key_and_no_prompt_stands_anywhere_but_in_the_jobs_own_files(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    faults = ("poll-401-key@1", "create-committed-500@1", "rows-fail=2")
    with world(tmp_path, faults=faults) as here:
        source = requests_file(tmp_path / "in.jsonl", IDS)
        with here.manager() as manager:
            job = manager.submit(source, **here.azure)
            while not manager.status(job.id).finished:
                here.clock.sleep(60)
            list(manager.results(job.id))
        said = "".join(capfd.readouterr())
        ours = "\n".join(r.getMessage() for r in caplog.records if r.name.startswith("langbatch"))
        assert SECRET_KEY not in said + caplog.text
        assert SECRET_PROMPT not in said + ours
        own_files = {"requests.jsonl", "joined", "pieces", "results.jsonl", "outgoing"}
        for path in here.home.rglob("*"):
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode == (0o700 if path.is_dir() else 0o600), path
            if path.is_file():
                content = path.read_bytes()
                assert SECRET_KEY.encode() not in content, path
                if not own_files & set(path.relative_to(here.home).parts):
                    assert SECRET_PROMPT.encode() not in content, path
    assert (here.home / "langbatch.db").stat().st_size > 0


def test_langbatchs_quick_start_works_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment, arguments, and a token provider that beats the key in the environment."""
    source = requests_file(tmp_path / "data.jsonl", IDS)
    monkeypatch.setenv("LANGBATCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LANGBATCH_POLL_SECONDS", "0.01")
    monkeypatch.setenv("AZURE_API_KEY", SECRET_KEY)
    monkeypatch.setenv("AZURE_API_BASE", "https://res.openai.azure.com")
    monkeypatch.setenv("AZURE_API_VERSION", "2024-10-21")
    with world(tmp_path) as here:

        def finished(**arguments: Any) -> tuple[list[Any], list[Any]]:
            batch = chat_completion_batch(str(source), provider="azure", **arguments)
            batch.start(new=True)
            batch.wait()
            assert batch.get_status() == "completed"
            return batch.get_results()

        successful, unsuccessful = finished()
        assert (len(successful), unsuccessful) == (8, [])
        assert successful[0]["choices"][0]["message"]["content"]
        assert here.emulator.report()["auth_kinds"].keys() == {"api-key"}
        finished(
            api_key="k2", azure_endpoint="https://other.openai.azure.com", api_version="2025-04-01-preview"
        )
        finished(azure_ad_token_provider=lambda: "entra-token")
        assert "bearer" in " ".join(here.emulator.report()["auth_kinds"]).lower()


def test_the_joined_record_is_the_contracts(tmp_path: Path) -> None:
    with world(tmp_path) as here, here.manager() as manager:
        job = manager.submit(requests_file(tmp_path / "in.jsonl", ["a", "emulator-fail-500"]), **here.azure)
        manager.wait(job.id)
        rows = [json.loads(line) for line in manager.results_file(job.id).read_text().splitlines()]
        assert rows[0]["outcome"] == "succeeded"
        assert rows[0]["response"]["body"]["choices"]
        assert rows[0]["error"] is None
        assert (rows[1]["outcome"], rows[1]["line"], rows[1]["attempt"]) == ("errored", 2, 1)
        assert set(rows[1]["error"]) == {"code", "message"}
