"""With the real Airflow, which is large: `make recipes` installs it beside langbatch and runs this."""

from __future__ import annotations

from langbatch.emulator import RunningServer
from pipelines.recipes import outcomes, recipe, run
from running import CommandLine
from support import requests_file


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
