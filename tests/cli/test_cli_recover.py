"""`recover` of a job with several targets, as typed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from langbatch.emulator import EmulatorConfig, RunningServer, running_server
from running import CommandLine, answer

BOTH = ("--deployment", "east", "--deployment", "west")


@pytest.fixture
def service() -> Iterator[RunningServer]:
    """One that no other test's store has used."""
    with running_server(config=EmulatorConfig.demo(speed=50.0, answer=answer)) as server:
        yield server


def test_a_job_of_two_deployments_comes_back_only_when_both_are_named(
    langbatch: CommandLine, requests_file: Path
) -> None:
    sent = langbatch.here("submit", requests_file, *BOTH, "--max-requests-per-shard", "1", "--wait", "--json")
    job = sent.document["id"]
    shutil.rmtree(langbatch.home)
    refused = langbatch.here("recover", "--from-remote", "--deployment", "east")
    assert refused.code == 8
    assert f"{job} could not be brought back: of its 2 targets, 1 cannot be found" in refused.err
    assert "--profile" in refused.err
    done = langbatch.here("recover", "--from-remote", *BOTH, "--json")
    assert done.code == 0
    assert [one["id"] for one in done.document["jobs"]] == [job]
    assert langbatch.here("fetch", job, "-o", "-").out.count("\n") == 3


def test_a_profile_names_the_targets_of_a_lost_job(
    langbatch: CommandLine, requests_file: Path, tmp_path: Path
) -> None:
    profiles = tmp_path / "profiles.toml"
    profiles.write_text(
        '[prod]\n[[prod.targets]]\ndeployment = "east"\n[[prod.targets]]\ndeployment = "west"\n'
    )
    here = {"LANGBATCH_PROFILES": str(profiles)}
    sent = langbatch.here("submit", requests_file, "--profile", "prod", "--wait", "--json", **here)
    assert sent.code == 0, sent.err
    shutil.rmtree(langbatch.home)
    assert langbatch.here("recover", "--from-remote", **here).code == 8
    done = langbatch.here("recover", "--from-remote", "--profile", "prod", **here)
    assert done.code == 0
    assert "1 job brought back" in done.err


def test_a_lost_database_is_noticed_by_its_jobs_folders_and_nothing_is_paid_again(
    langbatch: CommandLine, requests_file: Path, service: RunningServer
) -> None:
    job = langbatch.here("submit", requests_file, "--wait").job_id
    for path in langbatch.home.glob("langbatch.db*"):
        path.unlink()
    listed = langbatch.here("status")
    assert listed.code == 0
    assert "1 job of another database left folders here" in listed.err
    again = langbatch.here("submit", requests_file, "--json")
    assert again.code == 2
    assert again.document["error"]["code"] == "job_lost"
    assert langbatch.here("recover", "--from-remote").code == 0
    assert langbatch.here("submit", requests_file).job_id == job
    assert service.emulator.report()["counts"]["batches"] == 1


def test_a_retry_of_what_has_all_succeeded_says_so(langbatch: CommandLine, requests_file: Path) -> None:
    job = langbatch.here("submit", requests_file, "--wait").job_id
    ran = langbatch.here("retry", job)
    assert ran.code == 0
    assert "nothing to send again" in ran.err
