"""docs/how-to/pipelines.md: each recipe does what the page says, with the real scheduler where there is one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest

from langbatch.emulator import EmulatorConfig, RunningServer, Timing, running_server
from running import RUN_SECONDS, CommandLine, pointing_at
from support import requests_file

PAGE = (Path(__file__).resolve().parents[2] / "docs/how-to/pipelines.md").read_text()


def recipe(name: str) -> str:
    found = re.search(rf"<!-- run: {re.escape(name)} -->\n```\w+\n(.*?)```", PAGE, re.S)
    assert found is not None, name
    return found[1]


def outcomes(path: Path) -> dict[str, str]:
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return {record["custom_id"]: record["outcome"] for record in records}


@pytest.fixture
def line(langbatch_emulator: RunningServer, tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, pointing_at(langbatch_emulator))


def run(
    line: CommandLine, *words: object, expect: int | None = 0, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A program of this environment, in the test's folder."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        list(map(str, words)),
        cwd=line.folder,
        env=line.environment({"PATH": path, **(variables or {})}),
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    if expect is not None:
        assert ran.returncode == expect, ran.stdout[-5000:] + ran.stderr[-5000:]
    return ran


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


@pytest.mark.skipif(find_spec("airflow") is None, reason="Airflow is not installed: make recipes")
def test_airflow_defers_the_task_and_writes_the_results(
    line: CommandLine, langbatch_emulator: RunningServer
) -> None:
    for folder, name, code in (
        ("plugins", "langbatch_airflow.py", recipe("an Airflow operator")),
        ("dags", "nightly.py", recipe("an Airflow DAG").replace("/data", str(line.folder))),
    ):
        (line.folder / folder).mkdir()
        (line.folder / folder / name).write_text(code)
    requests_file(line.folder / "requests-2026-01-02.jsonl", ["a", "b"])
    settings = {"AIRFLOW_HOME": str(line.folder), "AIRFLOW__CORE__LOAD_EXAMPLES": "false"}
    run(line, "airflow", "db", "migrate", variables=settings)
    ran = run(line, "airflow", "dags", "test", "nightly", "2026-01-02", variables=settings)
    assert "Pausing task as DEFERRED" in ran.stdout + ran.stderr
    assert outcomes(line.folder / "results-2026-01-02.jsonl") == {"a": "succeeded", "b": "succeeded"}
    assert langbatch_emulator.emulator.payments().paid_twice == 0


@pytest.mark.skipif(find_spec("prefect") is None, reason="Prefect is not installed: make recipes")
def test_prefect_runs_the_flow(line: CommandLine, langbatch_emulator: RunningServer) -> None:
    (line.folder / "nightly.py").write_text(recipe("a Prefect flow"))
    files = [requests_file(line.folder / f"{name}.jsonl", [f"{name}1", f"{name}2"]) for name in "ab"]
    settings = {
        "PREFECT_HOME": str(line.folder / "prefect"),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "240",
        "DO_NOT_TRACK": "1",
    }
    ran = run(line, sys.executable, "nightly.py", *files, variables=settings)
    assert ran.stdout == "4\n"
    assert langbatch_emulator.emulator.report()["counts"]["batches"] == 2
