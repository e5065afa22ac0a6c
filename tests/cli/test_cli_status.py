"""`status`, `watch`, `resume`, `cancel`, `retry`, `purge`: jobs looked at and moved on."""

from __future__ import annotations

import json
import signal
from itertools import pairwise
from pathlib import Path

from langbatch.emulator import EmulatorConfig, RunningServer, running_server
from running import CommandLine, pointing_at

STATUS_KEYS = {
    "id", "name", "state", "status", "provider", "total", "rejected", "counts", "usage", "attention",
    "created_at", "shards",
}  # fmt: skip
COUNT_KEYS = {"succeeded", "errored", "expired", "cancelled", "missing", "unreadable", "pending"}
SHARD_KEYS = {
    "index", "first_line", "requests", "state", "attempt", "target", "input_file_id", "batch_id",
    "batch_status", "batch_counts",
}  # fmt: skip


def test_status_documents_have_the_promised_keys(langbatch: CommandLine, requests_file: Path) -> None:
    submitted = langbatch.here("submit", requests_file, "--json")
    assert submitted.code == 0
    ran = langbatch.here("status", submitted.document["id"][:12], "--json")
    assert set(ran.document) >= STATUS_KEYS
    assert set(ran.document["counts"]) == COUNT_KEYS
    assert set(ran.document["usage"]) >= {"input_tokens", "output_tokens"}
    assert set(ran.document["shards"][0]) >= SHARD_KEYS
    assert set(ran.document["shards"][0]["batch_counts"]) == {"total", "completed", "failed"}
    listed = langbatch.here("status", "--json")
    assert listed.document["jobs"] == [ran.document]


def test_offline_status_asks_only_the_database(
    langbatch: CommandLine, requests_file: Path, service: RunningServer
) -> None:
    job = langbatch.here("submit", requests_file).job_id
    before = service.emulator.report()["calls"]
    ran = langbatch.here("status", job, "--offline", "--json")
    assert ran.document["state"] == "running"
    assert langbatch.here("status", "--offline").err.count(job) == 1
    assert service.emulator.report()["calls"] == before


def test_an_unknown_job_is_a_usage_error(langbatch: CommandLine) -> None:
    ran = langbatch("status", "job_unknown", "--json")
    assert ran.code == 2
    assert ran.document["error"]["code"] == "unknown_job"


def test_watch_prints_a_status_document_per_line(langbatch: CommandLine, mixed_file: Path) -> None:
    job = langbatch.here("submit", mixed_file).job_id
    ran = langbatch.here("watch", job, "--json")
    assert ran.code == 4
    events = [json.loads(line) for line in ran.out.splitlines()]
    assert {event["id"] for event in events} == {job}
    assert events[-1]["state"] == "completed"
    assert all(one != next_one for one, next_one in pairwise(events))


def test_several_jobs_are_watched_together(
    langbatch: CommandLine, mixed_file: Path, requests_file: Path
) -> None:
    jobs = [langbatch.here("submit", path).job_id for path in (mixed_file, requests_file)]
    ran = langbatch.here("watch", *jobs)
    assert ran.code == 4
    assert ran.out == ""
    assert all(f"{job}  completed" in ran.err for job in jobs)


def test_ctrl_c_detaches_from_watch_and_the_job_goes_on(
    tmp_path: Path, slow_service: RunningServer, requests_file: Path
) -> None:
    langbatch = CommandLine(tmp_path, pointing_at(slow_service))
    job = langbatch.here("submit", requests_file).job_id
    with langbatch.started("watch", job) as watch:
        assert watch.stderr is not None
        assert job in watch.stderr.readline().decode()
        watch.send_signal(signal.SIGINT)
        told = watch.stderr.read().decode()
        assert watch.wait() == 130
    assert f"langbatch watch {job}" in told
    assert "Traceback" not in told
    assert langbatch.here("status", job, "--json").document["state"] == "running"


def test_ctrl_c_while_submit_waits_keeps_the_id(
    tmp_path: Path, slow_service: RunningServer, requests_file: Path
) -> None:
    langbatch = CommandLine(tmp_path, pointing_at(slow_service))
    with langbatch.started("submit", requests_file, "--wait") as submit:
        assert submit.stdout is not None
        assert submit.stderr is not None
        job = submit.stdout.readline().decode().strip()
        assert job in submit.stderr.readline().decode()
        submit.send_signal(signal.SIGINT)
        assert submit.wait() == 130
        assert submit.stdout.read() == b""
    assert job.startswith("job_")


def test_one_resume_is_7_while_something_is_unfinished(
    tmp_path: Path, slow_service: RunningServer, requests_file: Path
) -> None:
    langbatch = CommandLine(tmp_path, pointing_at(slow_service))
    job = langbatch.here("submit", requests_file).job_id
    every = langbatch.here("resume", "--json")
    assert every.code == 7
    assert [one["id"] for one in every.document["jobs"]] == [job]
    assert langbatch.here("resume", job).code == 7
    cancelled = langbatch.here("cancel", job, "--json")
    assert cancelled.code == 0
    assert cancelled.document["cancel_requested"] is True
    waited = langbatch.here("resume", "--wait", "--json")
    assert waited.code == 4
    assert waited.document["jobs"][0]["state"] == "cancelled"
    again = langbatch.here("cancel", job)
    assert again.code == 0
    assert "had ended before" in again.err


def test_resume_gives_up_on_an_outage_with_6(
    langbatch: CommandLine, requests_file: Path, free_port: int
) -> None:
    nowhere = f"http://127.0.0.1:{free_port}"
    job = langbatch.here("submit", requests_file, "--azure-endpoint", nowhere).job_id
    ran = langbatch.here("resume", "--wait", "--json", LANGBATCH_OUTAGE_SECONDS="0.3")
    assert ran.code == 6
    assert ran.document["error"]["code"] == "unreachable"
    assert "0.3 s" in ran.document["error"]["message"]
    assert ran.document["jobs"][0]["id"] == job
    one = langbatch.here("resume", job, "--wait", "--json", LANGBATCH_OUTAGE_SECONDS="0.3")
    assert one.code == 6
    assert one.document["id"] == job


def test_a_job_that_needs_its_operator_is_8_until_reconcile_settles_it(
    tmp_path: Path, requests_file: Path
) -> None:
    config = EmulatorConfig.demo(speed=50.0, faults=("batch-no-output-file",))
    with running_server(config=config) as server:
        langbatch = CommandLine(tmp_path, pointing_at(server))
        ran = langbatch("submit", requests_file, "--wait", "--json")
        assert ran.code == 8
        assert ran.document["error"]["code"] == "needs_operator"
        status = langbatch("status", ran.document["id"])
        assert status.code == 8
        assert "attention" in status.err
        assert langbatch("resume").code == 8
        server.emulator.remove_faults()
        (shard,) = ran.document["shards"]
        settled = langbatch.here("reconcile", ran.document["id"], "--adopt", shard["batch_id"], "--json")
        assert settled.code == 0
        assert settled.document["state"] != "needs_operator"
        assert langbatch.here("watch", ran.document["id"]).code == 0
        assert len(server.emulator.report()["batches"]) == 1


def test_retry_sends_again_only_what_failed(
    langbatch: CommandLine, mixed_file: Path, service: RunningServer
) -> None:
    job = langbatch.here("submit", mixed_file, "--wait").job_id
    ran = langbatch.here("retry", job, "--json")
    assert ran.code == 0
    assert ran.document["shards"][0]["attempt"] == 2
    langbatch.here("resume", job, "--wait")  # what a batch holds is known once it was validated
    assert 1 in [batch["requests"] for batch in service.emulator.report()["batches"]]


def test_purge_forgets_a_job_and_spares_a_running_one(
    tmp_path: Path, slow_service: RunningServer, requests_file: Path
) -> None:
    langbatch = CommandLine(tmp_path, pointing_at(slow_service))
    job = langbatch.here("submit", requests_file).job_id
    refused = langbatch.here("purge", job, "--json")
    assert refused.code == 2
    forced = langbatch.here("purge", job, "--force", "--json")
    assert forced.code == 0
    assert forced.document == {"id": job, "purged": True}
    assert langbatch.here("status", "--json").document == {"jobs": []}
    assert list((langbatch.home / "jobs").iterdir()) == []


def test_the_same_trouble_again_is_no_news_though_each_answer_has_an_id_of_its_own(
    tmp_path: Path, requests_file: Path
) -> None:
    with running_server(config=EmulatorConfig.instant(faults=("poll-500*6",))) as server:
        langbatch = CommandLine(tmp_path, pointing_at(server))
        ran = langbatch.here("submit", requests_file, "--wait")
        assert ran.code == 0
        assert server.emulator.faults_fired() == {"poll-500": 6}
        assert sum("trouble while polling" in line for line in ran.err.splitlines()) == 1
