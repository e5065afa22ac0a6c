"""docs/how-to/pipelines.md: each recipe does what the page says. Those of Airflow and Prefect have files of
their own, which `make recipes` runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from langbatch.emulator import EmulatorConfig, RunningServer, Timing, running_server
from pipelines.recipes import PAGE, outcomes, recipe, run
from running import CommandLine, pointing_at
from support import requests_file


@pytest.fixture
def slow() -> Iterator[RunningServer]:
    """A service whose batches take an hour of its own time."""
    hour = Timing("seconds", file_pending=0, validating=0, running=3600, finalizing=0, cancelling=0)
    with running_server(config=EmulatorConfig(timing=hour)) as server:
        yield server


def test_the_script_for_cron_ends_with_7_until_the_results_are_there(
    slow: RunningServer, tmp_path: Path
) -> None:
    line = CommandLine(tmp_path, pointing_at(slow))
    requests_file(tmp_path / "requests.jsonl", ["a", "b"])
    (tmp_path / "collect.sh").write_text(recipe("a script for cron"))
    results = tmp_path / "results.jsonl"
    run(line, "sh", "collect.sh", expect=7)
    assert not results.exists()
    slow.emulator.advance(3600)
    run(line, "sh", "collect.sh", expect=0)
    assert outcomes(results) == {"a": "succeeded", "b": "succeeded"}
    run(line, "sh", "collect.sh", expect=0)
    assert slow.emulator.report()["counts"]["batches"] == 1


def test_resume_alone_brings_every_job_to_its_end(slow: RunningServer, tmp_path: Path) -> None:
    line = CommandLine(tmp_path, pointing_at(slow))
    for name in ("one", "two"):
        requests_file(tmp_path / f"{name}.jsonl", [name])
        line.here("submit", f"{name}.jsonl", "--provider", "azure")
    run(line, "langbatch", "resume", expect=7)
    slow.emulator.advance(3600)
    run(line, "langbatch", "resume", expect=0)
    assert [job["state"] for job in line.here("status", "--json").document["jobs"]] == ["completed"] * 2


@pytest.mark.skipif(not Path("/usr/bin/systemd-analyze").exists(), reason="needs systemd-analyze")
def test_systemd_takes_the_units(line: CommandLine) -> None:
    units = dict(re.findall(r"```ini\n# /etc/systemd/system/(\S+)\n(.*?)```", PAGE, re.S))
    for name, text in units.items():
        here = text.replace("/srv/venv/bin/langbatch", "/bin/true").replace("User=langbatch", "User=root")
        (line.folder / name).write_text(here)
    assert set(units) == {"langbatch.service", "langbatch.timer"}
    ran = run(line, "systemd-analyze", "verify", *units, expect=None)
    assert [said for said in ran.stderr.splitlines() if "langbatch." in said] == []
